"""The list of situations that a campaign must come to: each is noted somewhere, and each can be missing."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Role
from quorker.core.raft.messages import ConfState, HardState, SnapshotMeta
from quorker.sim.campaign.coverage import SITUATIONS, never_seen, wanted_of
from quorker.sim.cases.expansion import PROFILES, expand
from quorker.sim.oracles.elections import Elections
from quorker.sim.runs.cluster import run_case

ROOT = Path(__file__).resolve().parents[2]
RARE = {
    # Seen in campaigns of thousands of seeds; a test run is too short for them.
    "overlap with a frozen holder", "duplicate of RejoinRequest",
    "duplicate of RejoinResponse", "duplicate of TimeoutNow", "clock set back while jobs run",
    "lease not renewed in time", "duplicate of ReadResponse", "duplicate of ForwardRead", "recovery interrupted",
    "duplicate of InstallSnapshot", "crashed while saving a snapshot", "snapshot installed during a partition",
    "job quarantined", "slot fired by the next leader", "step of a schedule that no longer fits",
    "batch succeeded after it had failed", "batch of jobs refused",
}  # fmt: skip


def test_every_situation_is_noted_by_the_sources() -> None:
    texts = "".join(
        path.read_text() for path in (ROOT / "sim/quorker/sim").rglob("*.py") if path.stem != "coverage"
    )
    missing = [
        name for name in SITUATIONS if f'"{name}"' not in texts and not name.startswith("duplicate of ")
    ]
    assert missing == []
    assert 'note(f"duplicate of {kind_of(name)}")' in texts


def test_profiles_are_held_to_what_they_can_reach() -> None:
    short, jobs = set(wanted_of(["short"])), set(wanted_of(["jobs"]))
    assert "truncated several" in short - jobs
    assert "stale report refused" in jobs - short
    assert "leader left the configuration" in set(wanted_of(["churn"])) - set(wanted_of(["damage"]))
    assert "has its say again" in set(wanted_of(["damage"])) - short
    assert "torn tail cut" in set(wanted_of(["files"])) - short
    assert set(wanted_of(PROFILES)) == set(SITUATIONS)
    assert set(wanted_of(["short", "jobs"])) == short | jobs


def test_what_never_came_up_is_told_with_its_meaning() -> None:
    seen = dict.fromkeys(wanted_of(["short"]))
    assert never_seen(["short"], seen) == {}
    del seen["vote split"]
    assert never_seen(["short"], seen) == {"vote split": "two candidates of one term, and no leader of it"}
    assert all(re.fullmatch(r".{10,90}", situation.description) for situation in SITUATIONS.values())


def test_a_short_campaign_comes_to_most_of_it() -> None:
    seeds = {"short": 150, "churn": 40, "jobs": 12, "damage": 60, "files": 40}
    seen: Counter[str] = Counter()
    for profile, count in seeds.items():
        for seed in range(3_000, 3_000 + count):
            seen.update(run_case(expand(seed, PROFILES[profile])).sometimes.keys())
    assert set(never_seen(seeds, seen)) <= RARE


# ---------------------------------------------------------------------- rare turns of elections

MEMBERS = ConfState((1, 2, 3))


def member(node_id: int = 1) -> Raft:
    durable = DurableState(HardState(1, 0, 1), SnapshotMeta(1, 1, MEMBERS))
    return Raft(RaftConfig(node_id), durable, 0)


def noted(*changes: tuple[int, Role, int], led: tuple[int, ...] = (), is_stalled: bool = False) -> list[str]:
    """What is noted of these changes of role: (member, role, term)."""
    notes: list[str] = []
    elections = Elections(led, notes.append)
    for node_id, role, term in changes:
        elections.on_role(node_id, role, term, member(node_id), is_stalled=is_stalled)
    return notes


def test_a_vote_is_split_when_two_campaigned_and_nobody_won() -> None:
    rivals = ((1, Role.CANDIDATE, 2), (2, Role.CANDIDATE, 2))
    assert noted(*rivals, (1, Role.PRE_CANDIDATE, 2)) == ["vote split"]
    assert noted(*rivals, (1, Role.CANDIDATE, 3)) == ["vote split"]
    assert noted(*rivals, (1, Role.PRE_CANDIDATE, 2), led=(2,)) == []
    assert noted(*rivals, (1, Role.FOLLOWER, 2)) == []
    assert noted((1, Role.CANDIDATE, 2), (1, Role.CANDIDATE, 3)) == []


def test_a_leader_steps_down_by_itself_only_in_its_own_term() -> None:
    assert noted((1, Role.LEADER, 2), (1, Role.FOLLOWER, 2)) == ["leader stepped down without a quorum"]
    assert noted((1, Role.LEADER, 2), (1, Role.FOLLOWER, 3)) == []
    assert noted((1, Role.LEADER, 2), (1, Role.FOLLOWER, 2), is_stalled=True) == [
        "leader gave way with a stalled disk"
    ]
    assert noted((4, Role.LEADER, 2), (4, Role.FOLLOWER, 2)) == []  # it was removed


def test_a_crash_ends_what_is_known_of_a_member() -> None:
    notes: list[str] = []
    elections = Elections((), notes.append)
    elections.on_role(1, Role.LEADER, 2, member(), is_stalled=False)
    elections.on_crash(1)
    elections.on_role(1, Role.FOLLOWER, 2, member(), is_stalled=False)
    assert notes == []


def test_a_leader_that_is_removed_hears_of_it_before_it_stops_leading() -> None:
    notes: list[str] = []
    elections = Elections((), notes.append)
    elections.on_role(1, Role.LEADER, 2, member(), is_stalled=False)
    elections.on_role(2, Role.FOLLOWER, 2, member(2), is_stalled=False)
    elections.on_config(1, ConfState((1, 2), voters_outgoing=(1, 2, 3)))
    elections.on_config(2, ConfState((1, 3)))
    assert notes == []
    elections.on_config(1, ConfState((2, 3)))
    assert notes == ["leader left the configuration"]
