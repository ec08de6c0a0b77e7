"""The grammar of transcripts: what is read, and that writing it gives the file again."""

from __future__ import annotations

import pytest

from quorker.sim.transcript.parser import (
    Argument,
    Directive,
    TranscriptError,
    parse_arguments,
    parse_transcript,
)

TEXT = """\
# A comment.
add-nodes 3 voters=(1,2, 3) index=10 prevote=true
----
ok

propose-conf-change 1
v4 l5
----
> 1 does something
  and says so


# The last one prints an empty line.
raft-state
----
----
one

two
----
----
"""


def test_directives_are_read_with_arguments_input_and_output() -> None:
    first, second, third = parse_transcript(TEXT).directives
    assert (first.name, first.line, first.expected) == ("add-nodes", 2, "ok\n")
    assert first.integer(0) == 3
    assert first.arguments[1:] == (
        Argument("voters", ("1", "2", "3")),
        Argument("index", ("10",)),
        Argument("prevote", ("true",)),
    )
    assert (second.input, second.expected) == ("v4 l5\n", "> 1 does something\n  and says so\n")
    assert third.expected == "one\n\ntwo\n"


def test_writing_gives_the_file_again() -> None:
    assert parse_transcript(TEXT).text() == TEXT


def test_outputs_can_be_replaced_one_by_one() -> None:
    changed = parse_transcript(TEXT).with_outputs(iter(["a\n", "b\n\nc\n", "d\n"]))
    assert [directive.expected for directive in changed.directives] == ["a\n", "b\n\nc\n", "d\n"]
    assert "# A comment.\n" in changed.text()
    assert parse_transcript(changed.text()).directives[1].expected == "b\n\nc\n"


def test_a_list_of_one_is_a_list() -> None:
    assert parse_arguments("drop=(2) 1 type=MsgApp") == (
        Argument("drop", ("2",)),
        Argument("1"),
        Argument("type", ("MsgApp",)),
    )


def test_a_directive_without_output_is_an_error_with_its_line() -> None:
    with pytest.raises(TranscriptError, match="line 2: a directive without ----"):
        parse_transcript("\ncampaign 1\nmore\n")


def test_missing_and_double_arguments_are_errors() -> None:
    directive = Directive("campaign", (), "", "", "campaign", 7)
    with pytest.raises(TranscriptError, match="argument 1 must be a number"):
        directive.integer(0)
    with pytest.raises(TranscriptError, match="exactly one value"):
        Argument("v1", ("true", "false")).one()
