"""Bugs of snapshots and compaction: what is kept, what is thrown away, and which of two counts."""

from __future__ import annotations

from typing import Final

from quorker.core.raft import core, replication, snapshots
from quorker.core.raft.effects import InstallState
from quorker.core.raft.log import RaftLog
from quorker.core.raft.messages import InstallSnapshot, SnapshotMeta
from quorker.core.raft.state import RaftState
from quorker.sim.mutants.cases import installing
from quorker.sim.mutants.mutant import Mutant, Patch, bug, defined_in


@bug(
    "Entries behind a snapshot are kept, although they conflict with it.",
    known="hashicorp/raft 697 and 704, openraft 559 and 753",
    oracles=(
        "log matching",
        "commit on durable majority",
        "leader completeness",
        "undamaged disks lose nothing",
        "fatal",
    ),
    budget=30,
    case=installing,
)
def conflicts_behind_a_snapshot_are_kept(patch: Patch) -> None:
    def restart_after(self: RaftLog, snapshot: SnapshotMeta) -> None:
        kept = self.entries(snapshot.index + 1, self.last_index + 1)
        restart(self, snapshot)
        self.append(kept)

    restart = patch.replace(RaftLog, "restart_after", restart_after)


@bug(
    "A snapshot that arrives late takes the place of a log that is already further.",
    known="camunda 6092",
    oracles=("monotonic commit",),
    budget=60,
)
def late_snapshots_are_installed(patch: Patch) -> None:
    def on_install_snapshot(raft: RaftState, message: InstallSnapshot) -> None:
        raft.commit_index = min(raft.commit_index, message.snapshot.index - 1)
        install(raft, message)

    install = patch.replace_item(core.HANDLERS, InstallSnapshot, on_install_snapshot)


@bug(
    "A snapshot throws away the entries behind it, although the log agrees with it and they were acknowledged.",
    known="openraft 511",
    oracles=(
        "commit on durable majority",
        "leader completeness",
        "durability",
        "undamaged disks lose nothing",
        "fatal",
    ),
    budget=200,
    case=installing,
)
def snapshots_cost_the_entries_behind_them(patch: Patch) -> None:
    installing: list[InstallSnapshot] = []

    def matches(self: RaftLog, index: int, term: int) -> bool:
        return not installing and bool(agree(self, index, term))

    def on_install_snapshot(raft: RaftState, message: InstallSnapshot) -> None:
        installing.append(message)
        try:
            install(raft, message)
        finally:
            installing.clear()

    agree = patch.replace(RaftLog, "matches", matches)
    install = patch.replace_item(core.HANDLERS, InstallSnapshot, on_install_snapshot)


@bug(
    "The log is trimmed behind what the snapshot covers.",
    known="redisraft 43, hashicorp/raft 85, camunda 3573",
    oracles=("log has no gaps", "liveness", "invariant", "event budget", "fatal"),
    budget=30,
)
def compaction_overtakes_the_snapshot(patch: Patch) -> None:
    def compact(self: RaftLog, keep_from: int) -> None:
        trim(self, keep_from + 2)

    trim = patch.replace(RaftLog, "compact", compact)


@bug(
    "Raft offers entries behind a snapshot before the snapshot is in the machine.",
    known="camunda 3573",
    equivalent="Only what is durable is offered. An entry behind a snapshot is durable with the snapshot at the earliest, "
    "whose installation is then decided first, and machines take what is decided in its order. One that loads a snapshot "
    "meanwhile has a guard of its own; the pair of both is `entries-offered-during-a-load-are-applied`.",
    case=installing,
)
def applied_before_the_snapshot(patch: Patch) -> None:
    offer_behind_a_snapshot(patch)


def offer_behind_a_snapshot(patch: Patch) -> None:
    """Half of a bug: no entry waits any more until the snapshot before it is in the machine."""

    def flush_applies(raft: RaftState) -> None:
        installing, raft.installing = raft.installing, None
        offer(raft)
        raft.installing = installing

    offer = patch.replace(replication, "flush_applies", flush_applies)


@bug(
    "Whichever snapshot becomes durable is taken for the newest.",
    known="this core, simulator seed 1191; etcd 18055",
    oracles=("exception", "fatal", "monotonic apply"),
    budget=400,
    case=installing,
)
def any_snapshot_is_the_newest(patch: Patch) -> None:
    def on_durable(raft: RaftState, snapshot: SnapshotMeta) -> None:
        raft.effects.append(InstallState(raft.installing or snapshot))

    patch.replace(snapshots, "on_durable", on_durable)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
