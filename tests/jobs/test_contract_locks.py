"""The contract's locks: by owner name, with a lease, fenced by tokens; and beside them the locks of sessions."""

from __future__ import annotations

import pytest

from quorker.core.jobs.commands import AcquireLock, Maintain, TryLock, Unlock
from quorker.core.jobs.limits import Limits
from quorker.sim.bare.lone_store import LoneStore


@pytest.fixture
def lone() -> LoneStore:
    return LoneStore()


def test_a_lock_is_exclusive_and_its_owner_renews_it(lone: LoneStore) -> None:
    token = lone.do(TryLock("r", "alice", 100))
    assert token > 0
    assert lone.do(TryLock("r", "bob", 100)) == 0
    lone.advance(60)
    assert lone.do(TryLock("r", "alice", 100)) == token
    lone.advance(99)
    assert lone.do(TryLock("r", "bob", 100)) == 0


def test_a_lock_ends_at_the_end_of_its_lease(lone: LoneStore) -> None:
    first = lone.do(TryLock("r", "alice", 100))
    lone.advance(99)
    assert lone.do(TryLock("r", "bob", 100)) == 0
    lone.advance(1)
    second = lone.do(TryLock("r", "bob", 100))
    assert second > first


def test_a_renewal_never_shortens_a_lease(lone: LoneStore) -> None:
    lone.do(TryLock("r", "alice", 1000))
    lone.do(TryLock("r", "alice", 1))
    lone.advance(999)
    assert lone.do(TryLock("r", "bob", 1)) == 0


def test_only_its_owner_releases_a_lock(lone: LoneStore) -> None:
    lone.do(TryLock("r", "alice", 100))
    assert lone.do(Unlock("r", "bob")) is False
    assert lone.do(Unlock("r", "alice")) is True
    assert lone.do(Unlock("r", "alice")) is False
    assert lone.store.locks == {}


def test_maintenance_drops_expired_locks(lone: LoneStore) -> None:
    lone.do(TryLock("r", "alice", 100))
    lone.do(TryLock("s", "alice", 200))
    lone.advance(100)
    assert lone.do(Maintain(1000))[3] == 1
    assert list(lone.store.locks) == ["s"]


def test_a_former_owner_is_denied_once_another_holds_the_lock(lone: LoneStore) -> None:
    lone.do(TryLock("r", "alice", 100))
    lone.advance(100)
    lone.do(TryLock("r", "bob", 100))
    assert lone.do(TryLock("r", "alice", 100)) == 0
    assert lone.do(Unlock("r", "alice")) is False


def test_a_lease_of_nothing_is_over_at_once_and_breaks_nothing(lone: LoneStore) -> None:
    assert lone.do(TryLock("r", "alice", 0)) > 0
    lone.pass_time(1)
    assert lone.store.locks == {}


def test_locks_of_owners_and_of_sessions_exclude_each_other(lone: LoneStore) -> None:
    session = lone.open()
    lone.do(AcquireLock("r"), session)
    assert lone.do(TryLock("r", "alice", 100)) == 0
    lone.do(TryLock("s", "alice", 100))
    assert lone.reply(AcquireLock("s"), session)[1] == "lock_held"


def test_the_next_waiter_of_a_session_gets_what_an_owner_lets_go(lone: LoneStore) -> None:
    session = lone.open()
    lone.do(TryLock("r", "alice", 100))
    ticket = lone.do(AcquireLock("r", 0, True), session)[1]
    lone.do(Unlock("r", "alice"))
    (grant,) = lone.take_locks()
    assert (grant.resource, grant.ticket) == ("r", ticket)
    assert lone.do(TryLock("r", "alice", 100)) == 0


def test_the_number_of_locks_is_limited() -> None:
    lone = LoneStore(Limits(max_locks=1))
    assert lone.do(TryLock("r", "alice", 100)) > 0
    assert lone.do(TryLock("s", "alice", 100)) == 0
    assert lone.reply(AcquireLock("s", 5))[1] == "store_full"
