"""Damage to disks at rest, within a budget: what the disk lost for good is never more than a minority could lose.

Every kind of damage here is one that a recovery must notice. So it strikes proven bytes only: those of which a state
slot says that they were durable, perhaps with others in the same sector. What was written since may by itself look like
a torn write (docs/decisions/0004); that limit is not tested here. One member is damaged once, because the evidence of a damage must not be damaged itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from quorker.core.raft.messages import NodeId
from quorker.core.wire.filesystem import SECTOR_BYTES
from quorker.core.wire.hardstate import SLOT_NAMES, decode_slot, newest_slot
from quorker.core.wire.wal import parse_segment_name
from quorker.sim.cases.case import Fault, FaultKind
from quorker.sim.disks.crash_states import UNLIMITED, ForgetfulFileSystem
from quorker.sim.disks.file_disk import Backup, FileDisk
from quorker.sim.faults.network import End, Strike, missed
from quorker.sim.oracles.checks import FIRST, Violation
from quorker.sim.stories.story import Kind
from quorker.sim.world.host import Host
from quorker.sim.world.randomness import mix
from quorker.sim.world.world import World

LOG: Final = "wal/"


class FileFaults:
    """Strikes disks that are files; others feel nothing. `damaged`: whom the budget was spent on."""

    def __init__(self, world: World) -> None:
        case = world.case
        self._world = world
        self._budget = 0 if case.spares else (case.voters - 1) // 2
        self.damaged: list[NodeId] = []

    def strikes(self) -> dict[FaultKind, Strike]:
        return {
            FaultKind.FILE_ROT: self._damaging(rot),
            FaultKind.FILE_STALE: self._damaging(make_stale),
            FaultKind.FILE_MISDIRECTED: self._damaging(misdirect),
            FaultKind.FILE_ERROR: _fail_write,
            FaultKind.FILE_FULL: _fill,
            **(self._losses() if self._world.case.disk.files else {}),
        }

    def _losses(self) -> dict[FaultKind, Strike]:
        """How to lose here what a disk of records loses by other means."""
        return {
            FaultKind.ROLL_BACK: self._roll_back,
            FaultKind.WIPE: self._wipe,
            FaultKind.LOSE_SUFFIX: self._damaging(make_stale),
            FaultKind.SPOIL_SNAPSHOT: self._damaging(spoil_snapshot),
        }

    def scan(self, nodes: Mapping[NodeId, Host]) -> None:
        """At least one member that was never damaged has everything, so that no damage can have been total."""
        for node in nodes.values():
            for what in node.disk.happened if isinstance(node.disk, FileDisk) else ():
                self._world.note(what)
        oracles = self._world.oracles
        if not self.damaged or oracles.commit_index == FIRST:
            return
        last = oracles.committed[-1]
        whole = [node_id for node_id in nodes if node_id not in self.damaged]
        if not any(oracles.disks[node_id].holds(last.index, last.term) for node_id in whole):
            raise Violation("durability", f"index {last.index} is on none of the undamaged disks {whole}")

    def _affordable(self, node: Host) -> FileDisk | None:
        """The disk of this member, to be damaged, if the budget allows."""
        disk = node.disk
        if not isinstance(disk, FileDisk) or node.id in self.damaged or len(self.damaged) >= self._budget:
            return None
        return disk

    def _damaging(self, act: Callable[[ForgetfulFileSystem, int], str]) -> Strike:
        def strike(node: Host, fault: Fault) -> End | None:
            disk = self._affordable(node)
            what = "" if disk is None else act(disk.fs, mix(fault.amount))
            if disk is None or not what:
                return missed
            self.damaged.append(node.id)
            disk.damaged = f"{fault.kind}: {what}"
            self._tell(node, disk.damaged)
            if fault.amount & 1:
                node.crash(fault.for_ns)
            return None

        return strike

    def _roll_back(self, node: Host, fault: Fault) -> End:
        disk = self._affordable(node)
        if disk is None:
            return missed
        self.damaged.append(node.id)
        before = disk.keep()

        def put_back() -> None:
            self._replace(node, disk, before, fault, "rolled back")
            self._world.note(f"fault {fault.kind}")

        return put_back

    def _wipe(self, node: Host, fault: Fault) -> End | None:
        disk = self._affordable(node)
        if disk is None:
            return missed
        self.damaged.append(node.id)
        self._replace(node, disk, disk.nothing(), fault, "wiped")
        return None

    def _replace(self, node: Host, disk: FileDisk, backup: Backup, fault: Fault, what: str) -> None:
        node.crash(fault.for_ns)
        disk.put_back(backup, what)
        self._tell(node, what)

    def _tell(self, node: Host, what: str) -> None:
        self._world.note("disk damaged")
        node.tell(Kind.NOTE, f"has a damaged disk: {what}")


def _fail_write(node: Host, _: Fault) -> End | None:
    if not isinstance(node.disk, FileDisk):
        return missed
    node.disk.trouble.failing_write = True
    return None


def _fill(node: Host, fault: Fault) -> End:
    disk = node.disk
    if not isinstance(disk, FileDisk):
        return missed
    fs = disk.fs
    fs.capacity = fs.used_bytes + fault.amount
    return lambda: setattr(fs, "capacity", UNLIMITED)


# ---------------------------------------------------------------------- damage; each returns what was done, if anything could be


def rot(fs: ForgetfulFileSystem, word: int) -> str:
    """One bit of anything that is proven."""
    places = proven(fs)
    if not places:
        return ""
    path = _pick(sorted(places), word)
    offset = (word >> 16) % places[path]
    byte = fs.at_rest()[path][offset] ^ 1 << (word >> 60 & 7)
    fs.overwrite(path, bytes((byte,)), offset)
    return f"a bit of {path} at byte {offset}"


def make_stale(fs: ForgetfulFileSystem, word: int) -> str:
    """A sector of the log as it was before the last records reached it: files of the log begin as zeros."""
    places = _log_of(proven(fs))
    if not places:
        return ""
    path = _pick(sorted(places), word)
    offset = (word >> 16) % places[path] & -8
    fs.overwrite(path, bytes(SECTOR_BYTES - offset % SECTOR_BYTES), offset)
    return f"{path} is stale from byte {offset} to the end of the sector"


def spoil_snapshot(fs: ForgetfulFileSystem, word: int) -> str:
    """A sector of a snapshot is gone."""
    places = {path: size for path, size in proven(fs).items() if path.endswith(".snap")}
    if not places:
        return rot(fs, word)
    path = _pick(sorted(places), word)
    offset = (word >> 16) % places[path] // SECTOR_BYTES * SECTOR_BYTES
    fs.overwrite(path, bytes(min(SECTOR_BYTES, places[path] - offset)), offset)
    return f"sector {offset} of {path} is gone"


def misdirect(fs: ForgetfulFileSystem, word: int) -> str:
    """A sector of the log went to the place of another one, and its own place kept the zeros it had."""
    places = _log_of(proven(fs))
    if not places:
        return ""
    source, target = _pick(sorted(places), word), _pick(sorted(places), word >> 16)
    source_at = (word >> 32) % places[source] // SECTOR_BYTES * SECTOR_BYTES
    target_at = (word >> 48) % places[target] // SECTOR_BYTES * SECTOR_BYTES
    sector = fs.at_rest()[source][source_at : source_at + SECTOR_BYTES]
    fs.overwrite(source, bytes(len(sector)), source_at)
    if (source, source_at) != (target, target_at):
        fs.overwrite(target, sector, target_at)
    return f"sector {source_at} of {source} went to {target_at} of {target}"


def proven(fs: ForgetfulFileSystem) -> dict[str, int]:
    """How many bytes of each file are known to be durable by what stands in another one; the files without any left out."""
    files = fs.at_rest()
    slots = [decode_slot(files.get(name, b""), None) for name in SLOT_NAMES]
    if slots == [None, None]:
        return {}
    slot = newest_slot((slots[0], slots[1]))
    sizes: dict[str, int] = {}
    for path, data in files.items():
        segment = parse_segment_name(path.removeprefix(LOG))
        if segment is None:
            sizes[path] = len(data) if _counts(path) else 0
        elif segment[0] <= slot.sealed_segment:
            used = len(data.rstrip(b"\0"))
            sizes[path] = used if segment[0] < slot.sealed_segment else min(used, slot.sealed_end)
    return {path: size for path, size in sizes.items() if size}


def _counts(path: str) -> bool:
    return path.endswith(".snap") or path == "IDENT" or path in SLOT_NAMES


def _log_of(places: Mapping[str, int]) -> dict[str, int]:
    return {path: size for path, size in places.items() if path.startswith(LOG)}


def _pick(paths: list[str], word: int) -> str:
    return paths[(word & 0xFFFF) * len(paths) >> 16]
