"""The replica: group commit, log time across leaders, forwarding, refusals, maintenance, snapshots."""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]  # no stubs are published
import pytest

from quorker.core.errors import NotApplied, Unknown
from quorker.core.jobs.batch import encode_group
from quorker.core.jobs.commands import (
    CompleteJob,
    DeleteJob,
    EnqueueJobs,
    IncrementCounter,
    KeepAlive,
    NewJob,
    PauseRecurring,
    RemoveRecurring,
    SetRecurring,
    Subscribe,
    encode,
)
from quorker.core.raft.effects import DropReason, Persist, ReadReady, Role, Send
from quorker.core.replica import Applied, Forward, LogClock, Refused, Replica

codec: Any = msgpack


def counter(key: str = "c") -> IncrementCounter:
    return IncrementCounter(key, 1)


def value_of(cluster: Any, node: int, key: str = "c") -> Any:
    return cluster.replicas[node].store.query("counter", {"key": key})


def stamps(cluster: Any, node: int) -> list[tuple[int, int]]:
    raft = cluster.replicas[node].raft
    entries = raft.log.entries(raft.first_index, raft.last_index + 1)
    return [tuple(codec.unpackb(entry.data)[:2]) for entry in entries if entry.data]


@pytest.mark.parametrize("node", [1, 2, 3])
def test_a_command_submitted_anywhere_is_applied_everywhere(cluster: Any, node: int) -> None:
    result = cluster.submit(node, counter())
    assert result.known
    assert result.error is None
    assert [value_of(cluster, each) for each in (1, 2, 3)] == [1, 1, 1]


def test_commands_that_wait_share_one_entry(cluster: Any) -> None:
    session = cluster.sessions[2]
    before = cluster.replicas[1].raft.last_index
    for _ in range(100):
        session.submit(counter(), cluster.now_ms, 10**9, None)
    cluster.settle()
    assert value_of(cluster, 1) == 100
    assert cluster.replicas[1].raft.last_index == before + 1


def test_groups_that_arrive_during_a_round_go_into_the_next_one(cluster: Any) -> None:
    leader = cluster.replicas[1]
    before = leader.raft.last_index
    for _ in range(5):
        for node in (1, 2, 3):
            cluster.sessions[node].submit(counter(), cluster.now_ms, 10**9, None)
            leader.submit(cluster.sessions[node].take_group(), node)
        leader.drain()  # proposes what fits into the rounds in flight; nothing is acknowledged yet
    rounds = leader.config.rounds_in_flight_max
    assert leader.raft.last_index == before + rounds


def test_nobody_waits_for_what_is_applied(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What leaves or is written in one turn never stands behind an entry that is applied in that turn."""
    postponed = 0
    plain = Replica.drain

    def watched(replica: Replica) -> list[Any]:
        nonlocal postponed
        effects = plain(replica)
        kinds = [type(effect) for effect in effects]
        urgent = [at for at, kind in enumerate(kinds) if kind in (Send, Persist)]
        applied = [at for at, kind in enumerate(kinds) if kind is Applied]
        assert not urgent or not applied or applied[-1] < urgent[0]
        postponed += bool(urgent and replica.waits_to_apply)
        return effects

    monkeypatch.setattr(Replica, "drain", watched)
    for _ in range(20):
        for node in (1, 2, 3):
            cluster.sessions[node].submit(counter(), cluster.now_ms, 10**9, None)
            cluster.replicas[1].submit(cluster.sessions[node].take_group(), node)
            for each in (2, 1, 3):
                cluster._step(each)
    cluster.settle()
    assert [value_of(cluster, each) for each in (1, 2, 3)] == [60, 60, 60]
    assert postponed > 5


def test_log_time_never_decreases_and_ignores_wall_clock_jumps(cluster: Any) -> None:
    for node, jump in ((1, 3_600_000), (1, -7_200_000), (2, -3_600_000)):
        cluster.wall_ms[node] += jump
        cluster.advance(300)
        cluster.submit(node, counter())
    cluster.elect(2)
    cluster.submit(1, counter())
    cluster.advance(500)
    cluster.submit(3, counter())
    found = stamps(cluster, 2)
    assert found == sorted(found)
    lts = [lt for lt, _ in found]
    assert lts[-1] - lts[0] <= cluster.now_ms


def test_log_time_does_not_run_while_nobody_leads(cluster: Any) -> None:
    cluster.submit(1, counter())
    before = cluster.replicas[1].store.lt
    cluster.cut = {1, 2, 3}
    cluster.advance(60_000, step=500)
    cluster.cut = set()
    cluster.advance(5_000)
    cluster.submit(2, counter())
    assert cluster.replicas[2].store.lt - before <= 6_000


def test_a_new_leader_continues_from_the_largest_time_in_its_log_even_uncommitted() -> None:
    clock = LogClock()
    clock.take_over(5_000, 70, now_ms=100)
    assert clock.stamp(100, 60) == (5_000, 70)
    assert clock.stamp(350, 90) == (5_250, 90)
    assert clock.stamp(340, 10) == (5_240, 90)  # the driver's clock is monotonic; wall time is clamped


def test_a_repeated_group_applies_once(cluster: Any) -> None:
    """The paper's section 8: a serial number that was executed is answered again without being executed again."""
    session = cluster.sessions[2]
    session.submit(counter(), cluster.now_ms, 10**9, None)
    group = session.take_group()
    for _ in range(3):
        cluster.replicas[1].submit(group, 2)
    cluster.settle()
    assert value_of(cluster, 3) == 1


def test_a_follower_without_a_leader_refuses_and_the_session_tries_again(cluster: Any) -> None:
    cluster.cut = {1}
    cluster.advance(4 * 1000)
    assert cluster.replicas[1].raft.role is not Role.LEADER
    result = cluster.submit(1, counter())
    assert not result.known
    assert cluster.refused
    assert cluster.refused[-1].reason is DropReason.NO_LEADER
    cluster.cut = set()
    cluster.advance(5_000)
    assert result.known
    assert result.error is None
    assert value_of(cluster, 1) == 1


def test_past_its_deadline_a_command_that_was_never_sent_is_not_applied(cluster: Any) -> None:
    cluster.sessions[1].open(cluster.now_ms, nonce=77)  # opening: nothing else leaves before it is open
    cluster.cut = {1}
    cluster.advance(3_000)
    result = cluster.submit(1, counter(), patience_ms=100)
    cluster.advance(200)
    assert isinstance(result.error, NotApplied)


def test_past_its_deadline_a_command_that_was_sent_is_unknown(cluster: Any) -> None:
    cluster.cut = {3}
    result = cluster.submit(3, counter(), patience_ms=100)
    cluster.advance(200)
    assert isinstance(result.error, Unknown)


def test_a_leader_over_its_limits_says_busy_before_anything_is_appended(cluster: Any) -> None:
    leader = cluster.replicas[1]
    cluster.cut = {2, 3}
    last = leader.raft.last_index
    session = cluster.sessions[1]
    for _ in range(40):
        session.submit(EnqueueJobs((NewJob("t", b"x" * 250_000),) * 3), cluster.now_ms, 10**9, None)
    cluster.settle()
    assert {refused.reason for refused in cluster.refused} == {DropReason.TOO_MUCH_UNCOMMITTED}
    assert leader.raft.last_index <= last + leader.config.rounds_in_flight_max


def test_over_its_limits_a_leader_still_takes_what_ends_or_keeps_something(cluster: Any) -> None:
    leader = cluster.replicas[1]
    cluster.cut = {2, 3}
    for size in (600_000, 10_000, 500, 0):  # smaller and smaller, until there is no room for anything
        new_work = encode_group(1, 1, [(1, encode(EnqueueJobs((NewJob("t", b"x" * size),))))])
        cluster.refused.clear()
        while not cluster.refused:
            leader.submit(new_work, 1)
            cluster.settle()
    cluster.refused.clear()
    urgent = encode_group(1, 1, [(2, encode(KeepAlive())), (3, encode(CompleteJob("0000000000001", 7)))])
    mixed = encode_group(1, 1, [(4, encode(KeepAlive())), (5, encode(IncrementCounter("c", 1)))])
    for group in (urgent, mixed, b"nonsense"):
        leader.submit(group, 1)
        cluster.settle()
    assert [effect.group for effect in cluster.refused] == [mixed, b"nonsense"]


def test_the_room_for_what_outranks_new_work_is_bounded_too(cluster: Any) -> None:
    leader = cluster.replicas[1]
    cluster.cut = {2, 3}
    urgent = encode_group(1, 1, [(1, encode(CompleteJob("0000000000001", 7, b"x" * 60_000)))])
    config = leader.config
    most = 2 * (config.pending_bytes_max + config.reserved_bytes) // len(urgent)
    for _ in range(most):
        leader.submit(urgent, 1)
        cluster.settle()
        if cluster.refused:
            return
    raise AssertionError("everything was taken")


def test_what_is_due_is_proposed_by_the_leader_once(cluster: Any) -> None:
    cluster.submit(2, EnqueueJobs((NewJob("t", queue="q", delay_ms=500),)))
    states = [next(iter(cluster.replicas[node].store.jobs.values())).state for node in (1, 2, 3)]
    assert states == ["Scheduled"] * 3
    entries = cluster.replicas[1].raft.last_index
    cluster.advance(600)
    states = [next(iter(cluster.replicas[node].store.jobs.values())).state for node in (1, 2, 3)]
    assert states == ["Enqueued"] * 3
    assert cluster.replicas[1].raft.last_index == entries + 1


def test_what_is_due_wakes_nobody_while_it_cannot_be_proposed(cluster: Any) -> None:
    """Found by the simulator: a leader without a majority was woken again and again for maintenance."""
    cluster.submit(1, EnqueueJobs((NewJob("t", queue="q", delay_ms=50),)))
    cluster.cut = {2, 3}
    cluster.submit(1, counter())
    cluster.submit(1, counter())
    leader = cluster.replicas[1]
    leader.tick(cluster.now_ms + 60, cluster.wall_ms[1] + 60)
    leader.drain()
    deadline = leader.next_deadline()
    assert deadline is not None
    assert deadline > leader.now_ms


def test_an_idle_cluster_writes_nothing_but_keep_alives(cluster: Any) -> None:
    before = cluster.replicas[1].raft.last_index
    cluster.advance(10_000)
    renewals = 3 * (10_000 // (cluster.sessions[1].config.ttl_ms // 3) + 1)
    assert cluster.replicas[1].raft.last_index - before <= renewals


def test_a_linearizable_read_waits_for_what_was_acknowledged(cluster: Any) -> None:
    cluster.submit(1, counter())
    cluster.replicas[3].read(9)
    cluster.settle()
    (ready,) = cluster.reads
    assert isinstance(ready, ReadReady)
    assert ready.context == 9
    assert cluster.replicas[3].store_index >= ready.index >= cluster.replicas[1].store.applied_index


def test_a_session_survives_a_change_of_leader(cluster: Any) -> None:
    session_id = cluster.sessions[3].session_id
    cluster.submit(3, counter())
    cluster.elect(2)
    assert cluster.submit(3, counter()).error is None
    assert cluster.sessions[3].session_id == session_id
    assert value_of(cluster, 2) == 2


def test_nothing_is_forwarded_to_a_leader_that_is_not_heard(cluster: Any) -> None:
    """One that may not campaign never forgets its leader; what it forwarded would arrive, but no answer comes back."""
    replica = cluster.replicas[3]
    replica.drain()
    group = codec.packb([9, 0, [[1, [66]]]])
    replica.submit(group, 3)
    assert [type(effect) for effect in replica.drain()] == [Forward]
    replica.observe_time(cluster.now_ms + replica.config.leader_silent_ms)
    replica.submit(group, 3)
    (refused,) = replica.drain()
    assert isinstance(refused, Refused)
    assert refused.reason is DropReason.NOT_LEADER


def test_a_leader_whose_disk_is_nearly_full_takes_only_what_needs_no_space(cluster: Any) -> None:
    leader = cluster.replicas[1]
    (job,) = cluster.submit(1, EnqueueJobs((NewJob("t"),))).value
    leader.disk_space(low=True)
    enqueued = cluster.submit(2, EnqueueJobs((NewJob("t"),)), patience_ms=700)
    assert cluster.submit(3, DeleteJob(job)).value is True
    assert cluster.submit(1, Subscribe(("default",), 1)).error is None
    assert [effect.reason for effect in cluster.refused] == [DropReason.DISK_FULL]
    leader.disk_space(low=False)
    assert cluster.submit(1, EnqueueJobs((NewJob("t"),))).error is None
    assert not enqueued.known


def test_a_leader_whose_disk_is_nearly_full_makes_no_recurring_jobs(cluster: Any) -> None:
    """They are late then, and their entries may still be paused and removed."""
    leader = cluster.replicas[1]
    cluster.submit(1, SetRecurring("r", NewJob("t"), every_ms=100))
    cluster.submit(1, SetRecurring("s", NewJob("t"), every_ms=100))
    cluster.advance(150)
    made = len(leader.store.jobs)
    assert made >= 2
    leader.disk_space(low=True)
    index = leader.store_index
    cluster.advance(500)
    assert (len(leader.store.jobs), leader.store_index) == (made, index)
    assert cluster.submit(2, PauseRecurring("r", True)).value is True
    assert cluster.submit(3, RemoveRecurring("s")).value is True
    leader.disk_space(low=False)
    assert cluster.submit(2, PauseRecurring("r", False)).value is True
    cluster.advance(150)
    assert len(leader.store.jobs) > made


def test_what_waits_when_the_disk_fills_is_refused_too(cluster: Any) -> None:
    leader = cluster.replicas[1]
    cluster.cut = {2, 3}
    groups = [encode_group(1, 1, [(seq, encode(IncrementCounter("c", 1)))]) for seq in (2, 3, 4)]
    for group in groups:
        leader.submit(group, 1)
        cluster.settle()
    leader.disk_space(low=True)
    cluster.settle()
    assert [effect.group for effect in cluster.refused] == groups[leader.config.rounds_in_flight_max :]
    leader.submit(encode_group(1, 1, [(5, encode(KeepAlive()))]), 1)
    cluster.settle()
    assert len(cluster.refused) == 1


def test_a_full_disk_is_tidied_up_by_two_snapshots_and_no_more(cluster: Any) -> None:
    """The log behind the older of two snapshots stays: only the second one lets go of it."""
    leader = cluster.replicas[1]
    size = leader.config.snapshot_after_bytes // 4
    for _ in range(8):
        cluster.submit(1, EnqueueJobs((NewJob("t", bytes(size // 8)),)))
    first = leader.raft.first_index
    leader.disk_space(low=True)
    assert not cluster.snapshots
    for _ in range(6):
        cluster.submit(1, KeepAlive())
    assert len(cluster.snapshots) == 2
    assert leader.raft.first_index > first
