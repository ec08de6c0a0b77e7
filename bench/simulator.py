"""How fast the simulator is: runs and simulated seconds per CPU second of one core, by profile, medians with their spread.

    python bench/simulator.py [--rounds 5] [--seeds 60] [--json simulator.jsonl]
                              [--simloop PYTHON CHECKOUT]

`--simloop` measures simloop 0.2.2's own Raft and job queue campaigns in the same alternating run: PYTHON is an interpreter
from 3.12.4 on in which simloop 0.2.2 is installed, CHECKOUT a checkout of its repository, where the campaigns are. What one
of their seeds does is not what one of ours does: the simulated seconds, nodes and faults of each are printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from quorker.sim.cases.case import Case
from quorker.sim.cases.expansion import PROFILES, expand
from quorker.sim.runs.cluster import run_case

Figures = dict[str, float]

CAMPAIGN = """
import asyncio, importlib.util, json, sys, time
example, seeds, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.path[:0] = [example, example + "/tests"]
from simloop import explore
begun = time.process_time()
{workload}
report = explore(workload, range(first, first + seeds), jobs=1)
assert report is None, report
print(json.dumps({{"runs": seeds, "cpu_s": time.process_time() - begun}}))
"""
RIVALS = {
    "simloop Raft": (
        "examples/raft",
        "import test_chaos_campaign\nasync def workload():\n    await test_chaos_campaign._campaign(disks=True)",
    ),
    "simloop job queue": (
        "benchmarks",
        "import campaign\nworkload = campaign.chaos_campaign",
    ),
}


def three_members(case: Case) -> bool:
    return case.voters == 3 and not case.spares


def measure_ours(profile: str, first: int, seeds: int, *, only_three: bool = False) -> Figures:
    cases = (expand(seed, PROFILES[profile]) for seed in range(first, first + 100 * seeds))
    chosen = [case for case in cases if not only_three or three_members(case)][:seeds]
    simulated_ns = events = 0
    begun = time.process_time()
    for case in chosen:
        report = run_case(case)
        if report.violation is not None:
            raise SystemExit(f"seed {case.seed} of {profile} breaks {report.violation}")
        simulated_ns += report.true_ns
        events += report.events
    spent = time.process_time() - begun
    return {
        "runs_per_s": len(chosen) / spent,
        "simulated_s_per_s": simulated_ns / 1e9 / spent,
        "events_per_s": events / spent,
    }


def measure_rival(name: str, python: Path, checkout: Path, first: int, seeds: int) -> Figures:
    folder, workload = RIVALS[name]
    code = CAMPAIGN.format(workload=workload)
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    child = subprocess.run(
        [str(python), "-c", code, str(checkout / folder), str(seeds), str(first)],
        cwd=checkout, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if child.returncode:
        raise SystemExit(f"{name} failed:\n{child.stderr}")
    figures = json.loads(child.stdout.splitlines()[-1])
    return {"runs_per_s": figures["runs"] / figures["cpu_s"]}


def measure_round(number: int, options: argparse.Namespace) -> dict[str, Figures]:
    first = 1_000_000 * (number + 1)
    found = {"short": measure_ours("short", first, options.seeds)}
    found["short, three members"] = measure_ours("short", first, options.seeds, only_three=True)
    found["paced"] = measure_ours("paced", first, max(1, options.seeds // 6))
    found["jobs"] = measure_ours("jobs", first, max(1, options.seeds // 6))
    if options.simloop:
        python, checkout = map(Path, options.simloop)
        for name in RIVALS:
            found[name] = measure_rival(name, python, checkout, first, max(1, options.seeds // 6))
    return found


def table(rounds: list[dict[str, Figures]]) -> list[str]:
    lines: list[str] = []
    for what, first in rounds[0].items():
        for figure in first:
            values = [each[what][figure] for each in rounds]
            spread = f"({min(values):,.1f} .. {max(values):,.1f})"
            lines.append(f"{what:22} {figure:18} {statistics.median(values):12,.1f}  {spread}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--simloop", nargs=2, metavar=("PYTHON", "CHECKOUT"))
    options = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    for number in range(options.rounds):
        rounds.append(measure_round(number, options))
        if options.json is not None:
            with options.json.open("a") as file:
                file.write(json.dumps(rounds[-1]) + "\n")
    print("\n".join(table(rounds)))


if __name__ == "__main__":
    main()
