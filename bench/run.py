"""Measures the machine, PySyncObj 0.3.17 and quorker in one alternating run, and prints medians with their spread.

    python bench/run.py [--rounds 5] [--json bench.jsonl] [--folder DIR] [--quick]

Three member processes each on loopback; quorker fsyncs on a majority before every acknowledgement, PySyncObj writes a
journal file that it never syncs. Each round measures the machine first, so that ratios compare like with like.

`--json FILE` adds one line a round, an object {system: {what was measured: {figure: number}}}. Systems are `machine`,
`quorker` and `pysyncobj`; figures end in their unit: `per_second`, `_ms`, `_s`, `_mib`, `_percent` (of one CPU). `cpu_s` is
what the process that was asked used meanwhile; `n1_`, `n2_` and `n3_` are the members, in the order of their ids.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
from member_protocol import Member

CONCURRENCIES = (1, 16, 64, 256)
MEMBERS = 3
IDLE_SECONDS = 5.0
Figures = dict[str, float]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def quorker_cluster(folder: Path) -> Iterator[list[Member]]:
    addresses = {node + 1: f"127.0.0.1:{port}" for node, port in enumerate(free_ports(MEMBERS))}
    members = []
    for node in addresses:
        config = {"node_id": node, "members": addresses, "data_dir": str(folder / f"n{node}")}
        members.append(Member("quorker_member.py", [json.dumps(config)]))
    try:
        yield members
    finally:
        for member in members:
            member.kill()


@contextmanager
def pysyncobj_cluster(folder: Path) -> Iterator[list[Member]]:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(MEMBERS)]
    members = []
    for number, own in enumerate(addresses):
        others = [address for address in addresses if address != own]
        members.append(
            Member("pysyncobj_member.py", [own, ",".join(others), str(folder / f"p{number}.journal")])
        )
    try:
        yield members
    finally:
        for member in members:
            member.kill()


def find_leader(members: list[Member], patience: float = 20.0) -> tuple[Member, Member]:
    """(leader, one follower), once all agree. Raises when there is none in time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        answers = [member.ask("leader") for member in members]
        leaders = {str(answer["leader"]) for answer in answers}
        if len(leaders) == 1 and leaders <= {str(answer["own"]) for answer in answers}:
            leading = leaders.pop()
            leader = next(m for m, a in zip(members, answers, strict=True) if str(a["own"]) == leading)
            return leader, next(member for member in members if member is not leader)
        time.sleep(0.1)
    raise RuntimeError("no leader was elected")


def sizes(concurrency: int, quick: bool) -> int:
    count = {1: 400, 16: 3000, 64: 8000, 256: 12000}[concurrency]
    return count // 8 if quick else count


def measure_load(members: list[Member], quick: bool) -> dict[str, Figures]:
    leader, follower = find_leader(members)
    leader.ask("enqueue", concurrency=64, count=1000)
    found = {"enqueue C=1 follower": follower.ask("enqueue", concurrency=1, count=sizes(1, quick))}
    for concurrency in CONCURRENCIES:
        count = sizes(concurrency, quick)
        found[f"enqueue C={concurrency}"] = leader.ask("enqueue", concurrency=concurrency, count=count)
        found[f"whole C={concurrency}"] = leader.ask("whole", concurrency=concurrency, count=count // 2)
    return found


def measure_quorker(folder: Path, quick: bool) -> dict[str, Figures]:
    with quorker_cluster(folder) as members:
        found = measure_load(members, quick)
        leader, follower = find_leader(members)
        found["idle enqueue to start"] = leader.ask("idle", count=50)
        stored = 10_000 if quick else 100_000
        before = cpu_seconds(members)
        found["fill"] = leader.ask("fill", count=stored)
        used = cpu_seconds(members)
        found[f"cpu to store {stored} jobs"] = named(members, "s", differences(before, used))
        found[f"rss with {stored} jobs"] = named(
            members, "mib", [member.ask("memory")["rss_mib"] for member in members]
        )
        found[f"cpu idle, {stored} jobs"] = named(members, "percent", measure_idle(members))
        found["failover"] = measure_failover(leader, follower)
    return found


def cpu_seconds(members: list[Member]) -> list[float]:
    return [member.ask("cpu")["cpu"] for member in members]


def differences(before: list[float], after: list[float]) -> list[float]:
    return [late - early for early, late in zip(before, after, strict=True)]


def named(members: list[Member], unit: str, values: list[float]) -> Figures:
    return {
        f"n{number}_{unit}": value for (number, _), value in zip(enumerate(members, 1), values, strict=True)
    }


def measure_idle(members: list[Member]) -> list[float]:
    """Percent of one CPU that each member uses while nobody asks anything."""
    before, start = cpu_seconds(members), time.monotonic()
    time.sleep(IDLE_SECONDS)
    used = differences(before, cpu_seconds(members))
    return [100 * each / (time.monotonic() - start) for each in used]


def measure_failover(leader: Member, follower: Member) -> Figures:
    """From SIGKILL of the leader to the first acknowledged write at another member, in seconds."""
    killed = time.monotonic()
    leader.kill()
    return {"gap_s": follower.ask("until_written")["at"] - killed}


def measure_round(folder: Path, quick: bool) -> dict[str, dict[str, Figures]]:
    found: dict[str, dict[str, Figures]] = {}
    found["machine"] = {
        "append 4 KiB + fdatasync": machine.fdatasync_rate(folder),
        "loopback round trip": machine.loopback_round_trip(),
    }
    found["quorker"] = measure_quorker(folder / "quorker", quick)
    journals = folder / "pysyncobj"
    journals.mkdir()
    with pysyncobj_cluster(journals) as members:
        found["pysyncobj"] = measure_load(members, quick)
        found["pysyncobj"]["failover"] = {}
    return found


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):10.3f}  ({min(values):.3f} .. {max(values):.3f})"


def table(rounds: list[dict[str, Any]]) -> list[str]:
    lines = []
    for system in rounds[0]:
        for what in rounds[0][system]:
            for figure in rounds[0][system][what]:
                values = [each[system][what][figure] for each in rounds]
                lines.append(f"{system:10} {what:26} {figure:12} {spread(values)}")
    return lines


def ratios(rounds: list[dict[str, Any]]) -> list[str]:
    """The figures that the project holds itself to, against the same round's own fdatasync rate."""
    sync = [each["machine"]["append 4 KiB + fdatasync"] for each in rounds]
    quorker = [each["quorker"] for each in rounds]

    def against(what: str) -> list[float]:
        return [
            own[what]["per_second"] / limit["per_second"] for own, limit in zip(quorker, sync, strict=True)
        ]

    p50 = [own["enqueue C=1"]["p50_ms"] / limit["p50_ms"] for own, limit in zip(quorker, sync, strict=True)]
    return [
        f"enqueue C=64 / fdatasync rate      {spread(against('enqueue C=64'))}   at least 3",
        f"whole jobs C=64 / fdatasync rate   {spread(against('whole C=64'))}   at least 1",
        f"enqueue C=1 p50 / fdatasync p50    {spread(p50)}   at most 6",
        f"enqueue C=64 p99 ms                {spread([own['enqueue C=64']['p99_ms'] for own in quorker])}   at most 15",
        f"failover gap s                     {spread([own['failover']['gap_s'] for own in quorker])}   at most 1.5",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where the logs go; must be on the disk to be measured")
    parser.add_argument("--quick", action="store_true", help="an eighth of the work, to see that it runs")
    arguments = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        folder = Path(tempfile.mkdtemp(prefix="quorker-bench-", dir=arguments.folder))
        try:
            rounds.append(measure_round(folder, arguments.quick))
        finally:
            shutil.rmtree(folder)
        print(f"round {number + 1} of {arguments.rounds} done", flush=True)
        if arguments.json is not None:
            with arguments.json.open("a") as file:
                file.write(json.dumps(rounds[-1]) + "\n")
    print("\n".join([*table(rounds), "", *ratios(rounds)]))


if __name__ == "__main__":
    main()
