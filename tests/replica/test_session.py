"""The session: numbering, windows, repetition, deadlines, renewal, and what becomes of commands when it is lost."""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]  # no stubs are published
import pytest

from quorker.core.errors import Busy, InvalidInput, NotApplied, OutOfSpace, QuorkerError, Rejected, Unknown
from quorker.core.jobs.commands import (
    CompleteJob,
    IncrementCounter,
    InsertToList,
    KeepAlive,
    OpenSession,
    ReplaceSessions,
    Subscribe,
    encode,
)
from quorker.core.jobs.new_job import JobGrant
from quorker.core.session import (
    GROUP_BYTES_MAX,
    GROUP_COMMANDS_MAX,
    WINDOW,
    ClientSession,
    SessionConfig,
    SessionState,
)
from quorker.core.worker import SEEN_MAX, Worker

codec: Any = msgpack
TTL_MS = 9_000
SESSION_ID = 65_537
COMMAND = IncrementCounter("c", 1)
KEEP_ALIVE = codec.packb(encode(KeepAlive()))


@pytest.fixture
def session() -> ClientSession:
    """Open since 100 ms, asked for at 0."""
    made = ClientSession(SessionConfig("s", TTL_MS, retransmit_ms=2_000, replaces=False), nonce=42)
    made.open(0)
    made.take_group()
    made.tick(100)
    made.on_opened(SESSION_ID)
    return made


class Outcomes(list[tuple[Any, QuorkerError | None]]):
    def take(self, value: Any, error: QuorkerError | None) -> None:
        self.append((value, error))


def group_of(session: ClientSession) -> tuple[int, int, list[int]]:
    """(session, acknowledged below, sequences) of what is sent now."""
    packed = session.take_group()
    assert packed is not None
    session_id, acked_below, commands = codec.unpackb(packed)
    return session_id, acked_below, [seq for seq, _ in commands]


def submit(session: ClientSession, count: int = 1, deadline_ms: int = 10**9) -> Outcomes:
    outcomes = Outcomes()
    for _ in range(count):
        session.submit(COMMAND, session.now_ms, deadline_ms, outcomes.take)
    return outcomes


def test_opening_names_its_nonce_and_is_repeated_until_answered() -> None:
    session = ClientSession(SessionConfig("s", TTL_MS, retransmit_ms=2_000, replaces=False), nonce=42)
    session.open(0)
    first = session.take_group()
    assert codec.unpackb(first) == [0, 0, [[42, list(encode(OpenSession("s", TTL_MS)))]]]
    assert session.take_group() is None
    session.tick(2_000)
    assert session.take_group() == first


def test_commands_wait_until_the_session_is_open() -> None:
    session = ClientSession(SessionConfig("s", TTL_MS, replaces=False), nonce=42)
    submit(session)
    assert session.take_group() is None
    session.open(0)
    session.take_group()
    assert session.take_group() is None
    session.on_opened(SESSION_ID)
    assert group_of(session) == (SESSION_ID, 1, [1])


def test_older_sessions_of_the_name_are_ended_from_within_the_new_one() -> None:
    """The opening itself may come late and must end nobody's session."""
    session = ClientSession(SessionConfig("s", TTL_MS), nonce=42)
    session.open(0)
    session.take_group()
    session.on_opened(SESSION_ID)
    packed = session.take_group()
    assert packed is not None
    assert codec.unpackb(packed) == [SESSION_ID, 1, [[1, list(encode(ReplaceSessions()))]]]


def test_sequences_count_up_and_answers_move_the_acknowledged_mark(session: ClientSession) -> None:
    outcomes = submit(session, 3)
    assert group_of(session) == (SESSION_ID, 1, [1, 2, 3])
    session.on_reply(2, (0, "b"))
    session.on_reply(1, (0, "a"))
    submit(session)
    assert group_of(session) == (SESSION_ID, 3, [4])
    assert outcomes == [("b", None), ("a", None)]


def test_a_reply_counts_once(session: ClientSession) -> None:
    outcomes = submit(session)
    session.take_group()
    session.on_reply(1, (0, 5))
    session.on_reply(1, (0, 6))
    assert outcomes == [(5, None)]


def test_a_rejection_carries_its_reason(session: ClientSession) -> None:
    outcomes = submit(session)
    session.take_group()
    session.on_reply(1, (1, "lease_lost", "gone"))
    ((_, error),) = outcomes
    assert isinstance(error, Rejected)
    assert (error.reason, error.detail) == ("lease_lost", "gone")


def test_no_more_than_a_window_is_under_way(session: ClientSession) -> None:
    submit(session, WINDOW + 10)
    sent: list[int] = []
    while (packed := session.take_group()) is not None:
        sent += [seq for seq, _ in codec.unpackb(packed)[2]]
    assert sent == list(range(1, WINDOW + 1))
    session.on_reply(1, (0, None))
    assert group_of(session) == (SESSION_ID, 2, [WINDOW + 1])


def test_groups_are_cut(session: ClientSession) -> None:
    submit(session, GROUP_COMMANDS_MAX + 1)
    assert len(group_of(session)[2]) == GROUP_COMMANDS_MAX
    assert len(group_of(session)[2]) == 1


def test_a_changed_route_sends_everything_unanswered_again_in_order(session: ClientSession) -> None:
    submit(session, 3)
    session.take_group()
    session.on_reply(2, (0, None))
    submit(session)
    session.on_route_changed()
    assert group_of(session)[2] == [1, 3, 4]


def test_what_was_refused_waits_and_only_that_is_sent_again(session: ClientSession) -> None:
    submit(session, 2)
    session.take_group()
    session.on_refused([2], retry_after_ms=50)
    assert session.take_group() is None
    session.tick(150)
    assert group_of(session)[2] == [2]


def test_silence_is_followed_by_repetition(session: ClientSession) -> None:
    submit(session)
    session.take_group()
    session.tick(1_000)
    assert session.take_group() is None
    session.tick(2_100)
    assert group_of(session)[2] == [1]


def test_deadlines_tell_unsent_from_sent(session: ClientSession) -> None:
    sent = submit(session, deadline_ms=500)
    session.take_group()
    unsent = submit(session, deadline_ms=500)
    session.tick(500)
    assert isinstance(sent[0][1], Unknown)
    assert isinstance(unsent[0][1], NotApplied)
    assert session.unanswered == 0


def test_a_command_that_fits_into_no_group_is_refused_at_once(session: ClientSession) -> None:
    """No leader would ever take it, so asking until the deadline would end in a misleading error."""
    around = len(codec.packb((1, encode(InsertToList("k", "x" * 2**16))))) - 2**16
    longest = GROUP_BYTES_MAX - around
    with pytest.raises(
        InvalidInput,
        match=f"InsertToList has {GROUP_BYTES_MAX + 1} bytes: one command has at most {GROUP_BYTES_MAX}; split it",
    ):
        submit_one(session, InsertToList("k", "x" * (longest + 1)))
    assert session.unanswered == 0
    assert submit_one(session, InsertToList("k", "x" * longest)) == 1, "no number was spent"
    group = session.take_group()
    assert group is not None
    assert len(group) <= GROUP_BYTES_MAX + 64


def test_an_abandoned_command_is_still_sent(session: ClientSession) -> None:
    outcomes = submit(session)
    session.abandon(1)
    assert group_of(session)[2] == [1]
    session.on_reply(1, (0, 1))
    assert outcomes == []


def test_an_idle_session_renews_itself_at_a_third_of_its_time(session: ClientSession) -> None:
    session.tick(TTL_MS // 3 - 1)
    assert session.take_group() is None
    session.tick(TTL_MS // 3)
    packed = session.take_group()
    assert packed is not None
    assert codec.unpackb(packed)[2] == [[1, list(encode(KeepAlive()))]]


def test_any_answered_command_renews_from_when_it_was_first_sent(session: ClientSession) -> None:
    assert session.lease_deadline_ms == int(0.8 * TTL_MS)
    session.tick(1_000)
    submit(session)
    session.take_group()
    session.tick(3_000)
    session.take_group()  # a repetition: the copy that was applied may be the first
    session.tick(4_000)
    session.on_reply(1, (0, None))
    assert session.lease_deadline_ms == 1_000 + int(0.8 * TTL_MS)


def test_a_rejected_command_renews_too_but_a_lost_session_does_not(session: ClientSession) -> None:
    session.tick(500)
    submit(session)
    session.take_group()
    session.on_reply(1, (1, "session_expired", "too late"))
    assert session.state is SessionState.LOST
    assert session.lease_deadline_ms == int(0.8 * TTL_MS)


def test_a_lost_session_leaves_the_sent_unknown_and_keeps_the_unsent(session: ClientSession) -> None:
    sent = submit(session)
    session.take_group()
    unsent = submit(session)
    session.on_lost("expired")
    assert isinstance(sent[0][1], Unknown)
    assert not unsent
    session.open(200, nonce=43)
    session.take_group()
    session.on_opened(SESSION_ID + 1)
    assert group_of(session) == (SESSION_ID + 1, 2, [2])


def grant(token: int) -> JobGrant:
    return JobGrant(f"JOB{token}", token, "q", "t", b"", 1, 0, 0, 1)


def test_a_grant_seen_twice_runs_once() -> None:
    worker = Worker()
    assert [each.token for each in worker.on_granted([grant(5), grant(7)])] == [5, 7]
    assert worker.on_granted([grant(5), grant(7)]) == []
    assert worker.on_finished(5)
    assert worker.on_granted([grant(5)]) == []
    assert not worker.on_finished(5)
    assert worker.give_up() == [7]


def test_a_grant_that_comes_after_a_newer_one_is_started() -> None:
    """A member that took over a snapshot tells what it had skipped last; it was taken for seen, and never begun."""
    worker = Worker()
    assert [each.token for each in worker.on_granted([grant(7)])] == [7]
    assert [each.token for each in worker.on_granted([grant(5), grant(7), grant(5)])] == [5]


def test_a_worker_remembers_a_bounded_number_of_grants() -> None:
    worker = Worker()
    for token in range(1, SEEN_MAX + 3):
        worker.on_granted([grant(token)])
        worker.on_finished(token)
    assert worker.on_granted([grant(1), grant(2), grant(3)]) == []


def test_commands_keep_their_bytes_between_repetitions(session: ClientSession) -> None:
    session.submit(Subscribe(("q",), 3), 100, 10**9, None)
    first = session.take_group()
    session.on_route_changed()
    assert session.take_group() == first


# ---------------------------------------------------------------------- new work is refused


def submit_one(session: ClientSession, command: Any, deadline_ms: int = 10**9) -> int:
    return session.submit(command, session.now_ms, deadline_ms, None)


def test_what_ends_a_job_is_not_held_up_by_refused_new_work(session: ClientSession) -> None:
    submit(session, 2)
    session.take_group()
    done = submit_one(session, CompleteJob("0000000000001", 7))
    session.on_refused([1, 2], 500, "TOO_MUCH_UNCOMMITTED")
    assert group_of(session) == (SESSION_ID, 1, [done])
    assert session.take_group() is None, "new work waits its time"
    session.tick(700)
    assert group_of(session)[2] == [1, 2]


def test_refused_completions_wait_too(session: ClientSession) -> None:
    done = submit_one(session, CompleteJob("0000000000001", 7))
    session.take_group()
    session.on_refused([done], 500, "TOO_MUCH_UNCOMMITTED")
    assert session.take_group() is None
    session.tick(700)
    assert group_of(session)[2] == [done]


def test_a_session_stays_alive_while_its_new_work_is_refused(session: ClientSession) -> None:
    """Only answers renew it, and refused commands get none."""
    submit(session)
    for now_ms in range(200, 200 + TTL_MS, 100):
        session.tick(now_ms)
        if (group := session.take_group()) is not None and KEEP_ALIVE not in group:
            session.on_refused([1], 150, "TOO_MUCH_UNCOMMITTED")
        elif group is not None:
            session.on_reply(codec.unpackb(group)[2][0][0], (0, None))
    assert session.lease_deadline_ms > TTL_MS


def test_who_is_refused_until_the_deadline_hears_that_the_cluster_is_busy(session: ClientSession) -> None:
    outcomes = submit(session, deadline_ms=1_000)
    session.take_group()
    session.on_refused([1], 2_000, "TOO_MUCH_UNCOMMITTED")
    session.tick(1_000)
    ((_, error),) = outcomes
    assert isinstance(error, Busy)
    assert "over its limits" in str(error)


def test_a_full_disk_is_named_at_the_deadline(session: ClientSession) -> None:
    errors: list[Any] = []
    session.submit(COMMAND, session.now_ms, session.now_ms + 1_000, lambda value, error: errors.append(error))
    session.take_group()
    session.on_refused([1], 500, "DISK_FULL", 3)
    session.tick(session.now_ms + 1_000)
    (error,) = errors
    assert isinstance(error, OutOfSpace)
    assert "the disk of node 3 (the leader) is nearly full" in str(error)


def test_what_needs_no_space_goes_alone_while_the_disk_is_full_and_only_then(session: ClientSession) -> None:
    submit(session, 1)
    session.take_group()
    subscribe = submit_one(session, Subscribe(("default",), 1))
    session.on_refused([1], 500, "TOO_MUCH_UNCOMMITTED")
    assert session.take_group() is None
    session.on_refused([1], 500, "DISK_FULL", 3)
    assert group_of(session)[2] == [subscribe]
