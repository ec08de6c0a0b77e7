"""etcd's interaction transcripts and our own, run against our Raft. Log lines are not compared, all others are.

`QUORKER_REWRITE=1` writes what our own transcripts print now into them: read the difference before you commit it.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

from quorker.sim.transcript.deviations import DEVIATIONS
from quorker.sim.transcript.directives import DIRECTIVES, run_transcript, structural
from quorker.sim.transcript.parser import Directive, Transcript, TranscriptError, parse_transcript

OWN = Path(__file__).parent / "transcripts"
OWN_FILES = sorted(OWN.glob("*.txt"))


def differences(transcript: Transcript, *, as_etcd: bool = False) -> list[str]:
    """For each directive that prints something else than expected: where it stands, and the difference."""
    ran = list(run_transcript(transcript, as_etcd=as_etcd))
    assert ran
    assert len(ran) == len(transcript.directives)
    return [difference(directive, output) for directive, output in ran if not is_expected(directive, output)]


def is_expected(directive: Directive, output: str) -> bool:
    return structural(output) == structural(directive.expected)


def difference(directive: Directive, output: str) -> str:
    expected, printed = structural(directive.expected), structural(output)
    lines = difflib.unified_diff(expected, printed, "expected", "printed", n=8, lineterm="")
    return f"line {directive.line}: {directive.head}\n" + "\n".join(lines)


def test_interaction_vector(interaction_vector: Path) -> None:
    found = differences(parse_transcript(interaction_vector.read_text()))
    deviation = DEVIATIONS.get(interaction_vector.name)
    if deviation is None:
        assert not found, f"{interaction_vector.name}, {found[0]}"
    else:
        assert 0 < len(found) <= deviation.differing
        assert deviation.first in found[0]


def test_interaction_vector_without_our_deviations(interaction_vector: Path) -> None:
    found = differences(parse_transcript(interaction_vector.read_text()), as_etcd=True)
    assert not found, f"{interaction_vector.name}, {found[0]}"


@pytest.mark.parametrize("path", OWN_FILES, ids=lambda path: path.stem)
def test_own_transcript(path: Path) -> None:
    transcript = parse_transcript(path.read_text())
    if os.environ.get("QUORKER_REWRITE"):
        outputs = (output for _, output in run_transcript(transcript))
        path.write_text(transcript.with_outputs(outputs).text())
        return
    found = differences(transcript)
    assert not found, f"{path.name}, {found[0]}"


def test_deviations_are_few_and_have_equivalents() -> None:
    assert 0 < len(DEVIATIONS) <= 4
    for deviation in DEVIATIONS.values():
        assert deviation.reason
        assert (OWN / deviation.equivalent) in OWN_FILES


def test_the_language_is_complete() -> None:
    assert len(DIRECTIVES) == 21


def test_only_log_lines_are_ignored() -> None:
    assert structural("> 1 handling Ready\n  INFO 1 became leader\n  Messages:  \n\n") == [
        "> 1 handling Ready",
        "  Messages:",
    ]
    assert structural("DEBUG x\nWARN y\nERROR z\n") == structural("ok\n") == ["ok"]
    assert structural("  Entries:\n") != structural("Entries:\n")


@pytest.mark.parametrize("path", OWN_FILES[:1], ids=lambda path: path.stem)
def test_a_changed_line_is_noticed(path: Path) -> None:
    text = path.read_text()
    assert "Term:1" in text
    assert differences(parse_transcript(text.replace("Term:1", "Term:7", 1)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("fly 1\n----\n", "line 1: fly 1: there is no such directive"),
        ("campaign\n----\n", "line 1: campaign: argument 1 must be a number"),
        ("campaign 1\n----\n", "line 1: campaign 1: there is no node 1"),
        ("add-nodes 1 colour=blue\n----\n", "no option colour"),
        ("add-nodes 2\n----\n\ntransfer-leadership from=1\n----\n", "line 4: .*: to= is missing"),
        ("add-nodes 2\n----\n\npropose-conf-change 1\nx1\n----\n", "not a configuration step: x1"),
    ],
)
def test_what_cannot_be_run_says_where(text: str, why: str) -> None:
    with pytest.raises(TranscriptError, match=why):
        list(run_transcript(parse_transcript(text)))


def test_refusals_are_printed_even_when_quiet() -> None:
    text = "add-nodes 1 voters=(1) index=1\n----\n\nlog-level none\n----\n\nlog-level loud\n----\n"
    outputs = [output for _, output in run_transcript(parse_transcript(text))]
    assert outputs[0].startswith("index must be")
    assert outputs[1] == "ok\n"
    assert outputs[2].startswith("log levels must be")
