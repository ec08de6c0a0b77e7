"""What a large store costs: how late event loops are during snapshots and their installation, and how long those take.

    python bench/large_store.py [--jobs 200000] [--rounds 3] [--json large_store.jsonl] [--folder DIR]

Each round starts two of three member processes, stores the jobs, and takes snapshots on the leader and on the follower
while four callers enqueue one job after another; restarts the follower from its disk; and starts the third member with
an empty directory, which is sent a snapshot. Prints medians with their spread over the rounds, and the machine's load.
`--json FILE` adds one line a round: phase, member and figure as keys; milliseconds, seconds, MiB, jobs per second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from member_protocol import Member

from quorker.app.loopback_addresses import free_addresses

LOAD_SECONDS = 5.0
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 300.0
Figures = dict[str, float]


class Cluster:
    """Three members of which the third is started late."""

    def __init__(self, folder: Path) -> None:
        self.addresses = dict(enumerate(free_addresses(3), 1))
        self.members: dict[int, Member] = {}
        self._folder = folder

    def start(self, node: int) -> None:
        config = {"node_id": node, "members": self.addresses, "data_dir": str(self._folder / f"n{node}")}
        self.members[node] = Member("store_member.py", [json.dumps(config)])

    def ask(self, node: int, do: str, **arguments: Any) -> dict[str, Any]:
        return self.members[node].ask(do, **arguments)

    def kill(self, node: int) -> None:
        self.members.pop(node).kill()

    def leader_and_follower(self) -> tuple[int, int]:
        """Once both name the same one. Raises when they do not in time."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            leaders = {self.ask(node, "status")["leader"] for node in (1, 2)}
            if leaders in ({1}, {2}):
                (leader,) = leaders
                return leader, 3 - leader
            time.sleep(POLL_SECONDS)
        raise RuntimeError("no leader was elected")

    def wait_caught_up(self, node: int, jobs: int) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            status = self.ask(node, "status")
            if status["jobs"] >= jobs and status["leader"] and status["lag"] < 100:
                return
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"node {node} did not catch up: {self.ask(node, 'status')}")


@contextmanager
def open_cluster(folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(folder)
    try:
        for node in (1, 2):
            cluster.start(node)
        yield cluster
    finally:
        for node in list(cluster.members):
            cluster.kill(node)


def measure_round(folder: Path, jobs: int) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    with open_cluster(folder) as cluster:
        leader, follower = cluster.leader_and_follower()
        found["fill, leader"] = cluster.ask(leader, "fill", count=jobs) | cluster.ask(leader, "lateness")
        found["fill, follower"] = cluster.ask(follower, "lateness")
        cluster.ask(leader, "load")
        cluster.ask(follower, "lateness")
        time.sleep(LOAD_SECONDS)
        for name, node in (("leader", leader), ("follower", follower)):
            found[f"load, {name}"] = cluster.ask(node, "lateness")
        for name, node in (("leader", leader), ("follower", follower)):
            cluster.wait_caught_up(node, jobs)
            found[f"snapshot, {name}"] = cluster.ask(node, "snapshot")
        found["memory"] = {"leader_mib": cluster.ask(leader, "status")["rss_mib"]}
        found |= measure_restart(cluster, follower, jobs)
        found |= measure_install(cluster, leader, jobs)
    return found


def measure_restart(cluster: Cluster, node: int, jobs: int) -> dict[str, Figures]:
    """From the start of the process, imports included, until it follows and has applied what it missed."""
    cluster.kill(node)
    start = time.monotonic()
    cluster.start(node)
    cluster.ask(node, "status")
    listening = time.monotonic() - start
    cluster.wait_caught_up(node, jobs)
    return {"restart": {"listening_s": listening, "caught_up_s": time.monotonic() - start}}


def measure_install(cluster: Cluster, leader: int, jobs: int) -> dict[str, Figures]:
    """From the start of an empty member until it has everything, with the load going on."""
    cluster.ask(leader, "lateness")
    start = time.monotonic()
    cluster.start(3)
    cluster.wait_caught_up(3, jobs)
    return {
        "install": {"caught_up_s": time.monotonic() - start},
        "install, leader": cluster.ask(leader, "lateness"),
        "install, receiver": cluster.ask(3, "lateness"),
    }


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):10.2f}  ({min(values):.2f} .. {max(values):.2f})"


def table(rounds: list[dict[str, Figures]]) -> list[str]:
    return [
        f"{phase:22} {figure:16} {spread([each[phase][figure] for each in rounds])}"
        for phase in rounds[0]
        for figure in rounds[0][phase]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where the logs go; must be on the disk to be measured")
    given = parser.parse_args()
    rounds: list[dict[str, Figures]] = []
    for number in range(given.rounds):
        folder = Path(tempfile.mkdtemp(prefix="quorker-large-", dir=given.folder))
        try:
            rounds.append(measure_round(folder, given.jobs))
        finally:
            shutil.rmtree(folder)
        rounds[-1]["machine"] = {"load_average": os.getloadavg()[0], "cpus": float(os.cpu_count() or 1)}
        print(f"round {number + 1} of {given.rounds} done", flush=True)
        if given.json is not None:
            with given.json.open("a") as file:
                file.write(json.dumps(rounds[-1]) + "\n")
    print("\n".join(table(rounds)))


if __name__ == "__main__":
    main()
