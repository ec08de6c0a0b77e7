"""What stories say about messages, writes and commands; nothing that is replicated can make them raise."""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]  # no stubs are published
import pytest

from quorker.core.jobs.commands import CompleteJob, KeepAlive, encode
from quorker.core.jobs.new_job import JobGrant
from quorker.core.jobs.outcome import Cancelled, LockGrant, Notice
from quorker.core.raft.effects import Persist, Send
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    RequestVote,
    SnapshotMeta,
)
from quorker.sim.stories.words import (
    asks,
    conf_words,
    entries_words,
    group_words,
    lanes_named,
    line_words,
    message_details,
    message_words,
    notice_words,
    persist_words,
)

_codec: Any = msgpack


def group(session: int, *commands: tuple[int, Any]) -> bytes:
    packed: bytes = _codec.packb((session, 0, commands))
    return packed


REPORT = group(7, (4, encode(CompleteJob("j1", 5, b""))), (5, encode(KeepAlive())))


def batch(*groups: bytes) -> bytes:
    packed: bytes = _codec.packb((100, 200, groups))
    return packed


def test_commands_are_named_with_their_session() -> None:
    assert group_words(REPORT) == "session 7: CompleteJob 4, KeepAlive 5"
    assert group_words(group(0, (99, encode(KeepAlive())))) == "a new session: KeepAlive 99"
    assert group_words(group(0, (0, encode(KeepAlive())))) == "the leader: KeepAlive 0"
    assert group_words(group(1, *[(n, encode(KeepAlive())) for n in range(6)])).endswith(" and 2 more")


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"\xc1", b"\x93", _codec.packb(3), _codec.packb([1, 2]), _codec.packb([1, 2, [[3, []]]])],
)
def test_nothing_replicated_makes_words_raise(data: bytes) -> None:
    assert group_words(data).endswith(f"{len(data)} bytes")
    assert isinstance(entries_words([Entry(1, 1, data), Entry(1, 2, batch(data))]), str)
    assert asks("on_submit", (None, data)) in ([], [(1, 3)])


def test_entries_are_told_with_what_they_hold() -> None:
    entries = [Entry(2, 5), Entry(2, 6, batch(REPORT)), Entry(2, 7, b"", EntryKind.CONFIG)]
    assert entries_words(entries) == "entries 5..7 (6: session 7: CompleteJob 4, KeepAlive 5, 7: members)"
    assert entries_words([]) == "no entries"


def test_messages_are_sentences() -> None:
    append = AppendEntries(1, 2, 3, 4, 3, (Entry(3, 5),), 4)
    assert message_words(append) == "AppendEntries of term 3: entries 5 after 4 of term 3, commit 4"
    assert message_words(AppendResponse(2, 1, 3, 5)) == "AppendResponse of term 3: has it to 5"
    assert message_words(AppendResponse(2, 1, 3, 5, True, 2, 1)).endswith("no match at 5, try 2 of term 1")
    assert "would you vote for me" in message_words(RequestVote(1, 2, 3, 4, 2, pre_vote=True))
    assert message_details(append) == {"message": "AppendEntries", "term": 3}
    assert message_details(AppendEntries(1, 2, 3, 4, 3, (), 4))["message"] == "AppendEntries (empty)"


def test_writes_say_what_waits_for_them() -> None:
    beat = Send(2, Heartbeat(1, 2, 3, 4))
    record = Persist(9, HardState(3, 1, 4), 5, (Entry(3, 5),), SnapshotMeta(4, 2), then=(beat,))
    assert persist_words(record) == (
        "write 9: cut from 5, snapshot to 4, entries 5, term 3, vote for n1, commit 4; 1 messages wait for it"
    )
    assert persist_words(Persist(9)) == "write 9: nothing"


def test_what_clients_are_told() -> None:
    grant = JobGrant("j1", 5, "default", "task", b"", 1, 0, 0, 1)
    assert notice_words(Notice(1, "job", grant)) == "job j1 is yours by 5"
    assert notice_words(Notice(1, "lock", LockGrant("a", 6, 1))) == "lock a is yours by 6"
    assert (
        notice_words(Notice(1, "cancel", Cancelled(5, "j1", "deleted")))
        == "job j1 by 5 is cancelled: deleted"
    )
    assert notice_words(Notice(1, "session_closed", "expired")) == "the session ends: expired"
    assert line_words("on_reply", (1, 2, (1, "stale_token", ""))) == (
        "reply: refused, stale_token to 2 of session 1",
        {"message": "reply"},
    )
    assert line_words("on_something_new", ())[1] == {"message": "on_something_new"}


def test_members_and_clients_are_found_in_a_text() -> None:
    assert lanes_named("n3 sends to n1, c2 and n3; on2 and n are none") == ["n3", "n1", "c2"]
    assert conf_words(ConfState((1, 2), (3,), (1,))) == "voters 1 2, learners 3, leaving voters 1"
