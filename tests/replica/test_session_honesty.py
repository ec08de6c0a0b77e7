"""What a session says of a command that it gives up: `NotApplied` only when that is certain."""

from __future__ import annotations

from typing import Any

import pytest

from quorker.core.errors import NotApplied, QuorkerError, Unknown
from quorker.core.jobs.commands import KeepAlive
from quorker.core.session import ClientSession, SessionConfig

DEADLINE_MS = 1_000


@pytest.fixture
def session() -> ClientSession:
    opened = ClientSession(SessionConfig("s", replaces=False), nonce=42)
    opened.open(0)
    opened.take_group()
    opened.on_opened(7)
    return opened


def submit(session: ClientSession) -> list[QuorkerError | None]:
    errors: list[QuorkerError | None] = []

    def resolve(value: Any, error: QuorkerError | None) -> None:
        errors.append(error)

    session.submit(KeepAlive(), 0, DEADLINE_MS, resolve)
    return errors


def test_refused_each_time_is_not_applied(session: ClientSession) -> None:
    errors = submit(session)
    for _ in range(3):
        assert session.take_group() is not None
        session.on_refused([1], 0)
    session.tick(DEADLINE_MS)
    assert [type(error) for error in errors] == [NotApplied]


def test_sent_twice_and_refused_once_is_unknown(session: ClientSession) -> None:
    errors = submit(session)
    session.take_group()
    session.on_route_changed()
    session.take_group()
    session.on_refused([1], 0)
    session.tick(DEADLINE_MS)
    assert [type(error) for error in errors] == [Unknown]


def test_what_was_refused_is_kept_for_the_next_session(session: ClientSession) -> None:
    errors = submit(session)
    session.take_group()
    session.on_refused([1], 0)
    session.on_lost("expired")
    assert not errors
    session.open(0)
    session.take_group()
    session.on_opened(8)
    assert session.take_group() is not None
    session.on_reply(1, (0, None))
    assert errors == [None]
