"""Makes a failing case small: fewer faults, traps, operations and nodes, plain knobs, round times, the same broken promise.

Each step changes the case in one way and keeps the change if the run still breaks the same promise. What a seed deals to
a smaller case is not what it dealt to the larger one, so a candidate that passes is tried with a few other seeds before it
is given up: that alone makes plans about a third shorter. Only cases are looked at here; how one is run is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final, TypeVar

from quorker.sim.cases.case import Case, ClockKnobs, Fault, Trap
from quorker.sim.cases.limits import is_meaningful
from quorker.sim.runs.cluster import Report, run_case
from quorker.sim.world.kernel import MS
from quorker.sim.world.randomness import key

RESEEDS: Final = 4
RUNS_MAX: Final = 600
EVENTS_FACTOR: Final = 3  # a candidate that runs so much longer than the original fails in another way
EVENTS_MIN: Final = 2_000
BUDGET_ORACLE: Final = "event budget"
LISTS: Final = ("plan", "traps", "ops")

T = TypeVar("T")
Run = Callable[[Case], Report]


class NothingToShrink(ValueError):
    """The case breaks no promise."""


@dataclass(frozen=True, slots=True)
class Step:
    """One accepted change: what was done, and after how many runs."""

    what: str
    runs: int
    size: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest case found. `report` is its run; `steps` tell how it became small."""

    case: Case
    report: Report
    runs: int
    steps: tuple[Step, ...] = ()

    @property
    def faults(self) -> int:
        """What still goes wrong in it on purpose: faults and traps."""
        return len(self.case.plan) + len(self.case.traps)


def size_of(case: Case) -> tuple[int, ...]:
    """What shrinking makes smaller, most important first."""
    durations = sum(max(fault.for_ns // MS, 1).bit_count() for fault in case.plan)
    return (
        len(case.plan) + len(case.traps),
        len(case.ops),
        case.voters + case.spares,
        len(_unusual_knobs(case)) + sum(clock != ClockKnobs() for clock in case.clocks),
        durations,
        case.chaos_ns,
    )


def shrink(
    case: Case,
    run: Run = run_case,
    *,
    runs_max: int = RUNS_MAX,
    reseeds: int = RESEEDS,
    on_step: Callable[[Step], None] | None = None,
) -> Shrunk:
    """The smallest case found within `runs_max` runs that breaks the promise which `case` breaks.

    Raises NothingToShrink when it breaks none.
    """
    return _Shrinker(case, run, runs_max, reseeds, on_step).run()


@dataclass
class _Shrinker:
    case: Case
    run_one: Run
    runs_max: int
    reseeds: int
    on_step: Callable[[Step], None] | None
    runs: int = 0
    steps: list[Step] = field(default_factory=list[Step])

    def run(self) -> Shrunk:
        self.report = self._run(self.case)
        if self.report.violation is None:
            raise NothingToShrink(f"the case of seed {self.case.seed} breaks no promise")
        self.oracle = self.report.violation.oracle
        if self.oracle != BUDGET_ORACLE:
            self._events_max = max(EVENTS_FACTOR * self.report.events, EVENTS_MIN)
        else:
            self._events_max = self.case.events_max
        before: tuple[int, ...] | None = None
        while before != size_of(self.case) and self.runs < self.runs_max:
            before = size_of(self.case)
            self._pass()
        return Shrunk(self.case, self.report, self.runs, tuple(self.steps))

    def _pass(self) -> None:
        self._try(self._cut_short(), "ends after the violation")
        for name in LISTS:
            self._shorten(name)
        for smaller, what in _with_fewer_nodes(self.case):
            if self._try(smaller, what):
                break
        self._try(replace(self.case, clocks=()), "true clocks")
        for section, name, default in _unusual_knobs(self.case):
            self._try(_with_knob(self.case, section, name, default), f"{section}.{name} = {default}")
        for place in range(len(self.case.plan)):
            self._round(place)

    # ------------------------------------------------------------------ trying

    def _run(self, case: Case) -> Report:
        self.runs += 1
        return self.run_one(case)

    def _try(self, candidate: Case, what: str) -> bool:
        """Take the candidate if it is smaller and fails alike, under its own seed or one of a few others."""
        if size_of(candidate) >= size_of(self.case):
            return False
        candidate = replace(candidate, events_max=self._events_max)
        if not is_meaningful(candidate) and is_meaningful(self.case):
            return False  # nobody could run it from a file
        for attempt in range(self.reseeds + 1):
            if self.runs >= self.runs_max:
                return False
            seed = candidate.seed if not attempt else key(candidate.seed, "shrink", attempt) >> 16
            report = self._run(replace(candidate, seed=seed))
            if report.violation is not None and report.violation.oracle == self.oracle:
                self._take(report, what)
                return True
        return False

    def _take(self, report: Report, what: str) -> None:
        self.case, self.report = report.case, report
        self.steps.append(Step(what, self.runs, size_of(self.case)))
        if self.on_step is not None:
            self.on_step(self.steps[-1])

    # ------------------------------------------------------------------ lists

    def _shorten(self, name: str) -> None:
        """Delta debugging: leave out as large parts of a list as possible, down to single items."""
        part = len(getattr(self.case, name))
        while part > 0:
            if not self._leave_out(name, part):
                part //= 2

    def _leave_out(self, name: str, part: int) -> bool:
        """One part of this length that is not needed is left out, if there is one."""
        items: tuple[object, ...] = getattr(self.case, name)
        for start in reversed(range(0, len(items), part)):
            rest = items[:start] + items[start + part :]
            what = f"{len(items) - len(rest)} of {len(items)} in {name} left out"
            if self._try(_changed(self.case, name, rest), what):
                return True
        return False

    # ------------------------------------------------------------------ times

    def _cut_short(self) -> Case:
        """Faults after the violation did nothing; if it came while there were still faults, the rest can go too."""
        end = self.report.true_ns
        if end >= self.case.chaos_ns:
            return self.case
        return replace(
            self.case,
            plan=tuple(fault for fault in self.case.plan if fault.at_ns <= end),
            ops=tuple(op for op in self.case.ops if op.at_ns <= end),
            chaos_ns=min(self.case.chaos_ns, (end // MS + 1) * MS),
        )

    def _round(self, place: int) -> None:
        """Durations that are a power of two in ms: they can be read, and shorter ones are tried first."""
        fault = self.case.plan[place]
        shortest = MS
        while shortest < fault.for_ns and self.runs < self.runs_max:
            plan = list(self.case.plan)
            plan[place] = replace(fault, for_ns=shortest)
            if self._try(replace(self.case, plan=tuple(plan)), f"a {fault.kind} of {shortest // MS} ms"):
                return
            shortest *= 4


# ---------------------------------------------------------------------- knobs


def _sections(case: Case) -> Iterator[tuple[str, Any]]:
    """The groups of knobs in a case, by name."""
    for each in fields(case):
        value = getattr(case, each.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield each.name, value


def _unusual_knobs(case: Case) -> list[tuple[str, str, object]]:
    """(section, knob, its default) of everything that is not as it is by default."""
    found: list[tuple[str, str, object]] = []
    for section, knobs in _sections(case):
        plain = type(knobs)()
        found.extend(
            (section, each.name, getattr(plain, each.name))
            for each in fields(knobs)
            if getattr(knobs, each.name) != getattr(plain, each.name)
        )
    if case.dead_in_calm:
        found.append(("case", "dead_in_calm", 0))
    return found


def _with_knob(case: Case, section: str, name: str, value: object) -> Case:
    if section == "case":
        return _changed(case, name, value)
    return _changed(case, section, _changed(getattr(case, section), name, value))


def _changed(record: T, name: str, value: object) -> T:
    changes: dict[str, Any] = {name: value}
    return replace(record, **changes)  # type: ignore[type-var]  # a dataclass, whichever


# ---------------------------------------------------------------------- nodes


def _with_fewer_nodes(case: Case) -> Iterator[tuple[Case, str]]:
    """Fewer members, the fewest first."""
    for voters in range(1, case.voters + 1):
        for spares in range(case.spares + 1):
            if (voters, spares) != (case.voters, case.spares):
                yield _resized(case, voters, spares), f"{voters} voters and {spares} spares"


def _resized(case: Case, voters: int, spares: int) -> Case:
    nodes = voters + spares
    before = case.voters + case.spares
    jobs = case.jobs
    if jobs is not None and jobs.housed > voters:
        jobs = replace(jobs, housed=voters)
    return replace(
        case,
        voters=voters,
        spares=spares,
        clocks=case.clocks[:nodes] + case.clocks[before:] if case.clocks else (),
        plan=tuple(replace(fault, node=min(fault.node, nodes)) for fault in case.plan),
        ops=tuple(replace(op, node=min(op.node, nodes)) for op in case.ops) if jobs is None else case.ops,
        dead_in_calm=min(case.dead_in_calm, (voters - 1) // 2),
        jobs=jobs,
    )


def describe(case: Case) -> str:
    """What is left of a case, in a line for people."""
    return ", ".join([*map(_told, case.plan), *map(_told, case.traps), f"{len(case.ops)} operations"])


def _told(what: Fault | Trap) -> str:
    lasts = f"for {what.for_ns / MS:g} ms"
    if isinstance(what, Trap):
        return f"a crash at {what.point} number {what.nth} {lasts}"
    whom = what.target if what.target != "any" else f"n{what.node}"
    return f"{what.kind} of {whom} at {what.at_ns / MS:g} ms {lasts}"
