"""Runs a scenario of the simulator on real processes: real sockets, disks and clocks, SIGKILL, SIGSTOP and cut connections.

    python -m quorker.jepsen_like.real_run partition-leader [--seed 7]
    python -m quorker.jepsen_like.real_run --all

Exit code 1: a promise is broken. A scenario with something that real processes cannot do is refused before anything
starts. What must not live here: how faults, operations and judgements work.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import trio

from quorker.app.demo.ledger import read_ledger
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, InvalidInput
from quorker.jepsen_like.kill_single import read_jobs, wait_settled
from quorker.jepsen_like.real_case import CHAOS_SECONDS_MAX, pace_of, require_possible
from quorker.jepsen_like.real_clients import DEFINITE_SECONDS, Workload
from quorker.jepsen_like.real_nemesis import LinkedCluster, RealNemesis, linked_cluster
from quorker.jepsen_like.real_verdict import RealVerdict, judge
from quorker.sim.cases.scenario import Scenario, load, shipped
from quorker.transport.client import open_client

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RealRun:
    """`struck`: how often each kind of fault struck. `applied`: what all members have applied in the end."""

    scenario: str
    struck: dict[str, int]
    applied: int
    verdict: RealVerdict


async def run_real(
    scenario: Scenario, seed: int, directory: Path, chaos_seconds_max: float = CHAOS_SECONDS_MAX
) -> RealRun:
    """The whole scenario, below `directory`. Raises `InvalidInput` if it cannot be run so, and `NotReached` with what
    the members do not come to by themselves once everything is healed."""
    require_possible(scenario)
    case = replace(scenario.case, seed=seed)
    pace = pace_of(case, chaos_seconds_max)
    async with linked_cluster(directory, case.voters) as cluster:
        await cluster.wait_leader()
        workload = Workload(case, cluster.links, pace)
        nemesis = RealNemesis(cluster, workload.clients, case, pace)
        async with trio.open_nursery() as clients:
            await _suffer(cluster, workload, nemesis, clients, pace.seconds(case.chaos_ns))
            clients.cancel_scope.cancel()
        await cluster.wait_leader()
        verdict = await _reckon(cluster, workload)
        return RealRun(scenario.name, dict(nemesis.struck), await cluster.wait_applied_equally(), verdict)


async def _suffer(
    cluster: LinkedCluster, workload: Workload, nemesis: RealNemesis, clients: trio.Nursery, seconds: float
) -> None:
    """Ask and break things for so long, then heal; returns when every call has its answer."""
    started = trio.current_time()
    async with trio.open_nursery() as asking:
        asking.start_soon(workload.run, started, clients)
        async with trio.open_nursery() as breaking:
            breaking.start_soon(nemesis.run, started)
            await trio.sleep_until(started + seconds)
            await nemesis.wait_struck()
            breaking.cancel_scope.cancel()
        await cluster.recover()


async def _reckon(cluster: LinkedCluster, workload: Workload) -> RealVerdict:
    """Everybody has to answer; then everything has to end."""
    async with trio.open_nursery() as nursery:
        for node in cluster.addresses:
            nursery.start_soon(_probe, cluster, node, workload)
    async with open_client([*cluster.addresses.values()], name="judge") as connection:
        await connection.query("clock", {}, consistency="linearizable")
        await wait_settled(connection)
        records = await read_jobs(connection)
    return judge(workload.record, records, read_ledger(cluster.ledger))


async def _probe(cluster: LinkedCluster, node: int, workload: Workload) -> None:
    """A job through this very member."""
    async with open_client([cluster.addresses[node]], name=f"probe{node}") as connection:
        await workload.enqueue([], connection, 1, DEFINITE_SECONDS)


# ---------------------------------------------------------------------- the command


def run_one(scenario: Scenario, seed: int, chaos_seconds_max: float, say: Say) -> bool:
    """Run it in a temporary directory and tell what came of it; whether every promise holds."""
    pace = pace_of(scenario.case, chaos_seconds_max)
    say(f"{scenario.name}, seed {seed}: times are stretched by {pace.stretch:.2f}")
    with tempfile.TemporaryDirectory(prefix="quorker-real-") as directory:
        found = trio.run(run_real, scenario, seed, Path(directory), chaos_seconds_max)
    say(f"  {'faults':<32}{', '.join(f'{kind} {count}' for kind, count in found.struck.items())}")
    for line in found.verdict.lines():
        say(line)
    broken = found.verdict.broken
    say(f"  {'promises':<32}{'; '.join(broken) or 'all hold'}")
    return not broken


def possible(say: Say) -> list[Scenario]:
    """The shipped scenarios that real processes can run; why not, of all others."""
    found: list[Scenario] = []
    for path in shipped():
        scenario = load(path)
        try:
            require_possible(scenario)
        except InvalidInput as refusal:
            say(f"left out: {refusal}")
        else:
            found.append(scenario)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m quorker.jepsen_like.real_run", description=__doc__)
    parser.add_argument("scenario", nargs="*", help="a scenario file, or the name of a shipped one")
    parser.add_argument("--all", action="store_true", help="every shipped scenario that is possible")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=CHAOS_SECONDS_MAX, help="how long things go wrong, at most"
    )
    given = parser.parse_args(arguments)
    if bool(given.scenario) == given.all:
        parser.error("name scenarios, or give --all")
    if not 0 < given.seconds <= 600:
        parser.error(f"--seconds {given.seconds}: give more than 0 and at most 600")
    say = partial(print, flush=True)
    try:
        scenarios = possible(say) if given.all else [load(name) for name in given.scenario]
        for scenario in scenarios:
            require_possible(scenario)
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return error.exit_code
    held = [run_one(scenario, given.seed, given.seconds, say) for scenario in scenarios]
    return EXIT_OK if all(held) else EXIT_REFUSED


if __name__ == "__main__":
    raise SystemExit(main())
