"""`quorker sim fuzz`: a campaign over many seeds on all cores, with its progress, its failures and its coverage."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from quorker.app.cli.line_values import seconds
from quorker.app.cli.output import print_fields, print_json
from quorker.app.cli.sim.reports import Output
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, InvalidInput
from quorker.sim.campaign.coverage import never_seen
from quorker.sim.campaign.fuzz import Batch, Campaign, Plan, Totals
from quorker.sim.campaign.state import load_state, save_state, write_failure
from quorker.sim.cases.expansion import PROFILES, SHORT, expand
from quorker.sim.cases.replay import replay_line, seed_line
from quorker.sim.cases.units import duration_text

EXIT_INTERRUPTED: Final = 130
SEEDS: Final = 1000  # of each profile, where neither seeds nor a time are named
LINE_EVERY_S: Final = 10.0
REDRAW_EVERY_S: Final = 0.2
JOBS_MAX: Final = 256


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class FuzzOptions:
    """What is run, and for how long."""

    seeds: Annotated[
        int | None, Parameter(help="How many seeds of each profile; 1000 if no time is named.")
    ] = None
    time: Annotated[str | None, Parameter(help="For how long at most: 90s, 10m, 2h.")] = None
    profile: Annotated[str, Parameter(help="Which profiles: short,churn,long,jobs.")] = SHORT.name
    start: Annotated[int, Parameter(help="The first seed.")] = 0
    jobs: Annotated[int, Parameter(help="How many processes; 0: one on each core.")] = 0
    keep_going: Annotated[
        bool, Parameter(negative="", help="Report every failing seed, not only the first.")
    ] = False
    state: Annotated[Path | None, Parameter(help="Remember here what is done, and go on from it.")] = None
    failures: Annotated[Path, Parameter(help="Folder for the cases that fail.")] = Path("failures")
    require_coverage: Annotated[
        bool, Parameter(negative="", help="Fail if a situation worth testing never came up.")
    ] = False

    def plan(self) -> Plan:
        """Raises `InvalidInput`."""
        profiles = tuple(dict.fromkeys(self.profile.split(",")))
        for name in profiles:
            if name not in PROFILES:
                raise InvalidInput(f"--profile {name!r} is not allowed; one or more of: {','.join(PROFILES)}")
        for option, value, low in (
            ("--seeds", self.seeds, 1),
            ("--start", self.start, 0),
            ("--jobs", self.jobs, 0),
        ):
            if value is not None and value < low:
                raise InvalidInput(f"{option} {value}: must be at least {low}")
        if self.jobs > JOBS_MAX:
            raise InvalidInput(f"--jobs {self.jobs}: at most {JOBS_MAX}")
        seeds = SEEDS if self.seeds is None and self.time is None else self.seeds
        limit = None if self.time is None else seconds(self.time)
        jobs = self.jobs or min(JOBS_MAX, os.cpu_count() or 1)
        return Plan(profiles, seeds, self.start, limit, jobs, self.keep_going)


def fuzz(*, options: FuzzOptions = FuzzOptions(), output: Output = "table") -> int:  # frozen
    """Run many seeds and look for broken promises. Ctrl-C stops early and loses nothing.

    Exits with 1 if a promise is broken, or, with --require-coverage, if a situation worth testing never came up.
    """
    plan = options.plan()
    totals = Totals() if options.state is None else load_state(options.state)
    progress = Progress(sys.stderr.isatty(), plan, totals.runs)
    watch = Watch(options, progress)
    interrupted = False
    try:
        Campaign(plan, totals, watch.told).run()
    except KeyboardInterrupt:
        interrupted = True
    progress.end()
    missing = never_seen(plan.profiles, totals.sometimes)
    if output == "json":
        print_json(_document(plan, totals, missing))
    else:
        _print(totals, missing, watch.files)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_REFUSED if totals.failures or (missing and options.require_coverage) else EXIT_OK


@dataclass(slots=True)
class Watch:
    """Keeps what each finished part of the campaign brought."""

    options: FuzzOptions
    progress: Progress
    files: list[Path] = field(default_factory=list[Path])

    def told(self, totals: Totals, batch: Batch) -> None:
        for failure in batch.failures:
            self.files.append(write_failure(self.options.failures, failure))
        if self.options.state is not None:
            save_state(self.options.state, totals)
        self.progress.show(totals)


class Progress:
    """One line on stderr: drawn over on a terminal, else a new one now and then."""

    def __init__(
        self, is_terminal: bool, plan: Plan, done_before: int, say: Callable[[str], Any] | None = None
    ) -> None:
        self._is_terminal = is_terminal
        self._wanted = None if plan.seeds is None else plan.seeds * len(plan.profiles)
        self._before = done_before
        self._say = say or sys.stderr.write
        self._begun = self._shown = time.monotonic()
        self._drawn = False

    def show(self, totals: Totals) -> None:
        now = time.monotonic()
        if now - self._shown < (REDRAW_EVERY_S if self._is_terminal else LINE_EVERY_S):
            return
        self._shown, self._drawn = now, True
        rate = (totals.runs - self._before) / max(now - self._begun, 1e-9)
        of_all = "" if self._wanted is None else f" of {self._wanted}"
        text = f"{totals.runs}{of_all} runs, {rate:.0f} runs/s, {len(totals.failures)} violations"
        self._say(f"\r{text}\x1b[K" if self._is_terminal else f"{text}\n")

    def end(self) -> None:
        if self._is_terminal and self._drawn:
            self._say("\r\x1b[K")


def _document(plan: Plan, totals: Totals, missing: dict[str, str]) -> dict[str, Any]:
    return {
        "profiles": plan.profiles,
        "runs": totals.runs,
        "events": totals.events,
        "time_ns": totals.true_ns,
        "cpu_s": round(totals.cpu_s, 3),
        "sometimes": dict(sorted(totals.sometimes.items())),
        "never": missing,
        "failures": [
            {**asdict(each), "replay": replay_line(expand(each.seed, PROFILES[each.profile]))}
            for each in totals.failures
        ],
    }


def _print(totals: Totals, missing: dict[str, str], files: Sequence[Path]) -> None:
    spent = max(totals.cpu_s, 1e-9)
    print(
        f"{totals.runs} runs, {totals.events} events, {duration_text(totals.true_ns // 10**9 * 10**9)} simulated: "
        f"{totals.runs / spent:.1f} runs/s, {totals.events / spent:,.0f} events/s per core"
    )
    if totals.sometimes:
        print_fields([(what, f"in {count} runs") for what, count in sorted(totals.sometimes.items())])
    for what, description in missing.items():
        print(f"never came up: {what}: {description}")
    for failure in totals.failures:
        print()
        print(f"{failure.profile} seed {failure.seed} breaks {failure.oracle}: {failure.detail}")
        print(failure.raised, end="")
        print(f"  {seed_line(failure.seed, failure.profile)}")
        print(f"  {replay_line(expand(failure.seed, PROFILES[failure.profile]))}")
    for path in files:
        print(f"written: {path}")
