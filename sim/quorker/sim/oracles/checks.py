"""What must hold in every run of Raft members, watched after every step: the oracles of the simulator.

They see what no member can: all disks, also those of crashed members, and everything that was ever committed. Each
check costs a constant per event. A violation is raised once, as `Violation`, and ends the run; the job store's own
promises are watched in `quorker.sim.oracles.job_checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from zlib import crc32

from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    EntryKind,
    Forgotten,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    NodeId,
    RequestVote,
    SnapshotMeta,
    VoteResponse,
)
from quorker.sim.disks.disk import DurableLog

FIRST: Final = 1  # every member starts from a snapshot of this index, so nothing below is ever in a log


class Violation(Exception):
    """A promise was broken. `oracle` names which; the message tells what was seen."""

    def __init__(self, oracle: str, detail: str) -> None:
        super().__init__(oracle, detail)
        self.oracle = oracle
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.oracle}: {self.detail}"


class MemberView(Protocol):
    """What the oracles look at in a running member (`Raft` has it)."""

    @property
    def term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def conf_state(self) -> ConfState: ...
    @property
    def log(self) -> Any: ...


@dataclass(slots=True)
class Seen:
    """What a member has shown so far; `voted` is by term, and outlives its restarts."""

    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    conf_state: ConfState = field(default_factory=ConfState)
    granted: dict[int, NodeId] = field(default_factory=dict[int, NodeId])


def majorities_of(conf_state: ConfState) -> tuple[tuple[NodeId, ...], ...]:
    """The voter sets of which each must agree."""
    if conf_state.voters_outgoing:
        return conf_state.voters, conf_state.voters_outgoing
    return (conf_state.voters,)


def next_state(state: int, entry: Entry) -> int:
    """The state of the replicated machine after `entry`: a digest of everything applied so far, in order."""
    return crc32(entry.data, state ^ entry.term) ^ entry.index


class Oracles:
    """One run's judge. `disks` holds every member's durable log, of crashed members too."""

    def __init__(self, disks: Mapping[NodeId, DurableLog]) -> None:
        self.disks = disks
        self.seen: dict[NodeId, Seen] = {node_id: Seen(commit_index=FIRST) for node_id in disks}
        self.leaders: dict[int, NodeId] = {}
        self.leading: dict[int, MemberView] = {}
        self.highest_term = 0
        self.committed: list[Entry] = []  # committed[i] has index FIRST + 1 + i
        self.committed_in: list[int] = []  # the term of the leader that committed it, not of the entry
        self.states: list[int] = [0]  # states[i]: of the machine after index FIRST + i
        self.note: Callable[[str], None] = _unheard  # told of situations that are worth testing
        self.refused: dict[bytes, str] = {}  # payloads that a member promised not to append
        # (index, term) -> the entry, and the term of its predecessor where that is known
        self._written: dict[tuple[int, int], tuple[Entry, int | None]] = {}

    @property
    def commit_index(self) -> int:
        """The highest index that any leader ever committed."""
        return FIRST + len(self.committed)

    def uncommitted(self) -> list[Entry]:
        """What any leader has written behind the commit index so far: some of it may still be committed."""
        return [entry for (index, _), (entry, _) in self._written.items() if index > self.commit_index]

    # ------------------------------------------------------------------ a member starts, becomes something

    def on_started(self, node_id: NodeId, raft: MemberView, applied_index: int) -> None:
        seen = self.seen[node_id]
        knows_its_vote = self.disks[node_id].hard_state.forgotten is not Forgotten.PROMISES
        if knows_its_vote and seen.granted and raft.term < max(seen.granted):
            raise Violation("durability", f"n{node_id} restarted in term {raft.term}, but had voted later")
        seen.term, seen.commit_index = raft.term, raft.commit_index
        seen.applied_index, seen.conf_state = applied_index, raft.conf_state

    def on_leader(self, node_id: NodeId, term: int, raft: MemberView) -> None:
        """Election safety (§5.2) and leader completeness (§5.4), by the term in which entries were committed."""
        other = self.leaders.setdefault(term, node_id)
        if other != node_id:
            raise Violation("election safety", f"n{other} and n{node_id} both lead term {term}")
        if not any(node_id in voters for voters in majorities_of(raft.conf_state)):
            raise Violation("leader is a voter", f"n{node_id} leads term {term} of {raft.conf_state}")
        self._must_be_elected(node_id, term, raft.conf_state)
        self.leading[term] = raft
        self.highest_term = max(self.highest_term, term)
        index = self.commit_index
        while index > FIRST and self.committed_in[index - FIRST - 1] >= term:
            index -= 1
        self._must_hold(node_id, term, raft, index)

    def _must_be_elected(self, node_id: NodeId, term: int, conf_state: ConfState) -> None:
        """§5.2, §6: by those whose grants have left them, and by itself."""
        seen = self.seen
        for voters in majorities_of(conf_state):
            by = [voter for voter in voters if voter == node_id or seen[voter].granted.get(term) == node_id]
            if 2 * len(by) <= len(voters):
                raise Violation(
                    "elected by majorities [R10]",
                    f"n{node_id} leads term {term}, elected by {by} of {voters}",
                )

    def _must_hold(self, node_id: NodeId, term: int, raft: MemberView, index: int) -> None:
        if index <= FIRST or index < raft.log.first_index:
            return
        wanted, found = self.committed[index - FIRST - 1].term, raft.log.term_at(index)
        if found != wanted:
            raise Violation(
                "leader completeness",
                f"n{node_id} leads term {term} with term {found} at index {index}, committed with term {wanted}",
            )

    # ------------------------------------------------------------------ after every step

    def after_step(self, node_id: NodeId, raft: MemberView, leads: bool) -> None:
        seen = self.seen[node_id]
        if raft.term != seen.term:
            if raft.term < seen.term:
                raise Violation("monotonic term", f"n{node_id} went from {seen.term} to {raft.term}")
            seen.term = raft.term
        commit_index = raft.commit_index
        if commit_index != seen.commit_index:
            self._on_commit(node_id, seen, raft, commit_index, leads)
        if raft.conf_state is not seen.conf_state:
            seen.conf_state = raft.conf_state

    def _on_commit(
        self, node_id: NodeId, seen: Seen, raft: MemberView, commit_index: int, leads: bool
    ) -> None:
        if commit_index < seen.commit_index:
            raise Violation("monotonic commit", f"n{node_id} went from {seen.commit_index} to {commit_index}")
        if commit_index > raft.last_index:
            raise Violation("commit within log", f"n{node_id}: {commit_index} > {raft.last_index}")
        seen.commit_index = commit_index
        term = raft.log.term_at(commit_index)
        if commit_index > self.commit_index:
            self._commit(node_id, seen, raft, commit_index, leads)
        elif commit_index > FIRST and term not in (None, self.committed[commit_index - FIRST - 1].term):
            raise Violation(
                "state-machine safety",
                f"n{node_id} commits term {term} at index {commit_index}, committed elsewhere with term "
                f"{self.committed[commit_index - FIRST - 1].term}",
            )

    def _commit(self, node_id: NodeId, seen: Seen, raft: MemberView, commit_index: int, leads: bool) -> None:
        """`node_id` commits what nobody had committed: only a leader may, and only over a durable majority."""
        if not leads:
            raise Violation(
                "only leaders commit", f"n{node_id} commits {commit_index} of {self.commit_index}"
            )
        term = raft.log.term_at(commit_index)
        if term != raft.term:
            raise Violation(
                "own-term commit", f"n{node_id} commits term {term} at {commit_index}, leading {raft.term}"
            )
        if not self._was_durable(commit_index, term, raft.conf_state) and not self._was_durable(
            commit_index, term, seen.conf_state
        ):
            raise Violation(
                "commit on durable majority",
                f"n{node_id} commits {commit_index} in term {raft.term}; it is durable on "
                f"{self._holders(commit_index, term)} of {raft.conf_state}",
            )
        if raft.log.term_at(self.commit_index + 1) != raft.term:
            self.note("older entry committed by a newer term")
        for entry in raft.log.entries(self.commit_index + 1, commit_index + 1):
            self._append_committed(node_id, entry, raft.term)
        if commit_index != self.commit_index:
            raise Violation("log has no gaps", f"n{node_id} committed {commit_index} without its entries")
        for later in range(raft.term + 1, self.highest_term + 1):
            if later in self.leading:
                self._must_hold(self.leaders[later], later, self.leading[later], commit_index)

    def _append_committed(self, node_id: NodeId, entry: Entry, term: int) -> None:
        why = self.refused.get(entry.data[:8]) if entry.data else None
        if why is not None:
            raise Violation("honest refusal", f"n{node_id} commits index {entry.index}, {why}")
        self.committed.append(entry)
        self.committed_in.append(term)
        self.states.append(next_state(self.states[-1], entry))

    def _durable(self, index: int, term: int, conf_state: ConfState) -> bool:
        disks = self.disks
        return all(
            2 * sum(disks[voter].holds(index, term) for voter in voters if voter in disks) > len(voters)
            for voters in majorities_of(conf_state)
        )

    def _was_durable(self, index: int, term: int, conf_state: ConfState) -> bool:
        """As above, but a disk that lost the entry to damage counts: nobody could know that when it was counted."""
        disks = self.disks
        return all(
            2 * sum(disks[voter].held(index, term) for voter in voters if voter in disks) > len(voters)
            for voters in majorities_of(conf_state)
        )

    def _holders(self, index: int, term: int) -> list[NodeId]:
        return [node_id for node_id, disk in self.disks.items() if disk.holds(index, term)]

    # ------------------------------------------------------------------ the disk lane and the network

    def on_persist(self, node_id: NodeId, record: Persist, previous_term: int | None) -> None:
        """Log matching (§5.3): an index and a term name one entry, after one predecessor, everywhere."""
        written = self._written
        for entry in record.entries:
            name = (entry.index, entry.term)
            known = written.get(name)
            if known is None:
                written[name] = (entry, previous_term)
                if entry.kind is not EntryKind.NORMAL:
                    self._must_be_the_only_change(node_id, entry, previous_term)
            elif (known[0] is not entry and known[0] != entry) or _differ(known[1], previous_term):
                raise Violation(
                    "log matching", f"n{node_id} writes {name} after {previous_term}, unlike another"
                )
            previous_term = entry.term

    def _must_be_the_only_change(self, node_id: NodeId, change: Entry, previous_term: int | None) -> None:
        """§6: the change before this one was committed when it was written first, by whoever proposed it."""
        index, term = change.index - 1, previous_term
        while index > self.commit_index and term is not None:
            earlier, before = self._written[index, term]
            if earlier.kind is not EntryKind.NORMAL:
                raise Violation(
                    "one change at a time [R10]",
                    f"n{node_id} proposes the change {change.index} over {index}, which is not committed",
                )
            index, term = index - 1, before

    def on_durable(self, node_id: NodeId, problem: str) -> None:
        if problem:
            raise Violation("persist lane", f"n{node_id} {problem}")

    def on_send(self, node_id: NodeId, message: Message) -> None:
        """Whatever a message promises must be durable before it leaves."""
        if self.disks[node_id].hard_state.forgotten and _has_a_say(message):
            raise Violation("no say", f"n{node_id} may have forgotten something, and sends {message}")
        promise = PROMISES.get(type(message))
        missing = promise(message, self.disks[node_id]) if promise else ""
        if missing:
            raise Violation("durable before sent", f"n{node_id} sends {message} but {missing}")
        if type(message) is VoteResponse:
            self._on_vote(node_id, message)

    def _on_vote(self, node_id: NodeId, message: VoteResponse) -> None:
        if message.pre_vote and not message.granted:
            self.note("pre-vote rejected")
        elif message.granted and not message.pre_vote:
            voted_for = self.seen[node_id].granted.setdefault(message.term, message.to)
            if voted_for != message.to:
                raise Violation(
                    "one vote", f"n{node_id} votes for {voted_for} and {message.to} in {message.term}"
                )

    # ------------------------------------------------------------------ the state machine

    def on_apply(self, node_id: NodeId, entries: Iterable[Entry]) -> None:
        seen, disk = self.seen[node_id], self.disks[node_id]
        index = seen.applied_index
        for entry in entries:
            index += 1
            if entry.index != index:
                raise Violation("apply in order", f"n{node_id} applies {entry.index} after {index - 1}")
            if index > self.commit_index:
                raise Violation("apply only committed", f"n{node_id} applies {index} > {self.commit_index}")
            known = self.committed[index - FIRST - 1]
            if known is not entry and known != entry:
                raise Violation("state-machine safety", f"n{node_id} applies {entry}, others {known}")
            if not disk.holds(index, entry.term):
                raise Violation("apply only durable", f"n{node_id} applies {index}, which its disk lacks")
        seen.applied_index = index

    def on_state(self, node_id: NodeId, index: int, state: int) -> None:
        """The machine of `node_id` after `index`, by itself or from a snapshot, equals everybody's."""
        if state != self.states[index - FIRST]:
            raise Violation("replicas are equal", f"n{node_id} has {state:x} at {index}")

    def on_install(self, node_id: NodeId, snapshot: SnapshotMeta) -> None:
        seen = self.seen[node_id]
        if snapshot.index <= seen.applied_index:
            raise Violation(
                "monotonic apply", f"n{node_id} at {seen.applied_index} installs {snapshot.index}"
            )
        if snapshot.index > self.commit_index:
            raise Violation(
                "apply only committed", f"n{node_id} installs {snapshot.index} > {self.commit_index}"
            )
        seen.applied_index = snapshot.index

    def on_read(self, node_id: NodeId, index: int, floor: int) -> None:
        """`floor`: the highest committed index when the read was asked for (§6.4)."""
        if index < floor:
            raise Violation("linearizable read", f"n{node_id} reads at {index}, {floor} was committed before")

    # ------------------------------------------------------------------ the end

    def scan(self) -> None:
        """Everything ever committed can be recovered from the disks of every member that took part to the end."""
        index = self.commit_index
        if index == FIRST:
            return
        conf_state = next(reversed(self.leading.values())).conf_state
        if not self._durable(index, self.committed[-1].term, conf_state):
            raise Violation("durability", f"index {index} is not on a majority of the disks of {conf_state}")
        for node_id, disk in self.disks.items():
            self._scan_disk(node_id, disk)

    def _scan_disk(self, node_id: NodeId, disk: DurableLog) -> None:
        commit_index = min(disk.hard_state.commit_index, disk.last)
        for entry in disk.entries[: max(0, commit_index - disk.snapshot.index)]:
            if entry != self.committed[entry.index - FIRST - 1]:
                raise Violation("durability", f"n{node_id} holds {entry} as committed")

    def scan_states(self) -> None:
        """Every snapshot on a disk holds the machine of its index."""
        for node_id, disk in self.disks.items():
            index = disk.snapshot.index
            if index >= FIRST and disk.state != self.states[index - FIRST]:
                raise Violation("replicas are equal", f"the snapshot of n{node_id} at {index} differs")


def _unheard(_: str) -> None:
    """Nobody wants to know."""


def _differ(one: int | None, other: int | None) -> bool:
    """Whether two terms differ; None is one that was compacted away."""
    return one != other and one is not None and other is not None


# ---------------------------------------------------------------------- what messages promise


def _has_a_say(message: Message) -> bool:
    """Whether somebody may count it: a grant, a candidacy, or an answer without the name of a life that rejoins."""
    if isinstance(message, VoteResponse):
        return message.granted
    if isinstance(message, (AppendResponse, HeartbeatResponse)):
        return not message.rejoin
    return isinstance(message, RequestVote)


def _is_bound(disk: DurableLog, term: int, vote: NodeId) -> bool:
    """Whether no crash lets it vote otherwise in `term`: one write may bring a vote and the end of its term."""
    return disk.votes.get(term, vote) == vote if disk.hard_state.term > term else disk.votes.get(term) == vote


def _vote_promise(message: VoteResponse, disk: DurableLog) -> str:
    if not message.granted or message.pre_vote or _is_bound(disk, message.term, message.to):
        return ""
    return f"its durable vote of that term is {disk.votes.get(message.term)}"


def _candidate_promise(message: RequestVote, disk: DurableLog) -> str:
    if message.pre_vote or _is_bound(disk, message.term, message.sender):
        return ""
    return "its vote for itself is not durable"


def _acknowledgement_promise(message: AppendResponse, disk: DurableLog) -> str:
    if disk.hard_state.term < message.term:
        return f"its durable term is {disk.hard_state.term}"
    if not message.rejected and message.index > max(disk.last, disk.snapshot.index):
        return f"its durable log ends at {disk.last}"
    return ""


def _leader_promise(message: AppendEntries | Heartbeat | InstallSnapshot, disk: DurableLog) -> str:
    return "" if disk.hard_state.term >= message.term else f"its durable term is {disk.hard_state.term}"


PROMISES: Final[dict[type, Callable[[Any, DurableLog], str]]] = {
    VoteResponse: _vote_promise,
    RequestVote: _candidate_promise,
    AppendResponse: _acknowledgement_promise,
    AppendEntries: _leader_promise,
    Heartbeat: _leader_promise,
    InstallSnapshot: _leader_promise,
}
