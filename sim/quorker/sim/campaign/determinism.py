"""Runs the same cases in several places and compares them event by event: the detector of hidden randomness.

A place is an interpreter and a seed for its hashes. Runs are compared by digest, then by the checkpoints of their traces,
and where they differ only the stretch behind the last equal checkpoint is recorded, in both places, to name the first
event that differs. Child processes are started here; the world itself never sees any of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from quorker.sim.cases.case import Case
from quorker.sim.cases.expansion import expand
from quorker.sim.cases.replay import case_of, token_of
from quorker.sim.runs.cluster import run_case
from quorker.sim.world.trace import CHECKPOINT_EVENTS, Trace, What

HASH_SEEDS: Final = ("0", "1", "4711")
VERSIONS: Final = ("3.11", "3.12", "3.13", "3.14")
NEEDED: Final = ("quorker.core", "quorker.sim", "simpy", "msgpack")
CHILD: Final = "from quorker.sim.campaign.determinism import answer_stdin; answer_stdin()"
UNRELATED_SEEDS: Final = 2  # run first in a child: what they leave behind must not matter
PROBE: Final = "import sys; assert sys.version_info >= (3, 11); import simpy, msgpack"


@dataclass(frozen=True, slots=True)
class Place:
    """Where runs are made. `setup` is a statement that is executed there first: for tests that plant something."""

    python: str = sys.executable
    hash_seed: str = "0"
    setup: str = ""

    @property
    def name(self) -> str:
        return f"{self.python} with PYTHONHASHSEED={self.hash_seed}"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first event in which two runs of one case differ; "(the run has ended)" where there is none."""

    case: str
    places: tuple[str, str]
    event: int
    events: tuple[str, str]

    def __str__(self) -> str:
        return (
            f"{self.case} differs first at event {self.event}:\n"
            f"  {self.events[0]}   ({self.places[0]})\n  {self.events[1]}   ({self.places[1]})"
        )


class ChildFailed(RuntimeError):
    """A place could not run the cases at all."""


class _Listening(Trace):
    """A trace that also keeps the events of one stretch in words."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.kept: list[str] = []
        self._range = range(first, last)

    def record(self, at_ns: int, what: int, node: int, a: int = 0, b: int = 0) -> None:
        if self.events in self._range:
            self.kept.append(f"{at_ns / 1e6:.6f} ms {What(what).name.lower()} n{node} {a} {b}")
        super().record(at_ns, what, node, a, b)


def check(cases: Mapping[str, Case], places: Sequence[Place]) -> list[Difference]:
    """What differs between the first place and each other one; the cases have names for people.

    Raises ChildFailed when a place cannot run them.
    """
    wanted = places[0]
    tokens = [token_of(case) for case in cases.values()]
    runs = ask(wanted, {"cases": tokens})
    differences: list[Difference] = []
    for place in places[1:]:
        others = ask(place, {"cases": tokens})
        differences.extend(
            _first_difference((name, token), (wanted, place), (one, other))
            for name, token, one, other in zip(cases, tokens, runs, others, strict=True)
            if one != other
        )
    return differences


# ---------------------------------------------------------------------- places


def interpreters() -> list[str]:
    """This interpreter, and one of every other version from 3.11 on that is installed and can run the simulator."""
    found = {".".join(map(str, sys.version_info[:2])): sys.executable}
    for version in VERSIONS:
        for candidate in _candidates(version):
            if version not in found and _can_run(candidate):
                found[version] = candidate
    return list(found.values())


def everywhere() -> list[Place]:
    """This interpreter under every hash seed, and each other one once."""
    mine, *others = interpreters()
    return [*(Place(mine, seed) for seed in HASH_SEEDS), *(Place(other, HASH_SEEDS[-1]) for other in others)]


def _candidates(version: str) -> Iterator[str]:
    on_path = shutil.which(f"python{version}")
    if on_path is not None:
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for folder in sorted(pyenv.glob(f"{version}.*"), reverse=True):
        yield str(folder / "bin" / "python")


def _can_run(python: str) -> bool:
    try:
        probe = subprocess.run([python, "-c", PROBE], env=_environment("0"), capture_output=True, check=False)
    except OSError:
        return False
    return probe.returncode == 0


def _environment(hash_seed: str) -> dict[str, str]:
    """Other interpreters import our sources, simpy and msgpack (without its C part) from where this one has them."""
    roots: list[str] = []
    for name in NEEDED:
        file = Path(import_module(name).__file__ or "")
        root = str(file.parents[name.count(".") + 1])
        if root not in roots:
            roots.append(root)
    return {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(roots)}


# ---------------------------------------------------------------------- asking a place


def ask(place: Place, question: dict[str, Any], answer: str = CHILD) -> Any:
    """What a child process there makes of `question`. `answer`: a statement that reads and writes it as JSON."""
    child = subprocess.run(
        [place.python, "-c", f"{place.setup}\n{answer}"],
        input=json.dumps(question),
        env=_environment(place.hash_seed),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise ChildFailed(f"{place.name} failed with code {child.returncode}:\n{child.stderr}")
    return json.loads(child.stdout)


def answer_stdin() -> None:
    """What a child does: run the cases of the question and answer with what they left behind."""
    question: dict[str, Any] = json.load(sys.stdin)
    if "stretch" in question:
        first, last = question["stretch"]
        trace = _Listening(first, last)
        run_case(case_of(question["case"])[0], trace=trace)
        json.dump(trace.kept, sys.stdout)
        return
    for seed in range(UNRELATED_SEEDS):
        run_case(expand(int(os.environ["PYTHONHASHSEED"]) + seed))
    json.dump([_left_behind(case_of(token)[0]) for token in question["cases"]], sys.stdout)


def _left_behind(case: Case) -> dict[str, Any]:
    trace = Trace()
    report = run_case(case, trace=trace)
    return {"digest": report.digest, "checkpoints": trace.checkpoints, "violation": str(report.violation)}


# ---------------------------------------------------------------------- naming the event


def _first_difference(
    case: tuple[str, str], places: tuple[Place, Place], runs: tuple[Any, Any]
) -> Difference:
    pairs = zip(runs[0]["checkpoints"], runs[1]["checkpoints"], strict=False)
    equal = 0
    for one, other in pairs:
        if one != other:
            break
        equal += 1
    first = equal * CHECKPOINT_EVENTS
    question = {"case": case[1], "stretch": [first, first + 2 * CHECKPOINT_EVENTS]}
    told = [ask(place, question) for place in places]
    at = 0
    while at < min(map(len, told)) and told[0][at] == told[1][at]:
        at += 1
    events = [events[at] if at < len(events) else "(the run has ended)" for events in told]
    return Difference(case[0], (places[0].name, places[1].name), first + at, (events[0], events[1]))
