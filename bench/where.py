"""Prints where the leader and the followers spend their CPU time under one kind of load.

    python bench/where.py [enqueue|whole] [--concurrency 64] [--count 20000] [--places] [--folder DIR]

Three member processes on loopback, as in run.py. Figures per command are CPU time, which a busy machine changes least.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from member_protocol import Member
from run import find_leader, quorker_cluster


def measure(members: list[Member], what: str, concurrency: int, count: int, kinds: list[str]) -> None:
    leader, _ = find_leader(members)
    leader.ask(what, concurrency=concurrency, count=max(1, count // 10))
    before = [member.ask("cpu")["cpu"] for member in members]
    for member in members:
        member.ask("sample")
    figures = leader.ask(what, concurrency=concurrency, count=count)
    samples = [member.ask("sampled") for member in members]
    spent = [member.ask("cpu")["cpu"] - at for member, at in zip(members, before, strict=True)]
    print(f"{what} C={concurrency}: {figures['per_second']:,.0f} per second, ", end="")
    print(f"p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms")
    for member, used, found in zip(members, spent, samples, strict=True):
        name = "leader" if member is leader else "follower"
        print(f"{name}: {used / count * 1e6:.0f} us of CPU per command")
        for kind in kinds:
            print_shares(found[kind], sum(found["parts"].values()))


def print_shares(counts: dict[str, int], total: int) -> None:
    for name, samples in sorted(counts.items(), key=lambda item: -item[1]):
        print(f"  {100 * samples / total:5.1f} %  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["enqueue", "whole"], default="enqueue")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--places", action="store_true", help="also by function")
    parser.add_argument("--folder", type=Path, help="where the logs go")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="quorker-where-", dir=arguments.folder))
    try:
        with quorker_cluster(folder) as members:
            kinds = ["parts", "places"] if arguments.places else ["parts"]
            measure(members, arguments.what, arguments.concurrency, arguments.count, kinds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
