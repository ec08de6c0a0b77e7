"""What must hold of a member, of one state and of two in a row. Says what is wrong; stops nobody.

The simulator and the tests call this after every step. Properties of a whole cluster are the simulator's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from quorker.core.raft import membership
from quorker.core.raft.effects import Role
from quorker.core.raft.messages import NOBODY, EntryKind, NodeId
from quorker.core.raft.progress import ProgressState
from quorker.core.raft.roles import Leader
from quorker.core.raft.state import RaftState

Violations: TypeAlias = list[str]


@dataclass(frozen=True, slots=True)
class MemberView:
    """What `check_step` compares: one member at one moment. `commit_term`: the term of the entry committed last."""

    node_id: NodeId
    role: Role
    term: int
    voted_for: NodeId
    leader: NodeId
    commit_index: int
    applied_index: int
    first_index: int
    last_index: int
    last_term: int
    match_indexes: tuple[tuple[NodeId, int, int], ...]  # a leader's (peer, session, match_index)


def view(raft: RaftState) -> MemberView:
    """The member now."""
    progress = sorted(raft.progress.items()) if raft.role is Role.LEADER else ()
    return MemberView(
        raft.node_id,
        raft.role,
        raft.term,
        raft.voted_for,
        raft.leader,
        raft.commit_index,
        raft.applied_index,
        raft.first_index,
        raft.last_index,
        raft.log.last_term,
        tuple([(peer, known.session, known.match_index) for peer, known in progress]),
    )


def check_state(raft: RaftState) -> Violations:
    """Every invariant of one state that does not hold, in words. Walks the uncommitted tail of the log only."""
    if raft.is_silent:
        return []
    return [*_indexes(raft), *_tail(raft), *_lane(raft), *_configuration(raft), *_leader(raft)]


def _indexes(raft: RaftState) -> Iterator[str]:
    if not raft.applied_index <= raft.applying_index <= raft.commit_index <= raft.last_index:
        yield (
            f"applied {raft.applied_index} <= offered {raft.applying_index} <= committed {raft.commit_index}"
            f" <= last {raft.last_index} does not hold"
        )
    if not 0 <= raft.stable_index <= raft.last_index:
        yield f"stable {raft.stable_index} is not within the log, which ends at {raft.last_index}"
    if raft.first_index > raft.applied_index + 1 and raft.installing is None:
        yield f"entries before {raft.first_index} are gone, and only {raft.applied_index} are applied"
    if raft.snapshot.index < raft.first_index - 1:
        yield f"a gap: snapshot to {raft.snapshot.index}, log from {raft.first_index}"
    if raft.applying_index > raft.stable_index and not raft.config.apply_unstable and raft.installing is None:
        yield f"offered {raft.applying_index} for applying, durable only to {raft.stable_index}"
    if raft.last_index >= raft.first_index and raft.log.last_term > raft.term:
        yield f"an entry of term {raft.log.last_term} in term {raft.term}"


def _tail(raft: RaftState) -> Iterator[str]:
    low = max(raft.first_index, raft.commit_index)
    previous = raft.log.term_at(low - 1) or 0
    for index, entry in enumerate(raft.log.entries(low, raft.last_index + 1), low):
        if entry.index != index:
            yield f"the entry at {index} says it is at {entry.index}"
        if entry.term < previous:
            yield f"terms fall from {previous} to {entry.term} at {index}"
        previous = entry.term


def _lane(raft: RaftState) -> Iterator[str]:
    lane = raft.lane
    promised = lane.stable
    for write in lane.in_flight:
        promised = max(promised, write.last_index)
    if promised > raft.last_index:
        yield f"writes in flight prove {promised}, the log ends at {raft.last_index}"
    if lane.next_unwritten > raft.last_index + 1:
        yield f"written to {lane.next_unwritten - 1}, the log ends at {raft.last_index}"
    if lane.stable >= lane.next_unwritten and raft.installing is None:
        yield f"stable {lane.stable}, yet written only to {lane.next_unwritten - 1}"


def _configuration(raft: RaftState) -> Iterator[str]:
    config = raft.configuration
    both = [learner for learner in config.learners if learner in config.voters]
    if both:
        yield f"{both} are voters and learners"
    if sorted(raft.progress) != list(config.members()):
        yield f"progress of {sorted(raft.progress)}, members {config.members()}"
    if not config.is_joint and (config.learners_next or config.auto_leave):
        yield "what belongs to a joint configuration remains after it"
    if raft.config_index > max(raft.commit_index, raft.applying_index):
        yield f"the configuration of {raft.config_index} is in effect, committed is {raft.commit_index}"


def _leader(raft: RaftState) -> Iterator[str]:
    leader = raft.acting_as
    if raft.role is Role.CANDIDATE and raft.voted_for != raft.node_id:
        yield f"a candidate voted for {raft.voted_for}"
    if raft.rejoining is not None and raft.role is not Role.FOLLOWER:
        yield f"a {raft.role.value} that has no say"
    if not isinstance(leader, Leader):
        return
    if raft.node_id not in raft.progress and raft.config.step_down_on_removal:
        yield "leads without being a member"
    if raft.voted_for != raft.node_id:
        yield f"leads a term in which it voted for {raft.voted_for}"
    yield from _pending_changes(raft, leader)
    for peer, known in sorted(raft.progress.items()):
        if not 0 <= known.match_index < known.next_index:
            yield f"match {known.match_index} < next {known.next_index} does not hold for {peer}"
        if known.match_index > raft.last_index:
            yield f"{peer} matches to {known.match_index}, the log ends at {raft.last_index}"
        # A follower may meanwhile have got further by appends of before, though not to where our log begins now.
        base = max(known.pending_snapshot, known.match_index)
        if known.state is ProgressState.SNAPSHOT and known.next_index != base + 1:
            yield f"{peer} waits for snapshot {known.pending_snapshot}, next is {known.next_index}"
    own = raft.progress.get(raft.node_id)
    if own is not None and own.match_index > raft.stable_index:
        yield f"counts itself to {own.match_index}, durable to {raft.stable_index}"


def _pending_changes(raft: RaftState, leader: Leader) -> Iterator[str]:
    """Of this term's entries, one configuration change at most may be unapplied."""
    unapplied = raft.log.entries(raft.config_index + 1, raft.last_index + 1)
    pending = [
        entry.index
        for entry in unapplied
        if entry.kind is not EntryKind.NORMAL and membership.decode(entry) is not None
    ]
    if len(pending) > 1 and not raft.config.disable_config_validation:
        yield f"configuration changes at {pending} are on their way at once"
    if pending and pending[-1] > leader.pending_config_index:
        yield f"a configuration change at {pending[-1]}, none assumed after {leader.pending_config_index}"


def check_step(before: MemberView, after: MemberView) -> Violations:
    """Every invariant of two states in a row of one run of a member (no restart in between), in words."""
    return [*_monotone(before, after), *_promises(before, after), *_leading(before, after)]


def _monotone(before: MemberView, after: MemberView) -> Iterator[str]:
    for name in ("term", "commit_index", "applied_index", "first_index"):
        old: int = getattr(before, name)
        new: int = getattr(after, name)
        if new < old:
            yield f"{name} falls from {old} to {new}"
    if after.last_index < before.commit_index:
        yield f"committed to {before.commit_index}, and the log now ends at {after.last_index}"


def _promises(before: MemberView, after: MemberView) -> Iterator[str]:
    if before.term != after.term:
        return
    if before.voted_for not in (NOBODY, after.voted_for):
        yield f"voted for {before.voted_for} and {after.voted_for} in term {after.term}"
    if NOBODY != before.leader != after.leader != NOBODY:
        yield f"{before.leader} and {after.leader} lead term {after.term}"
    if before.role is Role.FOLLOWER and after.role is Role.LEADER and after.voted_for != after.node_id:
        yield f"elected, and voted for {after.voted_for}"


def _leading(before: MemberView, after: MemberView) -> Iterator[str]:
    """A leader only appends to its log, and never forgets what a follower acknowledged (§5.3)."""
    if not before.role is after.role is Role.LEADER or before.term != after.term:
        return
    if after.last_index < before.last_index:
        yield f"a leader cut its log from {before.last_index} to {after.last_index}"
    known = {(peer, session): match for peer, session, match in after.match_indexes}
    for peer, session, match in before.match_indexes:
        if known.get((peer, session), match) < match:
            yield f"the match of {peer} falls from {match} to {known[peer, session]}"
