"""Runs many seeds and stops at the first that breaks a promise: `python -m quorker.sim.fuzz --seeds 1000`.

This is the one file of the simulator that looks at a real clock, to tell how fast it was.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence

from quorker.core.errors import EXIT_OK, EXIT_REFUSED
from quorker.sim.cluster import Report, run_case
from quorker.sim.expansion import PROFILES, expand


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if options.seed is not None:
        return _replay(options)
    return _campaign(options)


def replay_command(seed: int, profile: str) -> str:
    """The one line that repeats a run and tells its story."""
    return f"python -m quorker.sim.fuzz --profile {profile} --seed {seed} --trace"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m quorker.sim.fuzz", description="Simulated clusters under faults."
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="short")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--trace", action="store_true", help="tell everything that happens")
    parser.add_argument(
        "--keep-going", action="store_true", help="report every failing seed, not only the first"
    )
    return parser.parse_args(arguments)


def _replay(options: argparse.Namespace) -> int:
    sink = print if options.trace else None
    report = run_case(expand(options.seed, PROFILES[options.profile]), sink)
    if options.trace:
        print(report.case)
    print(
        f"seed {options.seed}: digest {report.digest}, {report.events} events, {report.committed} committed"
    )
    return _tell(report, options.profile)


def _campaign(options: argparse.Namespace) -> int:
    profile = PROFILES[options.profile]
    begun = time.process_time()
    seen: Counter[str] = Counter()
    events = runs = 0
    status = EXIT_OK
    for seed in range(options.start, options.start + options.seeds):
        report = run_case(expand(seed, profile))
        seen.update(report.sometimes.keys())
        events += report.events
        runs += 1
        status = max(status, _tell(report, options.profile) if report.violation else EXIT_OK)
        if status and not options.keep_going:
            break
    spent = max(time.process_time() - begun, 1e-9)
    print(f"{runs} runs, {events} events, {runs / spent:.1f} runs/s, {events / spent:,.0f} events/s")
    for what, count in sorted(seen.items()):
        print(f"  in {count:6d} runs: {what}")
    return status


def _tell(report: Report, profile: str) -> int:
    if report.violation is None:
        return EXIT_OK
    print(f"seed {report.case.seed} breaks {report.violation}")
    if report.violation.__cause__ is not None:
        traceback.print_exception(report.violation.__cause__, file=sys.stdout)
    print(f"  {replay_command(report.case.seed, profile)}")
    return EXIT_REFUSED


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of a trace has seen enough
        sys.exit(EXIT_OK)
