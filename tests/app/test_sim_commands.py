"""`quorker sim`: runs, replays and lists, with the exit codes of the other commands."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from quorker.app.cli import main
from quorker.app.cli.sim.program import VERBS
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, EXIT_USAGE
from quorker.core.raft.state import RaftState
from quorker.sim.oracles.names import ORACLES

Capture = pytest.CaptureFixture[str]
SMALL = 'chaos = "300ms"\n[[ops]]\nat = "150ms"\nkind = "propose"\nnode = 0\n'


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that sends before its disk has written."""
    monkeypatch.setattr(RaftState, "hold", RaftState.send)


def test_a_scenario_is_run_over_its_seeds(capsys: Capture) -> None:
    assert main(["sim", "run", "partition-leader"]) == EXIT_OK
    told = capsys.readouterr().out
    assert told.startswith("partition-leader\nThe leader is cut off ")
    assert len(re.findall(r"^ +\d  as expected +\d+ +\d+  [\d.]+s  [0-9a-f]{32}$", told, re.MULTILINE)) == 8
    assert re.search(r"^fault isolate +in 8 of 8 runs$", told, re.MULTILINE)


def test_a_scenario_is_run_with_a_bug_planted(capsys: Capture) -> None:
    assert main(["sim", "run", "stale-reads", "--mutant", "read-without-a-round"]) == EXIT_OK
    told = capsys.readouterr().out
    assert told.startswith("stale-reads with read-without-a-round: A leader answers without asking ")
    assert re.search(r"^seed 0: linearizable read: ", told, re.MULTILINE)
    blind = ["sim", "run", "partition-leader", "--seed", "0", "--mutant", "learners-may-lead"]
    assert main(blind) == EXIT_REFUSED
    missed = "overlooked: learners-may-lead must break leader is a voter or election safety; broken: nothing"
    assert missed in capsys.readouterr().out
    command = ["sim", "run", "stale-reads", "--seed", "0", "--mutant", "read-without-a-round", "-o", "json"]
    assert main(command) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["runs"][0]["oracle"] == "linearizable read"


def test_a_bug_that_nobody_knows_is_a_mistake(capsys: Capture) -> None:
    assert main(["sim", "run", "stale-reads", "--mutant", "moth"]) == EXIT_USAGE
    assert "--mutant: there is no planted bug 'moth'" in capsys.readouterr().err


def test_a_violation_prints_the_line_that_repeats_it(capsys: Capture, small: str, hasty: None) -> None:
    del hasty
    assert main(["sim", "run", small, "--seed", "4"]) == EXIT_REFUSED
    told = capsys.readouterr().out
    assert re.search(r"^seed 4 breaks durable before sent: n\d sends ", told, re.MULTILINE)
    found = re.search(r"^  quorker sim replay '(rs1:.+)'$", told, re.MULTILINE)
    assert found
    assert main(["sim", "replay", found[1]]) == EXIT_REFUSED
    assert found[0] in capsys.readouterr().out


def test_an_expected_violation_is_no_failure(capsys: Capture, small: str, hasty: None) -> None:
    del hasty
    path = Path(small)
    path.write_text(SMALL + '[expect]\noutcome = "violation"\noracle = "durable before sent"\n')
    assert main(["sim", "run", small]) == EXIT_OK
    assert "as expected" in capsys.readouterr().out


def test_a_scenario_that_misses_its_point_fails(capsys: Capture, small: str) -> None:
    Path(small).write_text('sometimes = ["fault crash"]\n' + SMALL)
    assert main(["sim", "run", small]) == EXIT_REFUSED
    assert "never reached, though the scenario is for it: fault crash\n" in capsys.readouterr().out
    assert main(["sim", "run", small, "--seed", "1"]) == EXIT_OK  # one seed need not reach everything


def test_runs_for_programs(capsys: Capture, small: str) -> None:
    assert main(["sim", "run", small, "-o", "json"]) == EXIT_OK
    document = json.loads(capsys.readouterr().out)
    assert document["scenario"] == "small"
    (row,) = document["runs"]
    assert (row["seed"], row["wrong"], row["replay"]) == (0, "", "")
    assert row["committed"] >= 2
    assert main(["sim", "replay", "--seed", "3", "--trace", "-o", "json"]) == EXIT_OK
    told = capsys.readouterr()
    assert json.loads(told.out)["seed"] == 3
    assert told.err.count("\n") > 20, "the story goes where it is in no program's way"


def test_a_violation_for_programs(capsys: Capture, small: str, hasty: None) -> None:
    del hasty
    assert main(["sim", "run", small, "-o", "json"]) == EXIT_REFUSED
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert row["oracle"] == "durable before sent"
    assert row["replay"].startswith("quorker sim replay 'rs1:")


def test_a_seed_of_a_campaign_is_told(capsys: Capture) -> None:
    assert main(["sim", "replay", "--seed", "1", "--profile", "short", "--trace"]) == EXIT_OK
    told = capsys.readouterr().out
    assert "becomes leader in term" in told
    assert "all faults end" in told


def test_a_core_that_raises_is_shown_with_its_traceback(
    capsys: Capture, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*_: object) -> None:
        raise AssertionError("burst")

    monkeypatch.setattr(RaftState, "commit_to", burst)
    assert main(["sim", "run", small]) == EXIT_REFUSED
    told = capsys.readouterr().out
    assert "breaks exception: AssertionError: burst" in told
    assert "Traceback" in told


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("run nowhere", "nowhere: no such file, and no shipped scenario"),
        ("replay", "give either a token"),
        ("replay rs1:x --seed 3", "give either a token"),
        ("replay hello", "'hello' is no replay token: one begins with rs1:"),
        ("replay --seed 3 --profile huge", "--profile 'huge' is not allowed; one of: "),
        ("replay --seed three", "Invalid value for --seed: unable to convert"),
        ("dance", 'Unknown command "dance"'),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys: Capture, line: str, complaint: str) -> None:
    assert main(["sim", *line.split()]) == EXIT_USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("quorker: ")
    assert complaint in told.err
    assert told.err.count("\n") == 1


def test_what_there_is_is_listed(capsys: Capture) -> None:
    assert main(["sim", "ls"]) == EXIT_OK
    told = capsys.readouterr().out
    for word in ("partition-leader", "power-cut", "short, churn, long, jobs", "persist-issued", *ORACLES):
        assert word in told
    assert main(["sim", "ls", "-o", "json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["oracles"] == ORACLES


def test_every_verb_explains_itself(capsys: Capture) -> None:
    assert main(["sim", "--help"]) == EXIT_OK
    told = capsys.readouterr().out
    for verb in VERBS:
        assert f" {verb.__name__.replace('_', '-')} " in told


def test_without_its_extra_the_group_says_how_to_get_it(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cyclopts import App as Program

    from quorker.app.cli import sim
    from quorker.app.cli.program import exit_code_of

    find = importlib.util.find_spec

    def find_all_but_simpy(name: str) -> object:
        return None if name == "simpy" else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_all_but_simpy)
    program = Program(name="quorker", result_action="return_value")
    sim.register(program)
    code = exit_code_of(lambda: program(["sim", "run", "x", "--seed", "3"], exit_on_error=False))
    assert code == EXIT_USAGE
    assert capsys.readouterr().err == 'quorker: the simulator needs an extra: pip install "quorker[sim]"\n'
