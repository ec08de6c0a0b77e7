"""Time: only log time moves leases, locks and expiry, only wall time moves schedules, and neither ever goes back.

Each test of a defect names the weakness of the original that must not exist here (d.1 to d.5, d.11 of the inventory).
"""

from __future__ import annotations

import pytest

from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.bounds import DURATION_MAX, INSTANT_MAX
from quorker.core.jobs.commands import (
    AddToQueue,
    AddToSet,
    AnnounceServer,
    Command,
    CompleteJob,
    CreateJob,
    DeleteJob,
    EnqueueJobs,
    ExpireJob,
    ExpireRecords,
    ExpireSet,
    FetchNext,
    IncrementCounter,
    KeepAlive,
    Maintain,
    RemoveTimedOutServers,
    RenewFetched,
    RequeueFetched,
    RescheduleJob,
    SetJobState,
    TryLock,
    encode,
)
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.new_job import NewJob
from quorker.sim.bare.lone_store import FIRST_WT, LoneStore

HOUR = 3600 * 1000
DAY = 24 * HOUR


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def contract_job(lone: LoneStore, job_id: str = "a") -> int:
    """A job fetched by contract; returns the token."""
    lone.do(CreateJob(job_id, "t", b"", "default", (), 30 * DAY))
    lone.do(AddToQueue("default", job_id))
    return int(lone.do(FetchNext(("default",)))[2])


def test_neither_time_ever_goes_back(lone: LoneStore) -> None:
    lone.advance(1000)
    lone.do(IncrementCounter("k", 1))
    lone.lt, lone.wt = 0, 0
    lone.do(IncrementCounter("k", 1))
    assert (lone.store.lt, lone.store.wt) == (1000, FIRST_WT + 1000)


def test_a_wall_clock_that_jumps_an_hour_ahead_takes_no_lease_lock_session_or_record(lone: LoneStore) -> None:
    """d.1: mass reclaim, lock theft, server purge by a fast clock."""
    worker = lone.worker()
    (job_id,) = lone.enqueue()
    grant = lone.take_grant()
    token = contract_job(lone)
    lone.do(TryLock("r", "alice", 100))
    lone.do(AnnounceServer("server", 1, ()))
    lone.wt += 1000 * DAY
    assert lone.maintain() == 0
    lone.do(Maintain(300_000))
    assert lone.do(RemoveTimedOutServers(1000)) == 0
    assert lone.do(TryLock("r", "bob", 100)) == 0
    assert lone.do(RenewFetched(token)) is True
    lone.do(CompleteJob(job_id, grant.token), worker)


def test_a_wall_clock_that_jumps_back_stops_no_expiry(lone: LoneStore) -> None:
    session = lone.open(ttl_ms=1000)
    lone.wt -= HOUR
    lone.lt += 1000
    lone.maintain()
    assert session not in lone.store.sessions


def test_log_time_fires_no_schedule(lone: LoneStore) -> None:
    (job_id,) = lone.enqueue(NewJob("t", delay_ms=1000))
    lone.lt += HOUR
    lone.maintain()
    assert lone.state(job_id) == "Scheduled"


def test_a_renewal_never_moves_a_lease_back(lone: LoneStore) -> None:
    """d.1: backward writes of a slow node."""
    token = contract_job(lone)
    lone.advance(1000)
    lone.do(RenewFetched(token))
    lone.lt = 0
    lone.do(RenewFetched(token))
    assert lone.store.leases[token].since_lt == 1000


def test_a_session_is_never_shortened(lone: LoneStore) -> None:
    session = lone.open(ttl_ms=1000)
    lone.advance(500)
    lone.do(KeepAlive(), session)
    lone.lt = 100
    lone.do(KeepAlive(), session)
    assert lone.store.sessions[session].expires_lt == 1500


def test_no_command_carries_an_instant_of_log_time(lone: LoneStore) -> None:
    """d.1: a submitter can neither shorten nor lengthen what others hold: it can only name durations."""
    lone.advance(777)
    lone.do(CreateJob("a", "t", b"", "default", (), 100))
    lone.do(AddToSet("s", "v"))
    lone.do(ExpireSet("s", 100))
    assert lone.job("a").expires_lt == lone.store.collections.next_due() == 877


def test_a_repeated_creation_fetch_or_lock_has_one_effect(lone: LoneStore) -> None:
    """d.3: retries of an ambiguous outcome make no second job, leak no lease and no lock."""
    session = lone.open()
    commands: list[tuple[int, Command]] = [
        (1, EnqueueJobs((NewJob("t"),))),
        (2, FetchNext(("default",))),
        (3, TryLock("r", "me", 1000)),
        (4, IncrementCounter("k", 1)),
    ]
    first = lone.group(session, 0, commands)
    assert lone.group(session, 0, commands) == first
    assert (len(lone.store.jobs), len(lone.store.leases), len(lone.store.locks)) == (1, 1, 1)
    assert lone.store.collections.counters.value("k") == 1


def test_a_finished_job_that_is_reclaimed_keeps_its_expiry_and_is_not_queued(lone: LoneStore) -> None:
    """d.4: a worker that crashed between the final state and the acknowledgement made the job immortal."""
    token = contract_job(lone)
    lone.do(SetJobState("a", "Succeeded", "", ()))
    lone.do(ExpireJob("a", DAY))
    lone.advance(300_000)
    lone.do(Maintain(300_000))
    assert token not in lone.store.leases
    assert lone.job("a").expires_lt == DAY
    assert lone.store.places == {}
    lone.pass_time(DAY)
    assert lone.store.jobs == {}


def test_a_finished_job_that_is_requeued_by_its_fetcher_keeps_its_expiry(lone: LoneStore) -> None:
    """d.4, by way of a dispose after a failed acknowledgement."""
    token = contract_job(lone)
    lone.do(SetJobState("a", "Deleted", "", ()))
    lone.do(ExpireJob("a", DAY))
    assert lone.do(RequeueFetched(token)) is True
    assert (lone.job("a").expires_lt, lone.store.places) == (DAY, {})


def test_the_longest_durations_at_the_latest_instants_break_nothing(lone: LoneStore) -> None:
    """d.5: a natural "never time out" setting overflowed in apply on every node, for ever."""
    lone.lt, lone.wt = INSTANT_MAX, INSTANT_MAX
    token = contract_job(lone)
    longest = DURATION_MAX
    session = lone.worker(ttl_ms=DAY)
    lone.enqueue(NewJob("t", timeout_ms=longest, retention_ms=longest, unique_key="k", unique_ms=longest))
    grant = lone.take_grant()
    (later,) = lone.enqueue(NewJob("t", delay_ms=longest))
    lone.do(RescheduleJob(later, None, longest))
    for command in (
        Maintain(longest),
        RemoveTimedOutServers(longest),
        TryLock("r", "me", longest),
        ExpireJob("a", longest),
        IncrementCounter("k", 1, longest),
        RenewFetched(token),
        CompleteJob(grant.job_id, grant.token),
        DeleteJob(later),
    ):
        assert lone.reply(command)[0] == 0, command
    assert session in lone.store.sessions
    assert lone.maintain() == 0


def test_durations_beyond_the_bounds_are_refused_on_every_member(lone: LoneStore) -> None:
    """d.5: the range is checked at decode, so nothing poisonous can be applied wherever it came from."""
    for wire in ([34, 2**62], [31, 2**63 - 1], [32, "r", "me", DURATION_MAX + 1], [5, "a", -1]):
        data = encode_entry(0, 0, [encode_group(0, 0, [(1, wire)])])
        assert lone.apply(data).replies[0][2][1] == "bad_command"


@pytest.mark.parametrize(("lt", "wt"), [(-1, 0), (0, -1), (INSTANT_MAX + 1, 0), (0, INSTANT_MAX + 1)])
def test_a_time_beyond_the_bounds_makes_the_entry_a_no_op(lone: LoneStore, lt: int, wt: int) -> None:
    before = (lone.store.lt, lone.store.wt)
    outcome = lone.apply(encode_entry(lt, wt, [encode_group(0, 0, [(1, encode(IncrementCounter("k", 1)))])]))
    assert (outcome.replies, len(outcome.faults)) == ([], 1)
    assert (lone.store.lt, lone.store.wt) == before
    assert lone.store.collections.counters.value("k") == 0


def test_nothing_due_means_nothing_to_write(lone: LoneStore) -> None:
    """d.6, d.11: an idle store proposes nothing, whatever it holds."""
    lone.enqueue(NewJob("t", delay_ms=HOUR), NewJob("t"))
    contract_job(lone)
    lone.open(ttl_ms=DAY)
    lone.do(TryLock("r", "me", HOUR))
    assert lone.store.due(lone.lt, lone.wt) == []
    assert lone.store.next_due() == (300_000, FIRST_WT + HOUR)


def test_an_empty_store_is_never_due(lone: LoneStore) -> None:
    assert lone.store.next_due() == (None, None)
    assert lone.store.due(2**50, 2**50) == []


def test_eviction_goes_in_pieces() -> None:
    """d.11: no command touches more than a piece."""
    lone = LoneStore(Limits(piece=10))
    for job_id in lone.enqueue(*[NewJob("t")] * 35):
        lone.do(DeleteJob(job_id))
    lone.advance(DAY)
    sizes: list[int] = []
    while due := lone.store.due(lone.lt, lone.wt):
        assert due == [[80]]
        before = len(lone.store.jobs)
        lone.apply(encode_entry(lone.lt, lone.wt, [encode_group(0, 0, [(0, due[0])])]))
        sizes.append(before - len(lone.store.jobs))
    assert sizes[:3] == [10, 10, 10]
    assert sum(sizes) == 35


def test_schedules_are_released_in_pieces_and_in_order() -> None:
    lone = LoneStore(Limits(piece=10), careful=False)
    ids = lone.enqueue(*[NewJob("t", delay_ms=1000 - number) for number in range(35)])
    lone.advance(1000)
    (due,) = lone.store.due(lone.lt, lone.wt)
    lone.apply(encode_entry(lone.lt, lone.wt, [encode_group(0, 0, [(0, due)])]))
    assert [lone.state(each) for each in ids].count("Enqueued") == 10
    lone.maintain()
    lone.worker(slots=35)
    assert [grant.job_id for grant in lone.take_grants()] == list(reversed(ids))


def test_sessions_expire_in_pieces() -> None:
    lone = LoneStore(Limits(piece=4), careful=False)
    for number in range(10):
        lone.worker(slots=2, name=f"w{number}", ttl_ms=1000)
    lone.enqueue(*[NewJob("t")] * 20)
    lone.advance(1000)
    ((_, ids),) = lone.store.due(lone.lt, lone.wt)
    assert 1 <= len(ids) <= 4
    lone.maintain()
    assert lone.store.sessions == {}
    assert {job.state for job in lone.store.jobs.values()} == {"Enqueued"}


def test_a_crashed_worker_is_noticed_by_its_session_and_not_by_the_age_of_its_lease() -> None:
    """d.11: a dead node's jobs came back only after the invisibility timeout."""
    lone = LoneStore(Limits(invisibility_ms=HOUR))
    session = lone.open(ttl_ms=5000)
    lone.enqueue(NewJob("t"))
    lone.do(FetchNext(("default",)), session)
    lone.pass_time(5000)
    assert lone.do(FetchNext(("default",))) is not None


def test_a_job_that_kills_its_worker_is_not_first_in_line_for_ever() -> None:
    """d.11: requeue at the head with no count of deliveries."""
    lone = LoneStore(Limits(max_lost_deliveries=4))
    killer, harmless = lone.enqueue(NewJob("killer"), NewJob("harmless"))
    runs: list[str] = []
    for number in range(10):
        worker = lone.worker(ttl_ms=1000, name=f"w{number}")
        for grant in lone.take_grants():
            runs.append(grant.task)
            if grant.job_id == harmless:
                lone.do(CompleteJob(grant.job_id, grant.token), worker)
        lone.pass_time(1000)
    assert runs.index("harmless") <= 2
    assert runs.count("killer") == 4
    assert lone.state(killer) == "Quarantined"


def test_the_value_of_expiry_counts_all_that_ended(lone: LoneStore) -> None:
    lone.do(CreateJob("a", "t", b"", "default", (), 10))
    lone.do(AddToQueue("default", "a"))
    lone.do(AddToQueue("default", "a"))
    lone.enqueue(NewJob("t", unique_key="k", unique_ms=10))
    lone.do(TryLock("r", "me", 10))
    lone.do(IncrementCounter("k", 1, 10))
    lone.advance(10)
    assert lone.do(ExpireRecords()) == 1 + 2 + 1 + 1 + 1
    assert lone.do(ExpireRecords()) == 0
