"""What a campaign leaves behind: its state, to go on from, and a scenario file for each failure.

A state belongs to one version of the sources: counts of different simulators do not add up. Running is for `fuzz`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from quorker.core.errors import InvalidInput
from quorker.sim.campaign.fuzz import Chunk, Failure, Totals
from quorker.sim.cases.expansion import PROFILES, expand
from quorker.sim.cases.replay import code_hash, replay_line, seed_line
from quorker.sim.cases.scenario import Scenario, dump

VERSION: Final = 1


def save_state(path: Path, totals: Totals) -> None:
    """Replace the file at once, so that an interruption leaves the old one or the new one."""
    document = {
        "version": VERSION,
        "sources": code_hash(),
        "runs": totals.runs,
        "events": totals.events,
        "true_ns": totals.true_ns,
        "cpu_s": totals.cpu_s,
        "sometimes": dict(sorted(totals.sometimes.items())),
        "failures": [asdict(failure) for failure in totals.failures],
        "done": [[chunk.profile, chunk.first, chunk.count] for chunk in totals.done],
    }
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(json.dumps(document), encoding="utf-8")
    os.replace(fresh, path)


def load_state(path: Path) -> Totals:
    """What was done before; nothing if there is no such file. Raises `InvalidInput`."""
    if not path.exists():
        return Totals()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        sources, totals = _sources_of(document), _totals_of(document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path}: this is no state of a campaign ({error!r}); name another file") from None
    if sources != code_hash():
        raise InvalidInput(
            f"{path}: the sources have changed since ({sources}, now {code_hash()}); name another file, or remove it"
        )
    return totals


def _sources_of(document: Any) -> str:
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']}")
    return str(document["sources"])


def _totals_of(document: Any) -> Totals:
    return Totals(
        int(document["runs"]),
        int(document["events"]),
        int(document["true_ns"]),
        float(document["cpu_s"]),
        Counter({str(what): int(count) for what, count in document["sometimes"].items()}),
        [Failure(**failure) for failure in document["failures"]],
        [Chunk(str(profile), int(first), int(count)) for profile, first, count in document["done"]],
    )


def write_failure(folder: Path, failure: Failure) -> Path:
    """The failing case as a scenario: it is wrong until the bug is fixed, and a regression test from then on."""
    case = expand(failure.seed, PROFILES[failure.profile])
    name = blake2b(replay_line(case).encode(), digest_size=6).hexdigest()
    description = (
        f"Seed {failure.seed} of profile {failure.profile} breaks {failure.oracle}: {failure.detail}\n"
        f"{seed_line(failure.seed, failure.profile)}\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(dump(Scenario(name, case, description)), encoding="utf-8")
    return path
