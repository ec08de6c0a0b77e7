"""Scenario files: what is wrong with one is said exactly, and what is right with one survives being written again."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from quorker.core.errors import InvalidInput
from quorker.sim.cases import scenario as module
from quorker.sim.cases.case import Case, FaultKind, JobsKnobs, OpKind
from quorker.sim.cases.expansion import PROFILES, Profile, expand
from quorker.sim.cases.scenario import (
    Expect,
    Outcome,
    Scenario,
    Seeds,
    dump,
    find,
    judge,
    load,
    parse,
    shipped,
    unreached,
)
from quorker.sim.cases.schema_text import written_into
from quorker.sim.oracles.checks import Violation
from quorker.sim.oracles.names import ORACLES
from quorker.sim.runs.cluster import run_case
from quorker.sim.world.kernel import MS, SECOND

ROOT = Path(__file__).resolve().parents[2]
FAULT = '[[plan]]\nat="1ms"\nfor="1ms"\n'
ASKED = '[jobs]\n[[ops]]\nat="1ms"\nkind="enqueue"\nnode=1\n'


def test_a_file_says_everything_about_a_run() -> None:
    scenario = parse(
        """
        name = "two faults"
        sometimes = ["fault isolate"]
        voters = 5
        chaos = "1.5s"
        network = { loss = 0.02, median = "250us" }
        clocks = [{ rate = -0.02 }, {}, {}, {}, { wall_offset = "-10m" }]
        [[plan]]
        at = "1s"
        kind = "split"
        for = "400ms"
        amount = [1, 2]
        [[plan]]
        at = "400ms"
        kind = "wall-jump"
        for = "0s"
        amount = "-30s"
        """
    )
    case = scenario.case
    assert (scenario.name, scenario.sometimes, case.voters, case.chaos_ns) == (
        "two faults",
        ("fault isolate",),
        5,
        1_500 * MS,
    )
    assert (case.network.loss_ppm, case.network.median_ns) == (20_000, 250_000)
    assert (case.clocks[0].rate_ppm, case.clocks[4].wall_offset_ms) == (-20_000, -600_000)
    assert [(fault.kind, fault.at_ns, fault.amount) for fault in case.plan] == [
        (FaultKind.WALL_JUMP, 400 * MS, -30_000),
        (FaultKind.SPLIT, SECOND, 0b110),
    ]


def test_a_repeated_item_stands_for_many_in_order_of_time() -> None:
    case = parse(
        """
        [[ops]]
        at = "100ms"
        every = "20ms"
        times = 3
        kind = "propose"
        node = 0
        [[ops]]
        at = "110ms"
        kind = "read"
        node = 2
        """
    ).case
    assert [(op.at_ns // MS, op.kind) for op in case.ops] == [
        (100, OpKind.PROPOSE),
        (110, OpKind.READ),
        (120, OpKind.PROPOSE),
        (140, OpKind.PROPOSE),
    ]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_any_seed_can_be_written_and_read_back(profile: Profile) -> None:
    for seed in range(20):
        scenario = Scenario(
            f"seed-{seed}",
            expand(seed, profile),
            'What "it" does:\nlines, \\ and \u00e9.\n',
            Seeds(seed, 3),
            Expect(Outcome.PASS, "liveness", "read-without-a-round"),
            ("fault crash",),
        )
        assert parse(dump(scenario)) == scenario


def test_a_store_with_default_knobs_is_not_forgotten() -> None:
    scenario = Scenario("plain", Case(seed=0, jobs=JobsKnobs()))
    assert parse(dump(scenario)).case.jobs == JobsKnobs()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("votters = 3", r"unknown key 'votters'; allowed: name, .*, voters, "),
        ('[network]\nloss = "2%"', r"network.loss: '2%' is no fraction; write a number such as 0.02"),
        ("[network]\nloss = 1.5", r"network.loss: 1.5 is no chance; write a fraction from 0 to 1"),
        ('[network]\nlatency = "slow"', r"network.latency: 'slow' is not allowed; one of: constant, expo"),
        ("[network]\nlosses = 1", r"network: unknown key 'losses'; allowed: latency, median, loss, "),
        ("chaos = 3", r"chaos: 3 is no duration; write a duration such as"),
        ('chaos = "0s"', r"chaos: it and the calm must be longer than nothing"),
        ("voters = 17", r"voters: 17 must be from 1 to 16"),
        ("voters = true", r"voters: True is no whole number"),
        ("spares = 99", r"spares: 99 must be from 0 to 13"),
        ("dead_in_calm = 2", r"dead_in_calm: 2 must leave a majority of 3"),
        ("voters = 2\nsteady = true", r"steady: needs 3 voters or more that stay the same"),
        ("dead_in_calm = 1\nsteady = true", r"steady: needs all members; leave dead_in_calm out"),
        ("steady = true\n[raft]\npre_vote = false", r"steady: needs raft.pre_vote and raft.check_quorum: without"),
        ("thorough = 1", r"thorough: 1 is not true or false"),
        ("clocks = [{}]", r"clocks: 1 clocks for 3 nodes; give each one, or none"),
        ("clocks = [{ rate = 0.2 }, {}, {}]", r"clocks\[0\].rate: must be within 0.09 of 0"),
        ("plan = 3", r"plan: 3 is no list"),
        ("[[plan]]", r"plan\[0\]: 'at' is missing"),
        ('[[plan]]\nat="1ms"\nfor="1ms"\nkind="crush"', r"plan\[0\].kind: 'crush' is not allowed; one of: crash, "),
        ('[[plan]]\nat="1ms"\nfor="1ms"\nkind="crash"\nnode=4', r"plan\[0\].node: 4 must be one of the nodes 1 to 3"),
        ('[[plan]]\nat="-1ms"\nfor="1ms"\nkind="crash"', r"plan\[0\].at: it and `for` must not be negative"),
        ('[[plan]]\nat="1ms"\nfor="1ms"\nkind="split"\namount=3', r"plan\[0\].amount: 3 is no group of nodes"),
        ('[[plan]]\nat="1ms"\nfor="1ms"\nkind="disk-slow"', r"plan\[0\].amount: 0 must be how many times slower"),
        ('[[plan]]\nat="1ms"\nfor="1ms"\nkind="clock-rate"\namount=0.5', r"plan\[0\].amount: must be within 0.09"),
        (FAULT + 'kind="clock-rate"\namount=0.9', r"plan\[0\].amount: must be within 0.09 of 0, and is 0.9"),
        ('[jobs]\n' + FAULT + 'kind="client-clock-rate"\namount=-0.9', r"plan\[0\].amount: must be within 0.09 of 0"),
        (FAULT + 'kind="file-rot"', r"plan\[0\].kind: file-rot strikes files only; add disk.files = true"),
        ('spares=1\ndisk={files=true}\n' + FAULT + 'kind="wipe"', r"plan\[0\].kind: wipe strikes no files where the"),
        (FAULT + 'kind="client-crash"', r"plan\[0\].kind: client-crash is about clients of a job store; add \[jobs\]"),
        (FAULT + 'kind="line-reset"', r"plan\[0\].kind: line-reset is about clients of a job store; add \[jobs\]"),
        ('[[plan]]\nat="2s"\nfor="1ms"\nkind="crash"', r"plan\[0\].at: 2s is after the chaos of 1s; strike earlier, or"),
        (FAULT + 'kind="crash"\npeer=2', r"plan\[0\].peer: only link and slow-pair have one; leave it out"),
        (FAULT + 'kind="link"\npeer=4', r"plan\[0\].peer: 4 must be one of the nodes 1 to 3"),
        (FAULT + 'kind="link"\npeer=1', r"plan\[0\].peer: 1 is the target itself; name another node"),
        (FAULT + 'kind="filter"\namount="Letter"', r"plan\[0\].amount: 'Letter' is no kind of message; one of: App"),
        (FAULT + 'kind="slow-node"\namount=3', r"plan\[0\].amount: 3 is no duration"),
        ("[jobs]\nmax_lost_deliveries = 0", r"jobs.max_lost_deliveries: 0 must be at least 1"),
        (ASKED + 'amount={queue="a"}', r'ops\[0\].amount: .* is not allowed: `queue` \("default", "other"; "default" if'),
        (ASKED + 'amount={prio=1}', r"ops\[0\].amount: .* has an unknown key 'prio'; allowed: unique, queue, "),
        (ASKED + 'amount="1"', r"ops\[0\].amount: '1' is no table of unique, queue, .*, and no number"),
        ('[[traps]]\npoint="voted"\nnth=0\nfor="1ms"', r"traps\[0\].nth: 0 must be at least 1"),
        ('[[ops]]\nat="1ms"\nkind="enqueue"\nnode=1', r"ops\[0\].kind: enqueue is for clients of a job store; add"),
        ('[[ops]]\nat="1ms"\nkind="read"\nnode=7', r"ops\[0\].node: 7 must be one of the nodes 1 to 3, or 0"),
        ('[jobs]\n[[ops]]\nat="1ms"\nkind="read"\nnode=1', r"ops\[0\].kind: read is for bare members; leave \[jobs\]"),
        ('[jobs]\n[[ops]]\nat="1ms"\nkind="enqueue"\nnode=9', r"ops\[0\].node: 9 must be one of the clients 1 to 3"),
        ('[[ops]]\nat="1ms"\nkind="read"\nnode=1\nevery="1ms"', r"ops\[0\].times: `every` and `times` go together"),
        ('[[ops]]\nat="1ms"\nkind="read"\nnode=1\nevery=1\ntimes=2', r"ops\[0\].every: 1, with an `at` of '1ms', is no"),
        ("[jobs]\nclients = 0", r"jobs.clients: 0 must be from 1 to 16"),
        ("[jobs]\nhoused = 4", r"jobs.housed: 4 must be at most the clients and the voters"),
        ('[raft]\nelection = "10ms"', r"raft.heartbeat: must be above zero and below raft.election"),
        ("[expect]\noutcome = 'maybe'", r"expect.outcome: 'maybe' is not allowed; one of: pass, violation"),
        ("[expect]\noutcome = 'violation'", r"expect: a violation needs the oracle that sees it"),
        ("[expect]\noracle = 'liveness'", r"expect: an oracle goes with outcome = \"violation\" or a mutant"),
        ("[expect]\nmutant = 'read-without-a-round'", r"expect: .* and a mutant with an oracle"),
        (
            "[expect]\noutcome = 'violation'\noracle = 'liveness'\nmutant = 'read-without-a-round'",
            r"expect: a mutant goes with outcome = \"pass\"",
        ),
        ("[expect]\noutcome = 'violation'\noracle = 'luck'", r"expect.oracle: 'luck' is not allowed; one of: elec"),
        ("[seeds]\ncount = 0", r"seeds.count: 0 must be from 1 to 10000"),
        ("sometimes = 'x'", r"sometimes: 'x' is no list"),
        ("name = ", r"this is no TOML: "),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_is_allowed(text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^f.toml[.:] ?{complaint}"):
        parse(text, "f.toml")


def test_a_file_is_found_by_path_or_by_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.toml"
    mine.write_text('name = "mine"')
    assert load("mine.toml").name == load(mine).name == "mine"
    assert load("partition-leader").name == load("partition-leader.toml").name == "partition-leader"
    with pytest.raises(InvalidInput, match=r"nowhere: no such file, and no shipped scenario of that name"):
        find("nowhere")


def test_an_installed_package_has_its_scenarios_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel puts them there; the source tree keeps them a level up. Whichever exists is used."""
    monkeypatch.chdir(tmp_path)
    folders = (tmp_path / "quorker/sim/scenarios", tmp_path / "none")
    folders[0].mkdir(parents=True)
    (folders[0] / "only-here.toml").write_text('name = "only-here"')
    monkeypatch.setattr(module, "SHIPPED", folders)
    assert [path.stem for path in shipped()] == ["only-here"]
    assert load("only-here").name == "only-here"


def test_the_wheel_is_told_where_the_scenarios_go() -> None:
    included = 'force-include]\n"sim/scenarios" = "quorker/sim/scenarios"\n'
    assert included in (ROOT / "pyproject.toml").read_text()
    assert module.SHIPPED[0].parts[-3:] == ("quorker", "sim", "scenarios")
    assert module.SHIPPED[1] == ROOT / "sim/scenarios"


def test_a_file_that_cannot_be_read_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(InvalidInput, match=r"bad.toml: 'utf-8' codec can't decode"):
        load(tmp_path / "bad.toml")


def test_a_run_is_held_to_what_is_expected() -> None:
    passing = Scenario("s", Case(seed=0, chaos_ns=200 * MS))
    report = run_case(passing.case)
    broken = replace(report, violation=Violation("liveness", "stuck"))
    failing = replace(passing, expect=Expect(Outcome.VIOLATION, "liveness"))
    other = replace(passing, expect=Expect(Outcome.VIOLATION, "one vote"))
    assert judge(passing, report) == judge(failing, broken) == ""
    assert judge(passing, broken) == "breaks liveness: stuck"
    assert judge(failing, report) == "breaks nothing, but was expected to break liveness"
    assert judge(other, broken) == "breaks liveness: stuck; expected was one vote"


def test_what_no_seed_reached_is_told() -> None:
    scenario = replace(load("partition-leader"), sometimes=("fault isolate", "fault crash"))
    assert unreached(scenario, [run_case(case) for case in scenario.cases()[:2]]) == ["fault crash"]


def test_the_document_tells_the_schema_of_today() -> None:
    """Write it anew with `python -m quorker.sim.cases.schema_text docs/scenarios.md`."""
    document = (ROOT / "docs/scenarios.md").read_text()
    assert written_into(document) == document


def test_the_example_of_the_document_is_a_scenario() -> None:
    example = (ROOT / "docs/scenarios.md").read_text().split("```toml\n")[1].split("```")[0]
    assert parse(example).name == "partition-leader"


def oracles_in(path: Path) -> set[str]:
    """The names of the violations that a file can raise: literals, constants of it, or chosen among its texts."""
    tree = ast.parse(path.read_text())
    constants = {
        node.target.id: node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    given = [
        call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Violation"
    ]
    named = [constants.get(name.id) if isinstance(name, ast.Name) else name for name in given]
    names = {str(name.value) for name in named if isinstance(name, ast.Constant)}
    if all(isinstance(name, ast.Constant) for name in named):
        return names
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    chosen = {oracle for oracle in ORACLES if oracle in texts}
    assert chosen, f"{path.name}: an oracle has a name"
    return names | chosen


def test_every_oracle_is_described_and_every_description_has_an_oracle() -> None:
    raised = {name for path in (ROOT / "sim/quorker/sim").rglob("*.py") for name in oracles_in(path)}
    assert raised == set(ORACLES)
