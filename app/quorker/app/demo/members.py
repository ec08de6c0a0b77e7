"""The demo's members: processes on this machine that write the demo's ledger, and what was done to them and when."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from quorker.app.demo.ledger import ledger_environment
from quorker.app.demo.verdict import Kill
from quorker.app.local_members import LocalMembers


class Members(LocalMembers):
    """`started_at` and `kills` are in seconds of the wall clock, as the ledger is."""

    def __init__(self, directory: Path, count: int, workers: int) -> None:
        super().__init__(directory, count, "quorker.app.demo.tasks:app", options=("--workers", str(workers)))
        self.ledger = directory / "ledger"
        self.ledger.mkdir()
        self.kills: list[Kill] = []
        self.started_at: dict[int, float] = {}

    async def start(self, node: int) -> None:
        self.started_at[node] = time.time()
        await super().start(node)

    async def kill(self, *nodes: int) -> None:
        at = time.time()
        await super().kill(*nodes)
        self.kills += [Kill(node, at) for node in nodes]

    def environment(self, node: int) -> Mapping[str, str]:
        return ledger_environment(self.ledger, node)
