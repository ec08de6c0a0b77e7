"""The demo: its judgement can fail, its ledger tells what ran, and a small run of it keeps every promise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quorker.app.cli import main
from quorker.app.demo.ledger import Ending, Execution, Ledger, read_ledger
from quorker.app.demo.verdict import Kill, judge, table_lines
from quorker.core.errors import EXIT_OK


def record(state: str, *tokens: int) -> dict[str, Any]:
    """A job of this state, completed under each of these tokens."""
    history = [{"name": "Succeeded", "data": {"token": token}} for token in tokens]
    return {"state": state, "history": [*history, {"name": "Enqueued", "data": {}}]}


def run(
    fence: int, *, node: int = 1, at: float = 0.0, attempt: int = 1, ending: Ending = "finished"
) -> Execution:
    return Execution("J", fence, attempt, node, at, at + 1 if ending else 0.0, ending)


def verdict_of(
    found: dict[str, Any] | None, runs: list[Execution], *kills: Kill
) -> tuple[int, int, int, int, bool]:
    """(succeeded, lost, stuck, completed twice, is it good) of one job."""
    judged = judge(["J"], {"J": found}, runs, kills)
    return judged.succeeded, judged.lost, judged.stuck, judged.completed_twice, judged.is_good


def test_a_job_that_ran_once_is_good() -> None:
    assert verdict_of(record("Succeeded", 5), [run(5)]) == (1, 0, 0, 0, True)


def test_a_job_that_the_store_forgot_is_lost() -> None:
    assert verdict_of(None, [run(5)]) == (0, 1, 0, 0, False)


def test_a_success_without_a_finished_run_is_lost() -> None:
    assert verdict_of(record("Succeeded", 5), []) == (1, 1, 0, 0, False)
    assert verdict_of(record("Succeeded", 5), [run(5, ending="")]) == (1, 1, 0, 0, False)
    assert verdict_of(record("Succeeded", 6), [run(5)]) == (1, 1, 0, 0, False)


@pytest.mark.parametrize("state", ["Enqueued", "Scheduled", "Processing", "Awaiting"])
def test_a_job_that_did_not_end_is_stuck(state: str) -> None:
    assert verdict_of(record(state), []) == (0, 0, 1, 0, False)


def test_a_job_that_failed_is_not_good() -> None:
    assert verdict_of(record("Failed"), []) == (0, 0, 0, 0, False)


def test_two_accepted_completions_are_seen() -> None:
    assert verdict_of(record("Succeeded", 5, 9), [run(5), run(9)]) == (1, 0, 0, 1, False)


def repeats(runs: list[Execution], *kills: Kill) -> dict[str, int]:
    return judge(["J"], {"J": record("Succeeded", runs[-1].fence)}, runs, kills).repeats


def test_repeats_are_explained() -> None:
    killed = run(5, node=2, at=10, ending="")
    assert repeats([killed, run(9, at=12)], Kill(2, 11)) == {"node 2 was killed while they ran": 1}
    unheard = run(5, node=2, at=10)
    assert repeats([unheard, run(9, at=12)], Kill(2, 11)) == {
        "node 2 was killed after they ran, before a majority knew": 1
    }
    assert repeats([run(5, ending="stopped"), run(9, at=2)]) == {
        "given back by node 1, which lost touch with the cluster": 1
    }
    assert repeats([killed, run(9, at=12)], Kill(2, 3), Kill(1, 11)) == {
        "taken away from node 2 for no reason seen": 1
    }


def test_a_retry_after_a_failure_is_no_repeat() -> None:
    judged = judge(["J"], {"J": record("Succeeded", 9)}, [run(5, ending="failed"), run(9, attempt=2)], [])
    assert (judged.retried, judged.repeated, judged.repeats) == (1, 0, {})


def test_the_table_shows_every_count() -> None:
    runs = [run(5, node=2, at=10, ending=""), run(9, at=12)]
    lines = table_lines(judge(["J"], {"J": record("Succeeded", 9)}, runs, [Kill(2, 11)]))
    shown = {name.strip(): int(count) for name, count in (line.rsplit(maxsplit=1) for line in lines)}
    assert shown == {
        "acknowledged": 1,
        "succeeded": 1,
        "failed and retried, as asked": 0,
        "executed more than once": 1,
        "node 2 was killed while they ran": 1,
        "lost": 0,
        "stuck": 0,
        "completed twice": 0,
    }


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    fence: int
    attempt: int


def test_the_ledger_tells_what_ran_and_how_it_ended(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), 3)
    with ledger.execution(Job("A", 1, 1)):
        pass
    with pytest.raises(ValueError, match="x"), ledger.execution(Job("A", 2, 2)):
        raise ValueError("x")
    with pytest.raises(KeyboardInterrupt), ledger.execution(Job("B", 3, 1)):
        raise KeyboardInterrupt
    open_ended = ledger.execution(Job("C", 4, 1))
    open_ended.__enter__()
    found = [(run.job_id, run.fence, run.attempt, run.node, run.ending) for run in read_ledger(tmp_path)]
    assert found == [
        ("A", 1, 1, 3, "finished"),
        ("A", 2, 2, 3, "failed"),
        ("B", 3, 1, 3, "stopped"),
        ("C", 4, 1, 3, ""),
    ]


def test_a_small_demo_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Three real members; a leader is killed, then all of them, each in the middle of jobs."""
    code = main(["demo", "--jobs", "200", "--kills", "1"])
    out, err = capsys.readouterr()
    assert code == EXIT_OK, out + err
    assert (
        len(re.findall(r"the leader, is killed with SIGKILL; [1-9]\d* jobs? ran there at that moment", out))
        == 1
    )
    assert re.search(
        r"all members are killed at once; .*, [1-9]\d* jobs? ran at that moment$", out, re.MULTILINE
    )
    for name, count in (
        ("acknowledged", 200),
        ("succeeded", 200),
        ("lost", 0),
        ("stuck", 0),
        ("completed twice", 0),
    ):
        assert re.search(rf"^  {name} +{count}$", out, re.MULTILINE), out
    assert out.endswith("nothing was lost, stuck or completed twice\n")
