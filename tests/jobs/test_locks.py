"""Locks of sessions: fenced, fair, bound to the session or to a time to live, never leaked."""

from __future__ import annotations

import pytest

from quorker.core.jobs import locks
from quorker.core.jobs.commands import AcquireLock, CloseSession, KeepAlive, ReleaseLock
from quorker.core.jobs.limits import Limits
from quorker.core.jobs.outcome import LockGrant
from quorker.sim.bare.lone_store import LoneStore


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def take(lone: LoneStore, session: int, resource: str = "r", ttl_ms: int = 0) -> int:
    how, token = lone.do(AcquireLock(resource, ttl_ms), session)
    assert how == "granted"
    return int(token)


def wait(lone: LoneStore, session: int, resource: str = "r", ttl_ms: int = 0) -> int:
    how, ticket = lone.do(AcquireLock(resource, ttl_ms, True), session)
    assert how == "waiting"
    return int(ticket)


def test_a_free_lock_is_granted_and_a_held_one_refused(lone: LoneStore) -> None:
    one, other = lone.open("one"), lone.open("other")
    take(lone, one)
    assert lone.reply(AcquireLock("r"), other)[1] == "lock_held"


def test_a_lock_is_not_reentrant_within_a_session(lone: LoneStore) -> None:
    session = lone.open()
    take(lone, session)
    assert lone.reply(AcquireLock("r"), session)[1] == "lock_held"


def test_waiters_are_served_in_their_order_with_growing_tokens(lone: LoneStore) -> None:
    one, other, third = lone.open("one"), lone.open("other"), lone.open("third")
    token = take(lone, one)
    tickets = [wait(lone, other), wait(lone, third)]
    lone.do(ReleaseLock("r", token), one)
    (first,) = lone.take_locks()
    assert lone.outcome.notices[0].session == other
    lone.do(ReleaseLock("r", first.token), other)
    (second,) = lone.take_locks()
    assert lone.outcome.notices[0].session == third
    assert [first.ticket, second.ticket] == tickets
    assert token < first.token < second.token


def test_a_stale_token_does_not_release(lone: LoneStore) -> None:
    one, other = lone.open("one"), lone.open("other")
    token = take(lone, one)
    wait(lone, other)
    lone.do(ReleaseLock("r", token), one)
    assert lone.reply(ReleaseLock("r", token), one)[1] == "lease_lost"
    assert lone.reply(ReleaseLock("r", 0), one)[1] == "lease_lost"
    assert lone.store.locks["r"].session == other
    assert lone.reply(ReleaseLock("nothing", token), one)[1] == "lease_lost"


def test_a_waiter_leaves_the_line_by_its_ticket(lone: LoneStore) -> None:
    one, other = lone.open("one"), lone.open("other")
    token = take(lone, one)
    ticket = wait(lone, other)
    assert lone.do(ReleaseLock("r", ticket), other) is True
    lone.do(ReleaseLock("r", token), one)
    assert lone.take_locks() == []
    assert lone.store.locks == {}


def test_a_ticket_that_was_granted_meanwhile_releases_the_lock(lone: LoneStore) -> None:
    """No acquisition that is given up can leak, whichever way the race goes."""
    one, other = lone.open("one"), lone.open("other")
    token = take(lone, one)
    ticket = wait(lone, other)
    lone.do(ReleaseLock("r", token), one)
    assert lone.do(ReleaseLock("r", ticket), other) is True
    assert lone.store.locks == {}


def test_locks_pass_on_when_their_session_closes(lone: LoneStore) -> None:
    one, other = lone.open("one"), lone.open("other")
    take(lone, one)
    ticket = wait(lone, other)
    lone.do(CloseSession(), one)
    assert [grant.ticket for grant in lone.take_locks()] == [ticket]


def test_locks_pass_on_when_their_session_expires(lone: LoneStore) -> None:
    one, other = lone.open("one", 1000), lone.open("other", 60_000)
    take(lone, one)
    ticket = wait(lone, other)
    lone.pass_time(1000)
    assert [grant.ticket for grant in lone.take_locks()] == [ticket]


def test_a_waiter_whose_session_ended_is_never_granted(lone: LoneStore) -> None:
    one, other, third = lone.open("one"), lone.open("other", 1000), lone.open("third")
    token = take(lone, one)
    wait(lone, other)
    ticket = wait(lone, third)
    lone.advance(999)
    lone.entry((one, KeepAlive()), (third, KeepAlive()))
    lone.pass_time(1)
    lone.do(ReleaseLock("r", token), one)
    assert [grant.ticket for grant in lone.take_locks()] == [ticket]


def test_a_session_that_ends_is_not_granted_what_it_waited_for(lone: LoneStore) -> None:
    session = lone.open()
    take(lone, session)
    wait(lone, session)
    lone.do(CloseSession(), session)
    assert lone.take_locks() == []
    assert lone.store.locks == {}


def test_a_lock_with_a_ttl_outlives_its_session_and_ends_with_its_ttl(lone: LoneStore) -> None:
    one, other = lone.open("one"), lone.open("other")
    take(lone, one, ttl_ms=100)
    ticket = wait(lone, other)
    lone.do(CloseSession(), one)
    assert lone.take_locks() == []
    lone.pass_time(99)
    assert lone.take_locks() == []
    lone.pass_time(1)
    assert [grant.ticket for grant in lone.take_locks()] == [ticket]


def test_an_expired_lock_goes_to_its_waiter_before_any_newcomer(lone: LoneStore) -> None:
    one, other, third = lone.open("one"), lone.open("other"), lone.open("third")
    take(lone, one, ttl_ms=100)
    ticket = wait(lone, other)
    lone.advance(100)
    assert lone.reply(AcquireLock("r"), third)[1] == "lock_held"
    assert [grant.ticket for grant in lone.take_locks()] == [ticket]


def test_a_waiter_brings_its_own_ttl(lone: LoneStore) -> None:
    one, other = lone.open("one"), lone.open("other")
    token = take(lone, one)
    wait(lone, other, ttl_ms=50)
    lone.do(ReleaseLock("r", token), one)
    assert lone.store.locks["r"].expires_lt == 50
    lone.pass_time(50)
    assert lone.store.locks == {}


def test_without_a_session_a_lock_needs_a_ttl_and_cannot_be_waited_for(lone: LoneStore) -> None:
    assert lone.reply(AcquireLock("r"))[1] == "no_session"
    assert lone.reply(AcquireLock("r", 100, True))[1] == "no_session"
    assert lone.do(AcquireLock("r", 100))[0] == "granted"


def test_locks_and_waits_of_a_session_are_limited() -> None:
    lone = LoneStore(Limits(max_session_locks=2))
    session = lone.open()
    take(lone, session, "a")
    wait(lone, session, "a")
    assert lone.reply(AcquireLock("b"), session)[1] == "too_many_locks"


def test_a_lock_notice_names_resource_token_and_ticket(lone: LoneStore) -> None:
    one, other = lone.open("one"), lone.open("other")
    token = take(lone, one)
    ticket = wait(lone, other)
    lone.do(ReleaseLock("r", token), one)
    (notice,) = lone.outcome.notices
    assert notice.kind == "lock"
    assert notice.payload == LockGrant("r", lone.store.locks["r"].token, ticket)


def test_the_line_for_a_lock_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAITERS_MAX", 1)
    lone = LoneStore()
    session = lone.open()
    take(lone, session)
    wait(lone, session)
    assert lone.reply(AcquireLock("r", 0, True), session)[1] == "too_many_locks"
