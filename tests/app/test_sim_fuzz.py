"""`quorker sim fuzz`: what it prints, what it leaves behind, and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from quorker.app.cli import main
from quorker.app.cli.sim.fuzz import Progress
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, EXIT_USAGE
from quorker.core.raft.state import RaftState
from quorker.sim.campaign.fuzz import Batch, Campaign, Chunk, Plan, Totals, run_chunk

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that sends before its disk has written."""
    monkeypatch.setattr(RaftState, "hold", RaftState.send)


def test_a_clean_campaign_tells_its_speed_and_what_it_came_to(capsys: Capture, elsewhere: Path) -> None:
    assert main(["sim", "fuzz", "--jobs", "1", "--seeds", "5", "--start", "7"]) == EXIT_OK
    told = capsys.readouterr().out
    assert re.match(r"5 runs, \d+ events, \d+s simulated: [\d.]+ runs/s, [\d,]+ events/s per core\n", told)
    assert re.search(r"^duplicate of AppendEntries +in \d runs$", told, re.MULTILINE)
    assert list(elsewhere.iterdir()) == []


def test_a_failing_campaign_prints_the_lines_that_repeat_it(
    capsys: Capture, elsewhere: Path, hasty: None
) -> None:
    del hasty
    assert main(["sim", "fuzz", "--jobs", "1", "--seeds", "50"]) == EXIT_REFUSED
    told = capsys.readouterr().out
    assert re.search(r"^short seed \d+ breaks durable before sent: ", told, re.MULTILINE)
    by_seed = re.search(r"^  quorker sim (replay --seed \d+ --profile short) --trace$", told, re.MULTILINE)
    by_token = re.search(r"^  quorker sim replay '(rs1:.+)'$", told, re.MULTILINE)
    assert by_seed
    assert by_token
    (written,) = (elsewhere / "failures").iterdir()
    assert f"written: failures/{written.name}\n" in told
    for line in (["sim", *by_seed[1].split()], ["sim", "replay", by_token[1]], ["sim", "run", str(written)]):
        assert main(line) == EXIT_REFUSED
        assert "breaks durable before sent: " in capsys.readouterr().out


def test_a_campaign_for_programs(capsys: Capture, hasty: None) -> None:
    del hasty
    assert main(["sim", "fuzz", "--jobs", "1", "--seeds", "5", "--keep-going", "-o", "json"]) == EXIT_REFUSED
    document = json.loads(capsys.readouterr().out)
    assert document["runs"] == 5
    assert document["profiles"] == ["short"]
    assert len(document["failures"]) > 1
    assert document["failures"][0]["replay"].startswith("quorker sim replay 'rs1:")


def test_missing_coverage_fails_only_where_it_is_required(capsys: Capture) -> None:
    assert main(["sim", "fuzz", "--jobs", "1", "--seeds", "2"]) == EXIT_OK
    assert (
        "never came up: fsync failed: a disk fails an fsync, and the process ends\n"
        in capsys.readouterr().out
    )
    assert main(["sim", "fuzz", "--jobs", "1", "--seeds", "2", "--require-coverage"]) == EXIT_REFUSED


def test_a_campaign_goes_on_from_its_state(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["sim", "fuzz", "--jobs", "1", "--state", "night.json"]
    assert main([*line, "--seeds", "50"]) == EXIT_OK
    assert capsys.readouterr().out.startswith("50 runs, ")
    chunks: list[Chunk] = []

    def run_and_count(chunk: Chunk, *, keep_going: bool) -> Batch:
        chunks.append(chunk)
        return run_chunk(chunk, keep_going=keep_going)

    monkeypatch.setattr("quorker.sim.campaign.fuzz.run_chunk", run_and_count)
    assert main([*line, "--seeds", "60"]) == EXIT_OK
    assert capsys.readouterr().out.startswith("60 runs, ")
    assert chunks == [Chunk("short", 50, 10)]


def test_an_interruption_keeps_what_was_done(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Campaign) -> None:
        self.totals.runs = 3
        raise KeyboardInterrupt

    monkeypatch.setattr(Campaign, "run", interrupted)
    assert main(["sim", "fuzz"]) == 130
    assert capsys.readouterr().out.startswith("3 runs, ")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--profile short,huge", "--profile 'huge' is not allowed; one or more of: short,churn,long,jobs"),
        ("--seeds 0", "--seeds 0: must be at least 1"),
        ("--start -3", "--start -3: must be at least 0"),
        ("--jobs -1", "--jobs -1: must be at least 0"),
        ("--jobs 1000", "--jobs 1000: at most 256"),
        ("--time soon", "'soon' is no duration: write 90, 90s, 250ms, 10m, 2h or 1d"),
    ],
)
def test_a_mistake_is_one_line(capsys: Capture, line: str, complaint: str) -> None:
    assert main(["sim", "fuzz", *line.split()]) == EXIT_USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert complaint in told.err
    assert told.err.count("\n") == 1


def progress(monkeypatch: pytest.MonkeyPatch, times: list[float], *, is_terminal: bool) -> list[str]:
    """What is said of a campaign of 100 runs that is looked at at these seconds."""
    clock = iter([0.0, *times])
    monkeypatch.setattr("quorker.app.cli.sim.fuzz.time.monotonic", lambda: next(clock))
    said: list[str] = []
    shown = Progress(is_terminal, Plan(("short",), 100), 0, said.append)
    for _ in times:
        shown.show(Totals(runs=30))
    shown.end()
    return said


def test_progress_draws_over_itself_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "\r30 of 100 runs, 30 runs/s, 0 violations\x1b[K"
    assert progress(monkeypatch, [0.1, 1.0, 1.1], is_terminal=True) == [line, "\r\x1b[K"]


def test_progress_is_a_line_now_and_then_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    said = progress(monkeypatch, [1.0, 15.0, 16.0, 30.0], is_terminal=False)
    assert said == ["30 of 100 runs, 2 runs/s, 0 violations\n", "30 of 100 runs, 1 runs/s, 0 violations\n"]
