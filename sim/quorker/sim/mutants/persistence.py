"""Bugs of the disk and of the lane that leads to it: what counts as durable, in what order, and after which failure.

The disk is the simulator's, at the level of Raft's records; the drivers' part in them is planted in its twin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from quorker.core.raft import persistence
from quorker.core.raft.config import RaftConfig
from quorker.core.raft.effects import Persist
from quorker.core.raft.messages import NOBODY, HardState
from quorker.core.raft.persistence import Durable, PersistenceLane
from quorker.sim.disks.disk import DurableLog, LogDisk
from quorker.sim.mutants.cases import colliding
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in
from quorker.sim.mutants.staged import overwritten, waking
from quorker.sim.oracles import checks
from quorker.sim.runs.node import Node
from quorker.sim.world.host import Host
from quorker.sim.world.kernel import Call

LOST: Final = (
    "commit on durable majority",
    "leader completeness",
    "state-machine safety",
    "durability",
    "log matching",
    "election safety",
    "undamaged disks lose nothing",
    "fatal",
)


@bug(
    "The term is written, the vote is not.",
    known="PySyncObj 84 and 201, cornerstone 65",
    oracles=("one vote", "election safety"),
    budget=30,
    case=colliding,
)
def vote_not_persisted(patch: Patch) -> None:
    def keep(self: DurableLog, hard_state: HardState, synced: bool) -> None:
        del synced
        self.hard_state = replace(hard_state, voted_for=NOBODY)
        self.commit_synced = hard_state.commit_index
        self.votes[hard_state.term] = hard_state.voted_for

    patch.replace(DurableLog, "_keep", keep)


@bug(
    "Neither term nor vote is written.",
    known="PySyncObj 202",
    oracles=("durability",),
    budget=60,
)
def hard_state_not_persisted(patch: Patch) -> None:
    patch.replace(DurableLog, "_keep", always(None))
    patch.replace(checks, "PROMISES", {})


@bug(
    "After a restart, entries that are not known to be committed are forgotten, also those that were acknowledged.",
    known="the write-ahead log of DotNext",
    oracles=LOST,
)
def uncommitted_entries_are_forgotten(patch: Patch) -> None:
    def crash(self: LogDisk) -> int:
        survived: int = cut_power(self)
        log = self.durable
        del log.entries[max(0, log.hard_state.commit_index - log.snapshot.index) :]
        return survived

    cut_power = patch.replace(LogDisk, "crash", crash)


@bug(
    "The log is written and reported, and never flushed: a power cut takes the newest entries.",
    known="NATS 7564, PySyncObj",
    oracles=LOST,
    budget=30,
)
def the_log_is_not_flushed(patch: Patch) -> None:
    def crash(self: LogDisk) -> int:
        survived: int = cut_power(self)
        del self.durable.entries[-2:]
        return survived

    cut_power = patch.replace(LogDisk, "crash", crash)


@bug(
    "After a torn write, the whole log behind the snapshot is thrown away.",
    known="pebble 453, samyama 1335",
    oracles=LOST,
    budget=60,
)
def a_torn_tail_costs_the_log(patch: Patch) -> None:
    def crash(self: LogDisk) -> int:
        torn = self.oldest_issued_ms is not None
        survived: int = cut_power(self)
        if torn:
            self.durable.entries.clear()
        return survived

    cut_power = patch.replace(LogDisk, "crash", crash)


@bug(
    "A failed fsync is tried again and believed, although the pages it was for are gone.",
    known="PostgreSQL in 2018, CockroachDB 37102, rostam 94",
    oracles=("durable before sent", "persist lane", *LOST),
    budget=60,
)
def failed_fsyncs_are_retried(patch: Patch) -> None:
    def completed(self: Any, call: Call) -> None:
        if call.payload != self._flush_id or self.stalled or not self.failing:
            complete(self, call)
            return
        self.failing = False
        lost = [self._lane.popleft()[0] for _ in range(self._flushing)]
        self._flushing = 0
        for record in lost:
            self.on_durable(record, "")
        self.on_flushed(lost[-1].seq)
        if self._lane and not self._flushing:
            self._flush()

    complete = patch.replace(LogDisk, "_completed", completed)


@bug(
    "One completion of the disk stands for everything that was handed to it.",
    known="etcd-io/raft before completions were numbered",
    oracles=("commit on durable majority", "apply only durable", "invariant"),
    budget=30,
)
def completions_are_not_numbered(patch: Patch) -> None:
    def acknowledge(self: PersistenceLane, _: int) -> Durable:
        durable: Durable = confirm(self, self.seq)
        return durable

    confirm = patch.replace(PersistenceLane, "acknowledge", acknowledge)


@bug(
    "A write that completes late still proves entries that were cut from the log meanwhile.",
    known="rabbitmq/ra 476, 516 and 637; the ABA race of etcd-io/raft",
    oracles=("apply only durable", "invariant"),
    budget=10,
    case=overwritten,
)
def late_write_confirms_what_was_cut(patch: Patch) -> None:
    def cut(self: PersistenceLane, index: int) -> None:
        proven = [write.last_index for write in self.in_flight]
        clip(self, index)
        for write, last_index in zip(self.in_flight, proven, strict=True):
            write.last_index = last_index

    clip = patch.replace(PersistenceLane, "cut", cut)


@bug(
    "What was durable before a cut counts as durable after it.",
    known="rabbitmq/ra 516",
    oracles=("apply only durable", "commit on durable majority", "invariant"),
)
def durable_entries_stay_durable_when_cut(patch: Patch) -> None:
    def cut(self: PersistenceLane, index: int) -> None:
        stable = self.stable
        clip(self, index)
        self.stable = stable

    clip = patch.replace(PersistenceLane, "cut", cut)


@bug(
    "The log is cut in memory, and the disk is not told.",
    known="amelie 17",
    oracles=("persist lane",),
    budget=60,
)
def cuts_are_not_written(patch: Patch) -> None:
    def next_write(self: PersistenceLane, *arguments: Any) -> Persist | None:
        record: Persist | None = write(self, *arguments)
        return record and replace(record, truncate_from=None)

    write = patch.replace(PersistenceLane, "next_write", next_write)


@bug(
    "An acknowledgement that waits for the disk outlives the entries that it speaks for.",
    known="etcd-io/raft, completions of an overwritten suffix",
    oracles=("durable before sent",),
    budget=10,
    case=waking,
)
def acknowledgements_outlive_their_entries(patch: Patch) -> None:
    patch.replace(persistence, "_speaks_for", always(False))


@bug(
    "Committed entries are applied before they are on this member's own disk.",
    known="etcd 14370",
    oracles=("apply only durable",),
    budget=30,
)
def applied_before_durable(patch: Patch) -> None:
    def hasty(self: Host) -> RaftConfig:
        return replace(configure(self), apply_unstable=True)

    configure: Callable[[Host], RaftConfig] = patch.replace(Host, "raft_config", hasty)


@bug(
    "A snapshot holds more than its name says, because the machine went on while it was written.",
    known="etcd 13766 and 14685",
    oracles=("replicas are equal",),
    budget=60,
)
def snapshots_are_newer_than_their_names(patch: Patch) -> None:
    def snapshot_saved(self: Node, call: Call) -> None:
        meta, _, incarnation = call.payload
        call.payload = (meta, self.state, incarnation)
        save(self, call)

    save = patch.replace(Node, "_snapshot_saved", snapshot_saved)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
