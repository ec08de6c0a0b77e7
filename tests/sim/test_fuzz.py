"""Campaigns: every seed once, in any number of processes, with interruptions, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from quorker.core.errors import InvalidInput
from quorker.core.raft.state import RaftState
from quorker.jepsen_like.commands import COMMAND
from quorker.sim.campaign.fuzz import Batch, Campaign, Chunk, Failure, Plan, Totals, chunks_of, run_chunk
from quorker.sim.campaign.state import load_state, save_state, write_failure
from quorker.sim.cases.expansion import SHORT, expand
from quorker.sim.cases.scenario import judge, load
from quorker.sim.runs.cluster import run_case


def untold(_: Totals, __: Batch) -> None:
    pass


def campaign(plan: Plan, totals: Totals | None = None) -> Totals:
    totals = Totals() if totals is None else totals
    Campaign(plan, totals, untold).run()
    return totals


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that sends before its disk has written."""
    monkeypatch.setattr(RaftState, "hold", RaftState.send)


def seeds_of(chunks: list[Chunk]) -> list[tuple[str, int]]:
    return [
        (chunk.profile, seed) for chunk in chunks for seed in range(chunk.first, chunk.first + chunk.count)
    ]


def test_chunks_cover_every_seed_once_and_take_the_profiles_in_turn() -> None:
    chunks = list(chunks_of(Plan(("short", "jobs"), 120, start=7), set()))
    seeds = seeds_of(chunks)
    assert sorted(seeds) == sorted((name, seed) for name in ("short", "jobs") for seed in range(7, 127))
    assert [chunk.profile for chunk in chunks[:4]] == ["short", "jobs", "short", "jobs"]


def test_what_is_done_is_not_done_again() -> None:
    plan = Plan(("short",), 120)
    first, *rest = chunks_of(plan, set())
    assert list(chunks_of(plan, {first})) == rest


def test_a_campaign_without_an_end_goes_on() -> None:
    chunks = chunks_of(Plan(("short",), None), set())
    assert [next(chunks).first for _ in range(3)] == [0, 50, 100]


def test_a_clean_campaign_counts_its_runs() -> None:
    totals = campaign(Plan(("short", "long"), 3, start=40))
    assert totals.runs == 6
    assert totals.failures == []
    assert totals.events > 1_000
    assert totals.sometimes["older entry committed by a newer term"] > 0


def test_two_processes_find_what_one_does() -> None:
    plan = Plan(("short",), 60, start=100)
    alone, together = campaign(plan), campaign(Plan(("short",), 60, start=100, jobs=2))
    assert (alone.runs, alone.events, alone.true_ns) == (together.runs, together.events, together.true_ns)
    assert alone.sometimes == together.sometimes


def test_a_campaign_stops_at_the_first_failure_unless_it_is_to_go_on(hasty: None) -> None:
    del hasty
    short = campaign(Plan(("short",), 20))
    (failure,) = short.failures
    assert (failure.oracle, failure.raised) == ("durable before sent", "")
    assert short.runs == failure.seed + 1
    assert short.done == []  # the rest of that chunk is still to do
    full = campaign(Plan(("short",), 20, keep_going=True), short)
    assert len(full.failures) > 10
    assert full.failures[0] == failure
    assert len({each.seed for each in full.failures}) == len(full.failures)


def test_a_core_that_raises_leaves_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(*_: object) -> None:
        raise AssertionError("burst")

    monkeypatch.setattr(RaftState, "commit_to", burst)
    (failure,) = run_chunk(Chunk("short", 0, 20)).failures
    assert failure.oracle == "exception"
    assert "AssertionError: burst" in failure.raised
    assert "Traceback" in failure.raised


def test_a_chunk_ends_when_it_is_stopped() -> None:
    asked: list[None] = []

    def after_three() -> bool:
        asked.append(None)
        return len(asked) > 3

    batch = run_chunk(Chunk("short", 0, 20), is_stopped=after_three)
    assert batch.runs == 3
    totals = Totals()
    totals.add(batch)
    assert totals.done == []


def test_a_campaign_ends_when_its_time_is_over() -> None:
    for jobs in (1, 2):
        totals = campaign(Plan(("short",), None, seconds=0.0, jobs=jobs))
        assert totals.runs == 0
    totals = campaign(Plan(("short",), None, seconds=0.5, jobs=2))
    assert totals.runs == sum(chunk.count for chunk in totals.done)


def test_a_state_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    totals = campaign(Plan(("short",), 4))
    totals.failures.append(Failure("short", 3, "liveness", "stuck"))
    save_state(path, totals)
    assert load_state(path) == totals
    assert load_state(tmp_path / "none.json") == Totals()
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


def test_a_state_of_other_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    save_state(path, Totals())
    monkeypatch.setattr("quorker.sim.campaign.state.code_hash", lambda: "000000000000")
    with pytest.raises(InvalidInput, match=r"state.json: the sources have changed since"):
        load_state(path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 2}', '{"version": 1, "sources": "x"}'])
def test_what_is_no_state_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=r"state.json: this is no state of a campaign"):
        load_state(path)


def test_a_failure_becomes_a_scenario_that_is_wrong_until_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RaftState, "hold", RaftState.send)
        (failure,) = run_chunk(Chunk("short", 0, 20)).failures
        scenario = load(write_failure(tmp_path / "failures", failure))
        assert scenario.case == expand(failure.seed, SHORT)
        assert judge(scenario, run_case(scenario.case)).startswith("breaks durable before sent: ")
    assert judge(scenario, run_case(scenario.case)) == ""
    assert f"quorker sim replay --seed {failure.seed} --profile short" in scenario.description


@pytest.mark.skipif(os.name == "nt", reason="a console of Windows has no such signal")
def test_an_interrupted_campaign_keeps_what_it_has_done_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group of processes, as from a terminal."""
    state = tmp_path / "state.json"
    line = ["sim", "fuzz", "--time", "5m", "--jobs", "2", "--state", str(state), "-o", "json"]
    process = subprocess.Popen(
        [*COMMAND, *line],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        while not state.exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert json.loads(out)["runs"] == load_state(state).runs > 0
    assert "Traceback" not in err


def test_an_interruption_while_a_part_is_counted_waits_until_it_is_told() -> None:
    """Else the totals would say more than the state that they are to go on from."""
    told: list[int] = []

    def interrupted(totals: Totals, _: Batch) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        told.append(totals.runs)

    with pytest.raises(KeyboardInterrupt):
        Campaign(Plan(("short",), 100), Totals(), interrupted).run()
    assert told == [50]
