"""Makes a failing case small: fewer faults, traps, operations, nodes and clients, plain knobs, short times, the same broken promise.

Each step changes the case in one way and keeps the change if the run still breaks the same promise. What a seed deals to
a smaller case is not what it dealt to the larger one, so a candidate that passes is tried with a few other seeds before it
is given up: that alone makes plans about a third shorter. First things are left out, as long as that helps; only then is what
remains made shorter, earlier and milder. What the candidates are is for `smaller`; how a case is run is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from quorker.sim.campaign.smaller import (
    ITEMS,
    changed,
    fewer_clients,
    fewer_nodes,
    less_chaos,
    milder,
    plainer,
    size_of,
    unusual_knobs,
)
from quorker.sim.cases.case import Case, Fault, Trap
from quorker.sim.cases.limits import is_meaningful
from quorker.sim.runs.cluster import Report, run_case
from quorker.sim.world.kernel import MS
from quorker.sim.world.randomness import key

RESEEDS: Final = 4
FINE_RESEEDS: Final = 1  # what is made milder deals less anew than what is left out
RUNS_MAX: Final = 800
EVENTS_FACTOR: Final = 3  # a candidate that runs so much longer than the original fails in another way
EVENTS_MIN: Final = 2_000
BUDGET_ORACLE: Final = "event budget"
LISTS: Final = ("plan", "traps", "ops")
REFINED: Final = 4  # one part of so many of all runs is kept for what can only be refined

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
    runs_until: int = 0
    steps: list[Step] = field(default_factory=list[Step])
    tried: set[Case] = field(default_factory=set[Case])

    def run(self) -> Shrunk:
        self.report = self._run(self.case)
        if self.report.violation is None:
            raise NothingToShrink(f"the case of seed {self.case.seed} breaks no promise")
        self.oracle = self.report.violation.oracle
        if self.oracle != BUDGET_ORACLE:
            self._events_max = max(EVENTS_FACTOR * self.report.events, EVENTS_MIN)
        else:
            self._events_max = self.case.events_max
        self._settles(self._leave_out_all, self.runs_max - self.runs_max // REFINED)
        while self._settles(self._refine, self.runs_max):
            self._settles(self._leave_out_all, self.runs_max)
        return Shrunk(self.case, self.report, self.runs, tuple(self.steps))

    def _settles(self, by: Callable[[], None], runs_until: int) -> bool:
        """Do it until it makes nothing smaller any more, or so many runs were made; whether it did anything at all."""
        first = size_of(self.case)
        before: tuple[int, ...] | None = None
        self.runs_until = runs_until
        while before != size_of(self.case) and self.runs < self.runs_until:
            before = size_of(self.case)
            by()
        return size_of(self.case) < first

    def _leave_out_all(self) -> None:
        self._try(self._cut_short(), "ends after the violation", self.reseeds)
        for name in LISTS:
            self._shorten(name)
        self._first_of(fewer_nodes(self.case), self.reseeds)
        self._first_of(fewer_clients(self.case), self.reseeds)
        self._try(replace(self.case, clocks=()), "true clocks", self.reseeds)
        for knob in unusual_knobs(self.case):
            self._try(*plainer(self.case, *knob), self.reseeds)

    def _refine(self) -> None:
        """What cannot be left out lasts less, comes earlier, and is milder."""
        reseeds = min(FINE_RESEEDS, self.reseeds)
        for name, ways in ITEMS.items():
            for place, item in enumerate(getattr(self.case, name)):
                self._first_of(
                    ((_put(self.case, name, place, smaller), what) for smaller, what in ways(item)), reseeds
                )
        for knob in unusual_knobs(self.case):
            self._first_of(milder(self.case, *knob), reseeds)
        for smaller, what in less_chaos(self.case):
            self._try(smaller, what, reseeds)

    # ------------------------------------------------------------------ trying

    def _run(self, case: Case) -> Report:
        self.runs += 1
        return self.run_one(case)

    def _first_of(self, candidates: Iterable[tuple[Case, str]], reseeds: int) -> None:
        for candidate, what in candidates:
            if self._try(candidate, what, reseeds):
                return

    def _try(self, candidate: Case, what: str, reseeds: int) -> bool:
        """Take the candidate if it is smaller and fails alike, under its own seed or one of a few others."""
        if size_of(candidate) >= size_of(self.case):
            return False
        candidate = replace(candidate, events_max=self._events_max)
        if candidate in self.tried:
            return False
        if not is_meaningful(candidate) and is_meaningful(self.case):
            return False  # nobody could run it from a file
        for attempt in range(reseeds + 1):
            if self.runs >= self.runs_until:
                return False
            seed = candidate.seed if not attempt else key(candidate.seed, "shrink", attempt) >> 16
            report = self._run(replace(candidate, seed=seed))
            if report.violation is not None and report.violation.oracle == self.oracle:
                self._take(report, what)
                return True
        self.tried.add(candidate)
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
            if self._try(changed(self.case, name, rest), what, self.reseeds):
                return True
        return False

    # ------------------------------------------------------------------ time

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


def _put(case: Case, name: str, place: int, item: object) -> Case:
    """With this item at this place of a list."""
    items: tuple[object, ...] = getattr(case, name)
    return changed(case, name, (*items[:place], item, *items[place + 1 :]))


def describe(case: Case) -> str:
    """What is left of a case, in a line for people."""
    return ", ".join([*map(_told, case.plan), *map(_told, case.traps), f"{len(case.ops)} operations"])


def _told(what: Fault | Trap) -> str:
    lasts = f"for {what.for_ns / MS:g} ms"
    if isinstance(what, Trap):
        return f"a crash at {what.point} number {what.nth} {lasts}"
    whom = what.target if what.target != "any" else f"n{what.node}"
    return f"{what.kind} of {whom} at {what.at_ns / MS:g} ms {lasts}"
