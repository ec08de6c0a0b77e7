"""Scenarios: a case with a name, a text for people and an expectation, in a TOML file.

A file is checked completely before anything runs, and every complaint names the file, the key and what is allowed.
Which keys there are is for `case_data` and `case_limits`; running is for `experiment`.
"""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

import tomli_w

from quorker.core.errors import InvalidInput
from quorker.sim.cases.case import Case
from quorker.sim.cases.data import Table, from_table, slots_of, to_table
from quorker.sim.cases.limits import check_case
from quorker.sim.cases.units import BadValue, duration_ns, duration_text, is_list
from quorker.sim.oracles.names import ORACLES
from quorker.sim.runs.cluster import Report

SUFFIX: Final = ".toml"
REPEATED: Final = ("plan", "ops")
REPEATS_MAX: Final = 10_000
SHIPPED: Final = (
    Path(__file__).parents[1] / "scenarios",  # in an installed package
    Path(__file__).parents[3] / "scenarios",  # in the source tree
)


class Outcome(StrEnum):
    PASS = "pass"
    VIOLATION = "violation"


@dataclass(frozen=True, slots=True)
class Expect:
    """How a run ends. `oracle`: which promise breaks, always or, if `mutant` names a planted bug, under that: then at least
    one of the seeds must show it, while all of them end as `outcome` says without it."""

    outcome: Outcome = Outcome.PASS
    oracle: str = ""
    mutant: str = ""


@dataclass(frozen=True, slots=True)
class Seeds:
    """The seeds that the scenario is run with: so many, from `first`."""

    first: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """`sometimes`: what at least one of the seeds must reach."""

    name: str
    case: Case
    description: str = ""
    seeds: Seeds = field(default_factory=Seeds)
    expect: Expect = field(default_factory=Expect)
    sometimes: tuple[str, ...] = ()

    def cases(self) -> list[Case]:
        """One case for each seed."""
        first, count = self.seeds.first, self.seeds.count
        return [replace(self.case, seed=seed) for seed in range(first, first + count)]


def find(name: str | Path) -> Path:
    """The file of that path, or the shipped scenario of that bare name. Raises `InvalidInput`."""
    path = Path(name)
    if path.exists():
        return path
    for folder in SHIPPED:
        shipped = folder / path.with_suffix(SUFFIX).name
        if path.parent == Path() and shipped.exists():
            return shipped
    raise InvalidInput(f"{name}: no such file, and no shipped scenario of that name; see `quorker sim ls`")


def shipped() -> list[Path]:
    """The files that come with the simulator, by name."""
    return sorted(
        {path.name: path for folder in reversed(SHIPPED) for path in folder.glob("*.toml")}.values()
    )


def load(name: str | Path) -> Scenario:
    """Read a scenario file, or a shipped scenario by its bare name. Raises `InvalidInput`."""
    path = find(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: {error}") from None
    return parse(text, str(path), path.stem)


def parse(text: str, where: str = "scenario", name: str = "unnamed") -> Scenario:
    """The scenario in a text. `where` begins every complaint, `name` is used if the text has none."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{where}: this is no TOML: {error}") from None
    heading, body = _split(table, where)
    for key in REPEATED:
        if key in body:
            body[key] = _repeated(body[key], f"{where}.{key}")
    case = from_table(Case, {"seed": 0, **body}, where)
    scenario: Scenario = from_table(_Heading, {"name": name, **heading}, where).around(case)
    check_case(case, where)
    _check(scenario, where)
    return scenario


def dump(scenario: Scenario) -> str:
    """The text of a file that gives this scenario back."""
    heading = _Heading(
        scenario.name, scenario.description, scenario.sometimes, scenario.seeds, scenario.expect
    )
    table = {**to_table(heading), **to_table(scenario.case)}
    return tomli_w.dumps(dict(sorted(table.items(), key=_shape)), multiline_strings=True)


def _shape(item: tuple[str, Any]) -> int:
    """Simple values come first in TOML, then tables, then lists of tables."""
    value = item[1]
    if isinstance(value, dict):
        return 1
    return 2 if isinstance(value, list) and item[0] not in ("sometimes",) else 0


@dataclass(frozen=True, slots=True)
class _Heading:
    """What a scenario has beside its case, in the order of a file."""

    name: str
    description: str = ""
    sometimes: tuple[str, ...] = ()
    seeds: Seeds = field(default_factory=Seeds)
    expect: Expect = field(default_factory=Expect)

    def around(self, case: Case) -> Scenario:
        return Scenario(self.name, case, self.description, self.seeds, self.expect, self.sometimes)


def heading_keys() -> list[str]:
    """The keys of a file that are not of the case."""
    return [slot.key for slot in slots_of(_Heading)]


def _split(table: Table, where: str) -> tuple[Table, Table]:
    of_heading = heading_keys()
    of_case = [slot.key for slot in slots_of(Case)]
    for key in table:
        if key not in of_heading and key not in of_case:
            raise InvalidInput(f"{where}: unknown key {key!r}; allowed: {', '.join(of_heading + of_case)}")
    heading = {key: value for key, value in table.items() if key in of_heading}
    return heading, {key: value for key, value in table.items() if key not in of_heading}


def _check(scenario: Scenario, where: str) -> None:
    expect = scenario.expect
    if expect.outcome is Outcome.VIOLATION and not expect.oracle:
        raise InvalidInput(f"{where}.expect: a violation needs the oracle that sees it; see `quorker sim ls`")
    if expect.outcome is Outcome.PASS and bool(expect.oracle) != bool(expect.mutant):
        raise InvalidInput(
            f'{where}.expect: an oracle goes with outcome = "violation" or a mutant, and a mutant with an oracle'
        )
    if expect.outcome is Outcome.VIOLATION and expect.mutant:
        raise InvalidInput(
            f'{where}.expect: a mutant goes with outcome = "pass", which is that of runs without it'
        )
    if expect.oracle and expect.oracle not in ORACLES:
        raise InvalidInput(
            f"{where}.expect.oracle: {expect.oracle!r} is not allowed; one of: {', '.join(ORACLES)}"
        )
    if not 1 <= scenario.seeds.count <= REPEATS_MAX:
        raise InvalidInput(f"{where}.seeds.count: {scenario.seeds.count} must be from 1 to {REPEATS_MAX}")


# ---------------------------------------------------------------------- verdicts


def judge(scenario: Scenario, report: Report) -> str:
    """What is wrong with a run of this scenario; "" when it ended as expected."""
    violation, expect = report.violation, scenario.expect
    if expect.outcome is Outcome.PASS:
        return "" if violation is None else f"breaks {violation}"
    if violation is None:
        return f"breaks nothing, but was expected to break {expect.oracle}"
    return "" if violation.oracle == expect.oracle else f"breaks {violation}; expected was {expect.oracle}"


def unreached(scenario: Scenario, reports: list[Report]) -> list[str]:
    """What the scenario is for, but no run came to."""
    return [what for what in scenario.sometimes if not any(what in report.sometimes for report in reports)]


# ---------------------------------------------------------------------- repetition


def _repeated(items: Any, where: str) -> list[Any]:
    """`every` and `times` of an item stand for that many items; all are put in order of time."""
    if not is_list(items):
        raise InvalidInput(f"{where}: {items!r} is no list")
    found: list[Any] = []
    for number, item in enumerate(items):
        found.extend(_copies(item, f"{where}[{number}]"))
    return sorted(found, key=_when)


def _copies(item: Any, where: str) -> list[Any]:
    if not isinstance(item, dict):
        return [item]  # from_table will tell what is wrong with it
    table = dict(cast("Table", item))
    if not {"every", "times"} & table.keys():
        return [item]
    every, times = table.pop("every", MISSING), table.pop("times", MISSING)
    if type(times) is not int or not 1 <= times <= REPEATS_MAX:
        raise InvalidInput(
            f"{where}.times: `every` and `times` go together; times is from 1 to {REPEATS_MAX}"
        )
    try:
        step, first = duration_ns(every), duration_ns(table.get("at"))
    except BadValue as wrong:
        raise InvalidInput(
            f"{where}.every: {every!r}, with an `at` of {table.get('at')!r}, {wrong}"
        ) from None
    return [{**table, "at": duration_text(first + step * number)} for number in range(times)]


def _when(item: Any) -> int:
    try:
        return duration_ns(cast("Table", item).get("at")) if isinstance(item, dict) else 0
    except BadValue:
        return 0  # from_table will tell what is wrong with it
