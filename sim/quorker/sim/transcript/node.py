"""One member of a transcript: our core, and around it the driver that etcd's notation speaks of.

It folds our effects into one Ready per handling. In the synchronous form each Ready is written, applied and
acknowledged at once; in the asynchronous form disk and state machine are threads that the transcript runs. The
rules of `quorker.core.raft.effects` hold in both: what must follow a write leaves after it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

from quorker.core.raft import invariants
from quorker.core.raft.confchange import ConfigChange
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import (
    Apply,
    Dropped,
    DropReason,
    Effect,
    Fatal,
    InstallState,
    Persist,
    Role,
    Send,
)
from quorker.core.raft.messages import (
    AppendResponse,
    Entry,
    ForwardProposal,
    HardState,
    NodeId,
    SnapshotMeta,
    VoteResponse,
)
from quorker.sim.transcript.disk import Storage, check_durable
from quorker.sim.transcript.parser import TranscriptError
from quorker.sim.transcript.ready import (
    AppendWork,
    ApplyWork,
    Envelope,
    LocalResponse,
    Outbox,
    Ready,
    SoftState,
    envelope_wire,
    fold,
)
from quorker.sim.transcript.wire import APPEND_THREAD, APPLY_THREAD, Wire, append_wire, apply_wire, wire_of

PROPOSAL_DROPPED: Final = "raft proposal dropped"
UNKNOWN_PEER: Final = "raft: cannot step as peer not found"
RESPONSES: Final = frozenset(
    {"MsgAppResp", "MsgVoteResp", "MsgPreVoteResp", "MsgHeartbeatResp", "MsgReadIndexResp"}
)


class Node:
    """A member and its driver. Every method that feeds the core collects what it asks for afterwards."""

    def __init__(self, config: RaftConfig, durable: DurableState, *, asynchronous: bool) -> None:
        self.node_id = config.node_id
        self.config = config
        self.asynchronous = asynchronous
        self.core = Raft(config, durable)
        self.now = 0
        self.storage = Storage(durable.snapshot)
        self.latest_snapshot = durable.snapshot
        self.outbox = Outbox()
        self.append_work: deque[AppendWork] = deque()
        self.apply_work: deque[ApplyWork] = deque()
        self._dropped = False
        self._unwritten: int | None = None  # the first entry that etcd would still call unstable
        self._unacknowledged: list[int] = []
        self._acknowledged: set[int] = set()
        self._stood_in = 0  # the last term in which this node voted for itself
        self._offered = 0  # the last entry that the state machine was asked to apply
        self._install: int | None = None  # the snapshot that comes after it
        self._view = invariants.view(self.core)
        self._collect()
        self.soft, self.hard_state = self._soft_state(), self.core.hard_state

    def tick(self, count: int) -> None:
        for _ in range(count):
            self.now += 1
            self.core.tick(self.now)
            self._collect()

    def campaign(self) -> None:
        self.core.campaign()
        self._collect()

    def forget_leader(self) -> None:
        self.core.forget_leader()
        self._collect()

    def transfer(self, to: NodeId) -> None:
        self.core.transfer(to)
        self._collect()

    def peer_unreachable(self, peer: NodeId) -> None:
        self.core.peer_unreachable(peer)
        self._collect()

    def set_election_timeout(self, ticks: int) -> None:
        """Instead of the random one, until the role changes again."""
        self.core.set_randomized_election_timeout(ticks)

    def propose(self, data: bytes) -> str:
        """What etcd answers: an error, or nothing."""
        self._dropped = False
        self.core.propose([data], context=1)
        self._collect()
        return PROPOSAL_DROPPED if self._dropped else ""

    def propose_config(self, change: ConfigChange) -> str:
        self._dropped = False
        self.core.propose_config(change, context=1)
        self._collect()
        return PROPOSAL_DROPPED if self._dropped else ""

    def compact(self, keep_from: int) -> None:
        """Forget the log before `keep_from`, which the latest snapshot covers."""
        self.storage.compact(keep_from)
        self.core.snapshot_made(self.latest_snapshot, keep_from)
        self._collect()

    def receive(self, envelope: Envelope) -> str:
        """What etcd answers: an error, or nothing."""
        if isinstance(envelope, LocalResponse):
            self._receive_local(envelope)
            return ""
        if wire_of(envelope).kind in RESPONSES and envelope.sender not in self._members():
            return UNKNOWN_PEER
        last_index, forwarded = self.core.last_index, self._forwarded()
        self.core.step(envelope)
        self._collect()
        went_on = self.core.last_index > last_index or self._forwarded() > forwarded
        return PROPOSAL_DROPPED if isinstance(envelope, ForwardProposal) and not went_on else ""

    def _forwarded(self) -> int:
        return sum(isinstance(message, ForwardProposal) for message in self.outbox.sends)

    def _members(self) -> tuple[NodeId, ...]:
        conf_state = self.core.conf_state
        return conf_state.voters + conf_state.learners + conf_state.voters_outgoing

    def _receive_local(self, response: LocalResponse) -> None:
        if response.persisted:
            self._note_stable(response.wire)
            self._persisted(response.persisted)
        if response.applied:
            self._applied(response.applied)

    def has_ready(self) -> bool:
        changed = self._soft_state() != self.soft or self.core.hard_state != self.hard_state
        return changed or bool(self.outbox)

    def handle_ready(self) -> Ready:
        """Take the next Ready and, in the synchronous form, do everything it asks for."""
        outbox, self.outbox = self.outbox, Outbox()
        soft, hard_state = self._changed_soft(), self._changed_hard(outbox.persists)
        entries, snapshot = fold(outbox.persists)
        committed = tuple(entry for apply in outbox.applies for entry in apply.entries)
        must_sync = bool(entries) or (hard_state is not None and self._needs_sync(hard_state))
        self.hard_state = hard_state or self.hard_state
        if must_sync and not any(persist.must_sync for persist in outbox.persists):
            raise TranscriptError(f"{self.node_id}: a Ready must be synced, but no Persist says so")
        messages = [wire_of(message) for message in outbox.sends]
        sent = list(outbox.sends)
        if self.asynchronous:
            messages += self._queue_work(outbox, hard_state, entries, snapshot, committed)
        else:
            answers = [answer for answer in outbox.answers if not isinstance(answer, LocalResponse)]
            messages += [wire_of(answer) for answer in answers]
            sent += answers
            self._perform(outbox, committed)
        return Ready(soft, hard_state, must_sync, entries, snapshot, committed, tuple(messages), tuple(sent))

    def process_append(self) -> AppendWork:
        """The append thread finishes its oldest write."""
        work = self.append_work.popleft()
        for persist in work.persists:
            self.storage.write(persist)
        if work.persists and not any(isinstance(response, LocalResponse) for response in work.responses):
            self._persisted(work.persists[-1].seq)
        return work

    def process_apply(self) -> ApplyWork:
        """The apply thread finishes its oldest batch; the node hears of it when the response arrives."""
        return self.apply_work.popleft()

    def _perform(self, outbox: Outbox, committed: tuple[Entry, ...]) -> None:
        for persist in outbox.persists:
            self.storage.write(persist)
        if committed:
            self._applied(committed[-1].index)
        if outbox.persists:
            self.core.persisted(outbox.persists[-1].seq)
            self._collect()

    def _queue_work(
        self,
        outbox: Outbox,
        hard_state: HardState | None,
        entries: tuple[Entry, ...],
        snapshot: SnapshotMeta | None,
        committed: tuple[Entry, ...],
    ) -> list[Wire]:
        """Hand a Ready to the two threads. Returns how that looks."""
        wires: list[Wire] = []
        if outbox.persists or outbox.answers:
            responses = self._responses(outbox, snapshot)
            self._unacknowledged += [persist.seq for persist in outbox.persists[-1:]]
            written = append_wire(self.node_id, hard_state, entries, snapshot)
            self.append_work.append(AppendWork(written, tuple(outbox.persists), responses))
            wires.append(replace(written, responses=tuple(map(envelope_wire, responses))))
        if committed:
            done = Wire(APPLY_THREAD, f"{self.node_id:x}", "MsgStorageApplyResp", entries=committed)
            response = LocalResponse(self.node_id, done, applied=committed[-1].index)
            self.apply_work.append(ApplyWork(apply_wire(self.node_id, committed), response))
            wires.append(apply_wire(self.node_id, committed, done))
        return wires

    def _responses(self, outbox: Outbox, snapshot: SnapshotMeta | None) -> tuple[Envelope, ...]:
        """What leaves once the write is done. All of it that is local acknowledges the whole write."""
        seq = outbox.persists[-1].seq if outbox.persists else 0
        answers = tuple(
            replace(answer, persisted=seq) if isinstance(answer, LocalResponse) else answer
            for answer in outbox.answers
        )
        if self._unwritten is None and snapshot is None:
            return answers
        last = self.core.last_index if self._unwritten is not None else 0
        term = self.core.log.term_at(last) or 0 if last else 0
        to = f"{self.node_id:x}"
        wire = Wire(APPEND_THREAD, to, "MsgStorageAppendResp", self.core.term, term, last, snapshot=snapshot)
        return (*answers, LocalResponse(self.node_id, wire, persisted=seq))

    def _note_stable(self, wire: Wire) -> None:
        """Follow what etcd would call stable, for what its notation shows; our core decides on its own."""
        known = self.core.log.term_at(wire.index) == wire.log_term and wire.term == self.core.term
        if wire.kind == "MsgStorageAppendResp" and wire.index and known and self._unwritten is not None:
            after = max(wire.index + 1, self._unwritten)
            self._unwritten = after if after <= self.core.last_index else None

    def _persisted(self, seq: int) -> None:
        """Tell the core, unless an earlier write is still on its way: `persisted` is cumulative."""
        self._acknowledged.add(seq)
        reached = 0
        while self._unacknowledged and self._unacknowledged[0] in self._acknowledged:
            reached = self._unacknowledged.pop(0)
        if reached:
            self.core.persisted(reached)
            self._collect()

    def _applied(self, index: int) -> None:
        """Everything up to `index` is in the state machine, which keeps its newest state ready as a snapshot."""
        self.core.applied(index)
        term = self.core.log.term_at(index)
        if term is not None:  # or a snapshot on its way has replaced the log already
            self.latest_snapshot = SnapshotMeta(index, term, self.core.conf_state)
            self.core.snapshot_made(self.latest_snapshot, self.core.first_index)
        self._collect()

    def _soft_state(self) -> SoftState:
        return SoftState(self.core.leader, self.core.role)

    def _changed_soft(self) -> SoftState | None:
        before, self.soft = self.soft, self._soft_state()
        return None if self.soft == before else self.soft

    def _changed_hard(self, persists: list[Persist]) -> HardState | None:
        now = self.core.hard_state
        if now == self.hard_state:
            return None
        written = [persist.hard_state for persist in persists if persist.hard_state is not None]
        if not written or written[-1] != now:
            raise TranscriptError(f"{self.node_id}: {now} is promised but not written")
        return now

    def _needs_sync(self, now: HardState) -> bool:
        return (now.term, now.voted_for) != (self.hard_state.term, self.hard_state.voted_for)

    def _collect(self) -> None:
        """Take what the core asks for, after checking that it still holds what it must."""
        for effect in self.core.drain():
            self._take(effect)
        self._check()
        if self._install is not None and self.core.applied_index >= self._offered:
            index, self._install = self._install, None
            self._applied(index)

    def _check(self) -> None:
        before, self._view = self._view, invariants.view(self.core)
        violations = invariants.check_state(self.core) + invariants.check_step(before, self._view)
        if violations:
            raise TranscriptError(f"{self.node_id}: {'; '.join(violations)}")
        queued = [persist for work in self.append_work for persist in work.persists]
        check_durable(self.core, self.storage, queued + self.outbox.persists)

    def _take(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._take_send(effect)
            case Persist():
                self._take_persist(effect)
            case Apply():
                self.outbox.applies.append(effect)
                self._offered = effect.entries[-1].index
            case InstallState(snapshot=snapshot):
                self._install = snapshot.index
            case Dropped(reason=reason):
                # A change that has to wait leaves an empty entry in its place, about which etcd says nothing.
                self._dropped = reason is not DropReason.CONFIG_PENDING
            case Fatal():
                raise TranscriptError(f"{self.node_id}: {effect.invariant}: {effect.detail}")
            case _:
                pass  # for observers: a transcript shows states, not their changes

    def _take_send(self, send: Send) -> None:
        if isinstance(send.message, AppendResponse | VoteResponse):
            self.outbox.answers.append(send.message)
        else:
            self.outbox.sends.append(send.message)

    def _take_persist(self, persist: Persist) -> None:
        self.outbox.persists.append(persist)
        if persist.snapshot is not None:
            self._unwritten = None
        if persist.entries:
            first = persist.entries[0].index
            self._unwritten = first if self._unwritten is None else min(first, self._unwritten)
        if self.asynchronous:
            self.outbox.answers += self._own_answers(persist)
            self.outbox.answers += [send.message for send in persist.then]
        else:
            for send in persist.then:
                self._take_send(send)

    def _stands_newly(self, written: HardState) -> bool:
        stands = self.core.role is Role.CANDIDATE and written.voted_for == self.node_id
        is_new = stands and written.term > self._stood_in
        self._stood_in = written.term if is_new else self._stood_in
        return is_new

    def _own_answers(self, persist: Persist) -> list[Envelope]:
        """What etcd's node would tell itself once this is written: its own vote, its own acknowledgement."""
        me = f"{self.node_id:x}"
        answers: list[Envelope] = []
        hard_state = persist.hard_state
        if hard_state is not None and self._stands_newly(hard_state):
            answers.append(LocalResponse(self.node_id, Wire(me, me, "MsgVoteResp", hard_state.term)))
        if persist.entries and self.core.role is Role.LEADER:
            last = persist.entries[-1].index
            answers.append(LocalResponse(self.node_id, Wire(me, me, "MsgAppResp", self.core.term, 0, last)))
        return answers
