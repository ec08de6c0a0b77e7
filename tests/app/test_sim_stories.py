"""`quorker sim explain` and `quorker sim html`: which run they mean, and what they do with it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from quorker.app.cli import main
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, EXIT_USAGE
from quorker.core.raft.state import RaftState
from quorker.sim.cases.expansion import expand
from quorker.sim.cases.replay import token_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that sends before its disk has written."""
    monkeypatch.setattr(RaftState, "hold", RaftState.send)


def test_a_violation_is_explained_by_seed_and_by_token(capsys: Capture, hasty: None) -> None:
    del hasty
    assert main(["sim", "explain", "--seed", "3"]) == EXIT_REFUSED
    by_seed = capsys.readouterr().out
    assert by_seed.startswith("n3 breaks durable before sent: n3 sends RequestVote(")
    assert re.search(r"^51 of the 51 events that led to it|^\d+ of the \d+ events", by_seed, re.MULTILINE)
    assert main(["sim", "explain", token_of(expand(3))]) == EXIT_REFUSED
    assert capsys.readouterr().out == by_seed


def test_programs_read_explanations_and_drawings(capsys: Capture, tmp_path: Path, hasty: None) -> None:
    del hasty
    file = tmp_path / "run.html"
    assert main(["sim", "explain", "--seed", "3", "-o", "json"]) == EXIT_REFUSED
    explained = json.loads(capsys.readouterr().out)
    assert main(["sim", "html", "--seed", "3", "--to", str(file), "-o", "json"]) == EXIT_REFUSED
    drawn = json.loads(capsys.readouterr().out)
    assert explained["wrong"].startswith("durable before sent")
    assert explained["lines"][0] == f"n3 breaks {explained['wrong']}"
    assert drawn == {"file": str(file), "wrong": explained["wrong"], "events": explained["events"]}


def test_any_event_can_be_explained(capsys: Capture) -> None:
    assert main(["sim", "explain", "partition-leader", "--event", "40", "--limit", "5"]) == EXIT_OK
    told = capsys.readouterr().out
    assert len(re.findall(r"^#\d+ ", told, re.MULTILINE)) == 5
    assert re.search(r"^#40 ", told, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--seed", "3"], "this run broke no promise: name the number of an event"),
        (["--seed", "3", "--event", "1000000"], r"there is no event 1000000: this run has events 1 to \d+"),
        (["--seed", "3", "--profile", "tiny"], "--profile 'tiny' is not allowed; one of: short"),
        ([], "give a token"),
        (["rs1:damaged"], "this replay token is damaged"),
    ],
)
def test_a_mistake_is_named(capsys: Capture, arguments: list[str], why: str) -> None:
    assert main(["sim", "explain", *arguments]) == EXIT_USAGE
    assert re.search(why, capsys.readouterr().err)


def test_a_run_is_drawn(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "jobs.html"
    assert main(["sim", "html", "--seed", "3", "--profile", "jobs", "--to", str(file)]) == EXIT_OK
    assert re.fullmatch(rf"{re.escape(str(file))}: \d+ events\n", capsys.readouterr().out)
    page = file.read_text()
    assert "<h1>seed 3 of jobs</h1>" in page
    assert "keeps every promise" in page


def test_a_broken_run_is_drawn_and_refused(capsys: Capture, tmp_path: Path, hasty: None) -> None:
    del hasty
    file = tmp_path / "broken.html"
    assert main(["sim", "html", token_of(expand(3)), "--to", str(file)]) == EXIT_REFUSED
    assert "; breaks durable before sent" in capsys.readouterr().out
    assert "quorker sim replay" in file.read_text()


def test_a_page_that_cannot_be_written_is_a_mistake(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "no such folder" / "run.html"
    assert main(["sim", "html", "--seed", "3", "--to", str(file)]) == EXIT_USAGE
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
