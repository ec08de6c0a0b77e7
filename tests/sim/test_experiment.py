"""Looking into a run: an instant is reached exactly, what is wrong is raised with its replay, tables are plain."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import quorker.sim
from quorker.core.errors import InvalidInput
from quorker.core.jobs.store import JobStore
from quorker.core.raft.state import RaftState
from quorker.sim import run
from quorker.sim.cases.case import Case, Fault, FaultKind, Op, OpKind, Target
from quorker.sim.cases.expansion import JOBS, expand
from quorker.sim.cases.replay import case_of
from quorker.sim.cases.scenario import Expect, Outcome, Scenario, load
from quorker.sim.experiments.experiment import DOWN
from quorker.sim.oracles.checks import Violation
from quorker.sim.stories.story import Kind
from quorker.sim.world.kernel import MS

CASE = Case(
    seed=5,
    chaos_ns=600 * MS,
    plan=(Fault(300 * MS, FaultKind.CRASH, 200 * MS, Target.LEADER),),
    ops=tuple(Op(at * MS, OpKind.PROPOSE, 0) for at in range(150, 600, 10)),
)


def test_a_shipped_scenario_is_run_by_its_bare_name() -> None:
    r = run("partition-leader.toml", seed=2).check()
    assert r.case.seed == 2
    assert r.sometimes["fault isolate"] == 1
    assert repr(r) == "<Run of partition-leader, seed 2: as expected>"


def test_a_file_a_scenario_and_a_case_are_run_alike(tmp_path: Path) -> None:
    scenario = load("partition-leader")
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nchaos = "200ms"\n')
    assert run(path).scenario.name == "mine"
    assert (
        run(scenario).report.digest
        == run(scenario.case).report.digest
        == run("partition-leader").report.digest
    )


def test_an_instant_shows_the_members_as_they_stand() -> None:
    r = run(CASE)
    before, during, after = r.at("299ms"), r.at("300ms"), r.at("590ms")
    leader = before.leader
    assert leader is not None
    assert leader.role == "leader"
    assert leader.term >= 1
    assert leader.commit_index <= leader.last_index
    assert [row.index for row in leader.log] == list(range(leader.log[0].index, leader.last_index + 1))
    assert during.node(leader.id).role == DOWN
    assert during.node(leader.id).term == leader.term  # its disk remembers
    assert after.leader is not None
    assert after.leader.term > leader.term
    assert after.commit_index > before.commit_index
    assert (before.at_ns, before.is_over) == (299 * MS, False)


def test_the_same_instant_is_the_same_world() -> None:
    r = run(CASE)
    first, second = r.at("450ms"), r.at(450 * MS)
    assert first.table() == second.table()
    assert [node.log for node in first.nodes] == [node.log for node in second.nodes]
    assert [node.store for node in first.nodes] == [node.store for node in second.nodes]


def test_looking_changes_nothing_of_what_comes_after() -> None:
    """What stands at an instant is what the story of the whole run says about it."""
    r = run(CASE)
    elected = [event for event in r.events if event.kind is Kind.ROLE and event.details["role"] == "leader"]
    assert len(elected) >= 2
    for event in elected:
        leader = r.at(event.at_ns).leader
        assert leader is not None
        assert (f"n{leader.id}", leader.term) == (event.lane, event.details["term"])


def test_the_end_is_the_last_instant() -> None:
    r = run(CASE)
    end = r.at("1h")
    assert end.is_over
    assert end.at_ns == r.report.true_ns
    assert end.ended_by is None
    assert {node.role for node in end.nodes} == {DOWN}  # the power is cut to scan the disks


def test_a_store_can_be_looked_into() -> None:
    r = run(expand(3, JOBS))
    node = r.at("1s").leader or r.at("1s").node(1)
    assert isinstance(node.store, JobStore)
    assert node.store.applied_index == node.applied_index


def test_a_run_that_broke_a_promise_is_raised_with_the_line_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RaftState, "hold", RaftState.send)
    r = run(CASE)
    for _ in range(2):
        with pytest.raises(Violation, match=r"durable before sent") as raised:
            r.check()
        assert len(raised.value.__notes__) == 1
    found = re.fullmatch(r"repeat it: quorker sim replay '(rs1:.+)'", f"repeat it: {r.replay}")
    assert r.violation
    assert r.violation.__notes__ == [f"repeat it: {r.replay}"]
    assert found
    assert case_of(found[1])[0] == r.case
    end = r.at("10s")
    assert end.is_over
    assert isinstance(end.ended_by, Violation)
    assert "breaks durable before sent" in repr(r)
    expected = Scenario("s", CASE, expect=Expect(Outcome.VIOLATION, "durable before sent"))
    run(expected).check()


def test_a_violation_that_stays_away_is_raised_too() -> None:
    scenario = Scenario("s", replace(CASE, plan=()), expect=Expect(Outcome.VIOLATION, "liveness"))
    with pytest.raises(
        AssertionError, match=r"s, seed 5, breaks nothing, but was expected to break liveness"
    ):
        run(scenario).check()


def test_tables_are_plain_rows() -> None:
    r = run(CASE)
    rows = r.table("crash", Kind.START)
    assert {row["kind"] for row in rows} == {"crash", "start"}
    assert rows[0]["at_ms"] == rows[0]["at_ns"] / 1e6
    assert len(r.table()) == len(r.events)
    assert json.dumps(rows)
    assert json.dumps(r.at("400ms").table())


@pytest.mark.parametrize("instant", ["soon", "5", "-1s"])
def test_what_is_no_instant_is_refused(instant: str) -> None:
    with pytest.raises(InvalidInput, match=r"is no duration|is before the start"):
        run(CASE).at(instant)


def test_a_node_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"node 9: this cluster has nodes 1 to 3"):
        run(CASE).at("100ms").node(9)
    with pytest.raises(ValueError, match=r"'nonsense' is not a valid Kind"):
        run(CASE).table("nonsense")


def test_the_package_loads_nothing_before_it_is_asked() -> None:
    script = (
        "import sys, quorker.sim; assert 'simpy' not in sys.modules; from quorker.sim import run, Run, Moment"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match=r"has no attribute 'walk'"):
        getattr(quorker.sim, "walk")  # noqa: B009  # the name is not there, so no checker lets us write it
