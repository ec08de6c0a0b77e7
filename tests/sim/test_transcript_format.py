"""The notation of transcripts, where the vectors do not show it."""

from __future__ import annotations

import pytest

from quorker.core.raft.confchange import ChangeKind, ChangeStep, ConfigChange, encode_change
from quorker.core.raft.messages import (
    AppendResponse,
    Entry,
    EntryKind,
    ForwardProposal,
    ForwardRead,
    ForwardTransfer,
    ReadResponse,
)
from quorker.sim.transcript.format import format_entry, format_steps, parse_steps, quote
from quorker.sim.transcript.parser import TranscriptError
from quorker.sim.transcript.wire import format_message


def test_steps_are_written_as_they_are_read() -> None:
    assert format_steps(parse_steps("v1 l22 r3 u4")) == "v1 l22 r3 u4"
    assert parse_steps(" ") == ()


@pytest.mark.parametrize("word", ["x1", "v", "v-1", "l1x"])
def test_what_is_no_step_is_refused(word: str) -> None:
    with pytest.raises(TranscriptError, match="not a configuration step"):
        parse_steps(word)


def test_data_is_quoted() -> None:
    assert quote(b'a"\\\n\t\r\x00\xff') == r'"a\"\\\n\t\r\x00\xff"'


def test_entries_show_what_they_carry() -> None:
    change = ConfigChange((ChangeStep(ChangeKind.ADD_VOTER, 2),), entry_kind=EntryKind.CONFIG)
    assert format_entry(Entry(1, 4, b"x")) == '1/4 EntryNormal "x"'
    assert format_entry(Entry(1, 5, encode_change(change), EntryKind.CONFIG)) == "1/5 EntryConfChange v2"
    assert format_entry(Entry(2, 6, b"", EntryKind.CONFIG_V2)) == "2/6 EntryConfChangeV2"


def test_several_entries_stand_below_each_other() -> None:
    text = format_message(ForwardProposal(2, 1, 0, (Entry(0, 0, b"a"), Entry(0, 0, b"b"))))
    assert text == '2->1 MsgProp Term:0 Log:0/0 Entries:[\n  0/0 EntryNormal "a"\n  0/0 EntryNormal "b"\n]'


def test_forwarded_messages_have_a_notation() -> None:
    assert format_message(ForwardTransfer(2, 1, 3, target=4)) == "4->1 MsgTransferLeader Term:3 Log:0/0"
    read = format_message(ForwardRead(2, 1, 0, context=7))
    assert read == '2->1 MsgReadIndex Term:0 Log:0/0 Entries:[0/0 EntryNormal "7"]'
    answer = format_message(ReadResponse(1, 2, 3, context=7, index=9))
    assert answer == '1->2 MsgReadIndexResp Term:3 Log:0/9 Entries:[0/0 EntryNormal "7"]'


def test_a_rejection_shows_its_hint() -> None:
    message = AppendResponse(2, 1, 3, 9, rejected=True, hint_index=5, hint_term=2)
    assert format_message(message) == "2->1 MsgAppResp Term:3 Log:2/9 Rejected (Hint: 5)"
