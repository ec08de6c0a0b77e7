"""`quorker sim shrink` and `quorker sim check-determinism`: what they print, write and return."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quorker.app.cli import main
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, EXIT_USAGE
from quorker.core.raft.state import RaftState
from quorker.sim.cases.scenario import Outcome, load
from quorker.sim.runs.cluster import run_case

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that sends before its disk has written."""
    monkeypatch.setattr(RaftState, "hold", RaftState.send)


def test_a_failing_seed_becomes_a_small_scenario_that_fails_alike(
    capsys: Capture, tmp_path: Path, hasty: None
) -> None:
    del hasty
    file = tmp_path / "small.toml"
    assert main(["sim", "shrink", "--seed", "3", "--to", str(file)]) == EXIT_REFUSED
    told = capsys.readouterr().out
    assert "members, 0 operations" in told
    assert "breaks durable before sent" in told
    assert "quorker sim replay 'rs1:" in told
    scenario = load(file)
    assert (scenario.expect.outcome, scenario.expect.oracle) == (Outcome.VIOLATION, "durable before sent")
    violation = run_case(scenario.case).violation
    assert violation is not None
    assert violation.oracle == "durable before sent"


def test_programs_read_what_is_left(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    del hasty
    monkeypatch.chdir(tmp_path)
    assert main(["sim", "shrink", "--seed", "3", "-o", "json"]) == EXIT_REFUSED
    found = json.loads(capsys.readouterr().out)
    assert load(found["file"]).expect.oracle == "durable before sent"
    assert (found["faults"], found["operations"], found["oracle"]) == (0, 0, "durable before sent")


def test_only_what_fails_can_be_shrunk(capsys: Capture) -> None:
    assert main(["sim", "shrink", "--seed", "3"]) == EXIT_USAGE
    assert "only a run that fails can be shrunk" in capsys.readouterr().err


def test_equal_runs_everywhere_are_reported(capsys: Capture) -> None:
    assert main(["sim", "check-determinism", "--seed", "3", "-o", "json"]) == EXIT_OK
    found = json.loads(capsys.readouterr().out)
    assert found["differences"] == []
    assert found["cases"] == 1
    assert len(found["places"]) >= 3


def test_nothing_to_run_is_a_mistake(capsys: Capture) -> None:
    assert main(["sim", "check-determinism", "--seeds", "0"]) == EXIT_USAGE
    assert "give at least 1" in capsys.readouterr().err
