"""The command: campaigns, replays, and what they say when a promise is broken."""

from __future__ import annotations

import pytest

from quorker.core.raft.state import RaftState
from quorker.sim import fuzz


def test_a_clean_campaign_tells_its_speed(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--seeds", "3", "--start", "7"]) == 0
    assert capsys.readouterr().out.startswith("3 runs, ")


def test_a_failing_campaign_prints_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RaftState, "hold", RaftState.send)
    assert fuzz.main(["--seeds", "50"]) == 1
    told = capsys.readouterr().out
    assert "breaks durable before sent: " in told
    command = next(line for line in told.splitlines() if "python -m quorker.sim.fuzz" in line)
    assert fuzz.main([*command.split()[3:-1]]) == 1
    assert "breaks durable before sent: " in capsys.readouterr().out


def test_a_replay_tells_the_story(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--seed", "1", "--trace"]) == 0
    told = capsys.readouterr().out
    assert "becomes leader in term" in told
    assert "all faults end" in told
    assert "digest" in told


def test_a_core_that_raises_is_reported_with_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*_: object) -> None:
        raise AssertionError("burst")

    monkeypatch.setattr(RaftState, "commit_to", burst)
    assert fuzz.main(["--seeds", "20"]) == 1
    told = capsys.readouterr().out
    assert "breaks exception: AssertionError: burst" in told
    assert "Traceback" in told
