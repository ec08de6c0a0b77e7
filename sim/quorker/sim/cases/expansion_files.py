"""What a seed adds to a case's disks: real storage on simulated files, trouble for anybody, and damage within the budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from quorker.sim.cases.case import Case, FaultKind
from quorker.sim.cases.expansion_network import draw_faults, merged
from quorker.sim.world.randomness import Stream

DAMAGE_PPM: Final = 600_000
WORD: Final = (1, (1 << 32) - 1)

TROUBLE: Final[dict[FaultKind, tuple[int, int]]] = {
    FaultKind.FILE_ERROR: (0, 0),
    FaultKind.FILE_FULL: (0, 4_000),
    FaultKind.FSYNC_ERROR: (0, 0),
    FaultKind.CRASH: (0, 0),
    FaultKind.POWER_CUT: (0, 0),
}
DAMAGE: Final[dict[FaultKind, tuple[int, int]]] = {
    FaultKind.FILE_ROT: WORD,
    FaultKind.FILE_STALE: WORD,
    FaultKind.FILE_MISDIRECTED: WORD,
    FaultKind.ROLL_BACK: (0, 0),
    FaultKind.WIPE: (0, 0),
}
"""With the bounds of their amounts."""


def put_on_files(case: Case, share_ppm: int, faults_max: int) -> Case:
    """The case with disks down to their files, in a share of the runs."""
    draw = Stream(case.seed, "files")
    if not draw.chance(share_ppm):
        return case
    disk = replace(
        case.disk,
        files=True,
        segment_bytes=draw.choice((1_024, 2_048, 4_096, 16_384)),
        reserve_bytes=draw.choice((0, 0, 4_096)),
    )
    faults = draw_faults(draw, case, TROUBLE, max(1, faults_max // 2))
    dead = case.dead_in_calm
    if draw.chance(DAMAGE_PPM) and not case.spares:
        faults += draw_faults(draw, case, DAMAGE, max(1, faults_max // 4))
        dead = 0  # who has lost promises hears everybody before it has a say again
    return replace(case, disk=disk, plan=merged(case.plan, faults), dead_in_calm=dead)
