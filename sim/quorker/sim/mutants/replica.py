"""Bugs of the replica, which joins a log and a store, and of the gateway between it and its clients."""

from __future__ import annotations

from typing import Any, Final

from quorker.core.jobs.batch import decode_group
from quorker.core.jobs.commands import KeepAlive, decode
from quorker.core.jobs.outcome import OK, DigestClaim
from quorker.core.jobs.store import JobStore
from quorker.core.raft.effects import DropReason, RoleChanged
from quorker.core.raft.messages import Entry, SnapshotMeta
from quorker.core.replica import Replica
from quorker.sim.mutants.cases import busy, cut_off, handing_over, lagging, overloaded
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in
from quorker.sim.mutants.snapshots import offer_behind_a_snapshot
from quorker.sim.runs.replica_node import ReplicaNode
from quorker.sim.world.line import Line

DIFFERENT: Final = ("replicas are equal [C5]",)
TOO_MUCH: Final = ("bounded memory [L6]",)
LATE: Final = ("leases end in time [T5]",)
LOADED_WRONGLY: Final = ("members agree on their state [C5]", "witness [C1]", *DIFFERENT)


@bug(
    "A leader that steps down refuses what it has appended, although that may still be committed.",
    known="etcd clients that took a lost leader for a failure",
    oracles=("honest refusal [C3]",),
    budget=200,
    case=busy,
)
def appended_commands_are_refused(patch: Patch) -> None:
    def on_role(self: Any, effect: RoleChanged) -> None:
        for group in [group for batch in self._rounds.values() for group in batch]:
            self._refuse(group, DropReason.LEADER_CHANGED)
        change(self, effect)

    change = patch.replace(Replica, "_on_role", on_role)


@bug(
    "Who is next is decided by the order of a hash table, which differs between members.",
    known="every state machine that walks a set",
    oracles=(*DIFFERENT, "witness [C1]"),
    budget=20,
    case=busy,
)
def hash_order_decides(patch: Patch) -> None:
    def apply_batch(self: Replica, entry: Entry) -> None:
        for queue in self.store.queues.values() if self.node_id % 2 else ():
            queue.ready = dict(reversed(queue.ready.items()))
        apply(self, entry)

    apply = patch.replace(Replica, "_apply_batch", apply_batch)


_OFFERED_LATER: Final = (
    "Raft offers nothing from the moment that it takes a snapshot over until it is told that the snapshot is applied, so "
    "nothing can wait while one is loading; the pair of both is `{pair}`."
)


@bug(
    "Entries that came while a snapshot was loading are lost.",
    known="etcd 13514: entries that are skipped",
    equivalent=_OFFERED_LATER.format(pair="entries-offered-during-a-load-are-lost"),
    case=lagging,
)
def entries_behind_a_load_are_lost(patch: Patch) -> None:
    _lose_what_waits_for_a_load(patch)


@bug(
    "The same, and Raft offers entries behind a snapshot before that is in the store.",
    known="etcd 13514: entries that are skipped",
    oracles=LOADED_WRONGLY,
    budget=20,
    case=lagging,
)
def entries_offered_during_a_load_are_lost(patch: Patch) -> None:
    offer_behind_a_snapshot(patch)
    _lose_what_waits_for_a_load(patch)


def _lose_what_waits_for_a_load(patch: Patch) -> None:
    def snapshot_loaded(self: Any, meta: SnapshotMeta, store: JobStore) -> None:
        if meta == self.loading:
            self._postponed.clear()
        load(self, meta, store)

    load = patch.replace(Replica, "snapshot_loaded", snapshot_loaded)


@bug(
    "Entries behind a snapshot are applied to the store that it is about to replace.",
    known="camunda 3573",
    equivalent=_OFFERED_LATER.format(pair="entries-offered-during-a-load-are-applied"),
    case=lagging,
)
def entries_do_not_wait_for_a_load(patch: Patch) -> None:
    _apply_while_loading(patch)


@bug(
    "The same, and Raft offers entries behind a snapshot before that is in the store.",
    known="camunda 3573",
    oracles=("monotonic apply", *LOADED_WRONGLY),
    budget=20,
    case=lagging,
)
def entries_offered_during_a_load_are_applied(patch: Patch) -> None:
    offer_behind_a_snapshot(patch)
    _apply_while_loading(patch)


def _apply_while_loading(patch: Patch) -> None:
    def waits_to_apply(self: Any) -> bool:
        return bool(self._postponed)

    patch.replace(Replica, "waits_to_apply", property(waits_to_apply))


@bug(
    "What a client may have missed while its connection was broken is not told to it again.",
    known="jobs that are granted to workers which never hear of it",
    oracles=("liveness",),
    budget=40,
    case=busy,
)
def missed_news_are_not_repeated(patch: Patch) -> None:
    patch.replace(ReplicaNode, "_repeat_missed", always(None))


@bug(
    "A leader with maintenance to propose and no room for it wakes itself at once, again and again.",
    known="this replica, jobs profile, seed 1",
    oracles=("event budget",),
    budget=20,
    case=busy,
)
def leaders_wake_themselves(patch: Patch) -> None:
    def next_deadline(self: Any) -> int | None:
        deadline: int | None = wait(self)
        due_lt, _ = self.store.next_due()
        overdue = self.is_leader and due_lt is not None and due_lt <= self.clock.lt(self.now_ms)
        return self.now_ms if overdue and not self._can_maintain() else deadline

    def at_once(self: ReplicaNode) -> int | None:
        return self.replica.next_deadline()

    wait = patch.replace(Replica, "next_deadline", next_deadline)
    patch.replace(ReplicaNode, "deadline", at_once)  # no loop of a driver keeps it from spinning


@bug(
    "A leader looks for what is due before it has applied what it took over.",
    equivalent="Whatever maintenance names is checked again when it is applied; the pair of both is "
    "`expiry-is-not-checked-again`.",
    case=busy,
)
def maintenance_of_the_past(patch: Patch) -> None:
    patch.replace(Replica, "_has_applied_own_term", always(True))


@bug(
    "Commands that a leader had not appended when it stepped down are dropped without a word.",
    equivalent="A session repeats whatever is not answered; a refusal only makes it sooner.",
    case=busy,
)
def waiting_commands_are_dropped(patch: Patch) -> None:
    patch.replace(Replica, "_refuse", always(None))


@bug(
    "What a leader says of itself is the digest of another index.",
    known="a check that raises false alarms",
    oracles=("members agree on their state [C5]",),
    budget=10,
    case=busy,
)
def claims_are_of_another_index(patch: Patch) -> None:
    def group_of(self: Any, claim: DigestClaim) -> Any:
        return make(self, claim._replace(at=claim.at - 1))

    make = patch.replace(Replica, "_group_of", group_of)


@bug(
    "A member acknowledges renewals by itself, before they are in the log.",
    known="lease stores whose keep-alives are answered by any member",
    oracles=("leases last [T2]",),
    budget=20,
    case=cut_off,
)
def renewals_are_acknowledged_too_soon(patch: Patch) -> None:
    def on_submit(self: ReplicaNode, line: Line, data: bytes) -> None:
        submit(self, line, data)
        group = decode_group(data)
        for seq, wire in group.commands:
            if isinstance(decode(wire), KeepAlive):
                line.to_client(line.client.on_reply, group.session, seq, OK)

    submit = patch.replace(ReplicaNode, "on_submit", on_submit)


@bug(
    "A leader looks for what is due every second only.",
    known="Hangfire: a watchdog that comes by every five minutes",
    oracles=LATE,
    budget=40,
    case=cut_off,
)
def upkeep_comes_late(patch: Patch) -> None:
    def maintain(self: Any) -> bool:
        before = self._maintenance_at_ms
        proposed: bool = upkeep(self)
        if self._maintenance_at_ms != before:
            self._maintenance_at_ms = self.now_ms + 1_000
        return proposed

    upkeep = patch.replace(Replica, "_maintain", maintain)


@bug(
    "What is due waits until nobody has anything else to propose.",
    known="starvation of the housekeeping under load",
    oracles=LATE,
    budget=40,
    case=overloaded,
)
def upkeep_waits_for_silence(patch: Patch) -> None:
    def maintain(self: Any) -> bool:
        return False if self._groups else upkeep(self)

    upkeep = patch.replace(Replica, "_maintain", maintain)


@bug(
    "A leader waits for ever for upkeep that its log did not take.",
    oracles=LATE,
    budget=150,
    case=handing_over,
)
def dropped_upkeep_is_waited_for(patch: Patch) -> None:
    def on_dropped(self: Any, context: int, reason: DropReason) -> None:
        maintenance_context = self._maintenance_context
        drop(self, context, reason)
        self._maintenance_context = maintenance_context

    drop = patch.replace(Replica, "_on_dropped", on_dropped)


@bug(
    "A leader takes whatever comes.",
    known="unbounded queues in front of a slow disk",
    oracles=TOO_MUCH,
    budget=40,
    case=overloaded,
)
def the_queue_has_no_end(patch: Patch) -> None:
    patch.replace(Replica, "_has_room", always(True))


@bug(
    "What was refused stays counted, until there is no room any more.",
    oracles=TOO_MUCH,
    budget=40,
    case=overloaded,
)
def bytes_leave_the_queue_uncounted(patch: Patch) -> None:
    def propose(self: Any) -> bool:
        counted = self._groups_bytes
        proposed: bool = take(self)
        self._groups_bytes = counted
        return proposed

    take = patch.replace(Replica, "_propose", propose)


@bug(
    "The log is kept for a follower that lags, for as long as that takes.",
    known="Hangfire.Raft; etcd before its bound on catch-up entries",
    oracles=TOO_MUCH,
    budget=150,
    case=lagging,
)
def logs_are_kept_for_the_slowest(patch: Patch) -> None:
    def snapshot_saved(self: Any, meta: SnapshotMeta) -> int:
        self._saved.clear()
        self._saved.append(0)
        keep_from: int = saved(self, meta)
        return keep_from

    saved = patch.replace(Replica, "snapshot_saved", snapshot_saved)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
