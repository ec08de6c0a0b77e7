"""Snapshots of a replica: when they are taken, what they leave, and how a member without a log comes back by one."""

from __future__ import annotations

from typing import Any

import pytest

from quorker.core.jobs.commands import EnqueueJobs, IncrementCounter, NewJob
from quorker.core.jobs.store import JobStore
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.messages import ConfState, HardState, SnapshotMeta
from quorker.core.replica import Replica, ReplicaConfig, SaveSnapshot

VOTERS = ConfState((1, 2, 3))


@pytest.fixture
def small(cluster: Any) -> Any:
    """The same cluster with a snapshot every 10 entries and a tail of 3."""
    for node, replica in cluster.replicas.items():
        replica.config = ReplicaConfig(replica.config.raft, snapshot_after_entries=10, keep_entries=3)
        assert replica.config.raft.node_id == node
    return cluster


def enqueue_many(cluster: Any, count: int) -> None:
    for number in range(count):
        cluster.submit(1 + number % 3, EnqueueJobs((NewJob("t", b"x", queue="q"),)))


def test_a_snapshot_is_taken_and_the_log_is_trimmed_to_its_tail(small: Any) -> None:
    enqueue_many(small, 40)
    for replica in small.replicas.values():
        assert replica.raft.first_index > 25
        assert replica.raft.last_index - replica.raft.first_index < 20
    assert {meta.conf_state for meta in small.snapshots} == {VOTERS}


def test_only_one_snapshot_is_under_way(small: Any) -> None:
    small.save_snapshots = False
    enqueue_many(small, 40)
    assert all(replica.saving is not None for replica in small.replicas.values())
    assert all(replica.raft.first_index == 2 for replica in small.replicas.values())


def test_a_member_that_missed_the_trimmed_log_is_restored_from_a_snapshot(small: Any) -> None:
    small.cut = {3}
    for number in range(60):
        small.submit(1 + number % 2, EnqueueJobs((NewJob("t", b"x", queue="q"),)))
    assert small.replicas[1].raft.first_index > small.replicas[3].raft.last_index
    small.cut = set()
    small.advance(3_000)
    small.submit(1, IncrementCounter("c", 1))
    assert small.replicas[3].store.applied_index == small.replicas[1].store.applied_index
    assert small.replicas[3].store.digest() == small.replicas[1].store.digest()


def fresh_replica() -> Replica:
    config = ReplicaConfig(RaftConfig(3, election_timeout=1000, heartbeat_interval=100))
    return Replica.start(
        config, DurableState(HardState(1, 0, 1), SnapshotMeta(1, 1, VOTERS)), JobStore(), 0, 0
    )


def test_a_load_that_was_overtaken_is_ignored() -> None:
    replica = fresh_replica()
    older, newer = SnapshotMeta(10, 1, VOTERS), SnapshotMeta(20, 1, VOTERS)
    replica.loading = newer
    kept = replica.store
    replica.snapshot_loaded(older, JobStore())
    assert replica.store is kept
    assert replica.loading == newer


def test_a_snapshot_names_what_is_applied(small: Any) -> None:
    small.save_snapshots = False
    enqueue_many(small, 2)
    replica = small.replicas[2]
    replica.request_snapshot()
    (effect,) = [each for each in replica.drain() if isinstance(each, SaveSnapshot)]
    assert effect.meta.index == replica.raft.applied_index
    assert JobStore.restore(list(effect.view.chunks())).digest() == replica.store.digest()


def test_a_restarted_replica_goes_on_from_its_snapshot_and_log(small: Any) -> None:
    enqueue_many(small, 33)
    old = small.replicas[3]
    meta = max(small.snapshots, key=lambda each: each.index)
    entries = old.raft.log.entries(meta.index + 1, old.raft.last_index + 1)
    store = JobStore.restore(small.snapshots[meta])
    small.add(3, DurableState(old.raft.hard_state, meta, tuple(entries)), old.config, store)
    small.sessions[3].open(small.now_ms)
    small.advance(500)
    assert small.replicas[3].store.digest() == small.replicas[1].store.digest()


def test_what_the_log_was_cut_off_from_is_not_saved(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of the leader has taken the place of the log, and is still being written: an own one of what is applied
    would be older than the log. A member died of it that had saved one meanwhile."""
    enqueue_many(small, 8)
    small.cut = {3}
    for number in range(60):
        small.submit(1 + number % 2, EnqueueJobs((NewJob("t", b"x", queue="q"),)))
    replica, written = small.replicas[3], Replica.persisted
    held: list[int] = []

    def persisted(self: Replica, seq: int) -> None:
        if self is replica:
            held.append(seq)
        else:
            written(self, seq)

    monkeypatch.setattr(Replica, "persisted", persisted)
    small.cut = set()
    small.advance(1_000)
    assert max(small.snapshots, key=lambda each: each.index).index > replica.raft.applied_index
    assert replica.raft.applied_index < replica.raft.log.first_index - 1
    replica.request_snapshot()
    assert replica.saving is None
    monkeypatch.undo()
    for seq in held:
        replica.persisted(seq)
    small.advance(3_000)
    assert replica.store.digest() == small.replicas[1].store.digest()
