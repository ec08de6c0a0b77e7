"""`quorker sim mutants`: what it prints and returns."""

from __future__ import annotations

import json

import pytest

from quorker.app.cli import main
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, EXIT_USAGE

Capture = pytest.CaptureFixture[str]


def mutants(*arguments: str) -> int:
    return main(["sim", "mutants", *arguments])


def test_the_matrix_tells_who_found_what(capsys: Capture) -> None:
    assert mutants("--only", "acknowledge-before-fsync", "--shrink") == EXIT_OK
    told = capsys.readouterr().out
    assert "durable before sent (short, 0)" in told
    assert told.splitlines()[-1].startswith("1 of 1 found, 1 of them within 1,000 ordinary runs")


def test_the_matrix_as_data(capsys: Capture) -> None:
    assert mutants("--only", "commit-quorum-too-small", "-o", "json") == EXIT_OK
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["verdict"], row["found_by"]) == ("found", "commit on durable majority")


def test_two_processes_make_the_same_matrix(capsys: Capture) -> None:
    names = ("--only", "commit-quorum-too-small", "--only", "acknowledge-before-fsync")
    assert mutants(*names, "--jobs", "2", "-o", "json") == EXIT_OK
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["verdict"]) for row in rows] == [(name, "found") for name in names[1::2]]


def test_a_bug_that_escapes_fails_the_command(capsys: Capture) -> None:
    late = "snapshots-cost-the-entries-behind-them"  # it takes some fifty runs
    assert mutants("--only", late, "--runs", "2") == EXIT_REFUSED
    assert capsys.readouterr().out.endswith(f"missed: {late}\n")


def test_a_replay_tells_the_story(capsys: Capture) -> None:
    assert mutants("--only", "commit-quorum-too-small", "--replay", "0") == EXIT_REFUSED
    told = capsys.readouterr().out
    assert "becomes leader in term" in told
    assert "commit on durable majority: " in told.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "nonsense"], "no planted bug 'nonsense'"),
        (["--replay", "1"], "name it with --only"),
        (["--jobs", "0"], "at least one process"),
    ],
)
def test_mistakes_are_told(arguments: list[str], told: str, capsys: Capture) -> None:
    assert mutants(*arguments) == EXIT_USAGE
    assert told in capsys.readouterr().err
