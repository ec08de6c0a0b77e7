"""How long the judge of histories takes for each recorded history: verdict, operations, steps of the search, milliseconds.

python bench/linearizability.py FOLDER      the folder with verdicts.json, etcd/ and kv/
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from quorker.jepsen_like.history import Operation
from quorker.jepsen_like.linearizability import Verdict, judge
from quorker.jepsen_like.models import Model, Register, TextMap
from quorker.jepsen_like.recorded import register_history, text_map_history

TIMES = 3


def read(folder: Path, name: str) -> tuple[list[Operation], Model]:
    if name.startswith("kv-"):
        path = folder / "kv" / f"{name.removeprefix('kv-')}.txt"
        return text_map_history(path.read_text().splitlines()), TextMap()
    return register_history((folder / "etcd" / f"{name}.log").read_text().splitlines()), Register()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    right, total = 0, 0.0
    verdicts: dict[str, bool] = json.loads((folder / "verdicts.json").read_text())
    for name, linearizable in sorted(verdicts.items()):
        history, model = read(folder, name)
        spent: list[float] = []
        for _ in range(TIMES):
            start = time.perf_counter()
            found = judge(history, model)
            spent.append((time.perf_counter() - start) * 1000)
        expected = Verdict.LINEARIZABLE if linearizable else Verdict.NOT_LINEARIZABLE
        right += found.verdict is expected
        total += statistics.median(spent)
        print(
            f"{name:12} {found.verdict:17} {'as known' if found.verdict is expected else 'WRONG':9}"
            f"{len(history):5} operations {found.steps:8} steps {statistics.median(spent):9.2f} ms"
        )
    print(f"{right} of {len(verdicts)} verdicts are right, {total:.0f} ms in all")


if __name__ == "__main__":
    main()
