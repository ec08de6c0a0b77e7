"""Real members in this process: real sockets, files and clocks on one trio loop. They stop and restart, and never crash.

For crashes there are real processes (`processes.py`). What is asked of a member here looks into it directly.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import trio

from quorker.app.loopback_addresses import free_addresses
from quorker.core.errors import QuorkerError
from quorker.core.raft.messages import NOBODY
from quorker.jepsen_like.waiting import wait_until
from quorker.transport.node import Node
from quorker.transport.node_config import NodeConfig
from quorker.transport.node_start import open_node


@dataclass(slots=True, eq=False)
class _Run:
    """One life of one member."""

    node: Node
    stop: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    failure: QuorkerError | None = None


class LocalCluster:
    """Made by `local_cluster`. `configs` may be changed while a member is stopped."""

    def __init__(self, nursery: trio.Nursery, configs: Iterable[NodeConfig]) -> None:
        self.configs = {config.node_id: config for config in configs}
        self._nursery = nursery
        self._runs: dict[int, _Run] = {}

    # ------------------------------------------------------------------ life

    async def start(self, *numbers: int) -> None:
        """Returns when all of them listen; raises what keeps one of them from starting."""
        async with trio.open_nursery() as nursery:
            for number in numbers or tuple(self.configs):
                nursery.start_soon(self._nursery.start, self._run, number)

    async def stop(self, *numbers: int) -> None:
        """Stop gracefully, all at once; raises the failure of one that had failed before."""
        for number in numbers:
            self._runs[number].stop.set()
        for number in numbers:
            run = self._runs[number]
            await run.ended.wait()
            if run.failure is not None:
                raise run.failure

    async def restart(self, *numbers: int) -> None:
        await self.stop(*numbers)
        await self.start(*numbers)

    async def wait_failed(self, number: int) -> QuorkerError:
        """The reason for which this member, once started, has stopped by itself."""
        run = self._runs[number]
        await wait_until(run.ended.is_set, f"node {number} stops by itself")
        assert run.failure is not None, f"node {number} was stopped"
        return run.failure

    async def _run(self, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        run: _Run | None = None
        try:
            async with open_node(self.configs[number]) as node:
                run = self._runs[number] = _Run(node)
                task_status.started()
                await run.stop.wait()
        except QuorkerError as error:
            if run is None:
                raise
            run.failure = error
        finally:
            if run is not None:
                run.ended.set()

    # ------------------------------------------------------------------ who is there

    def __getitem__(self, number: int) -> Node:
        return self._runs[number].node

    @property
    def running(self) -> list[int]:
        return sorted(number for number, run in self._runs.items() if not run.ended.is_set())

    @property
    def nodes(self) -> list[Node]:
        return [self[number] for number in self.running]

    async def wait_leader(self, *unwanted: int) -> Node:
        """The member that leads and that all running ones follow; not one of `unwanted`."""
        await wait_until(lambda: self._leader(unwanted) is not None, "all members follow one leader")
        leader = self._leader(unwanted)
        assert leader is not None
        return leader

    def _leader(self, unwanted: tuple[int, ...]) -> Node | None:
        named = {node.replica.raft.leader for node in self.nodes}
        if len(named) != 1:
            return None
        (number,) = named
        known = number != NOBODY and number not in unwanted and number in self.running
        return self[number] if known and self[number].is_leader else None

    async def elect(self, number: int) -> Node:
        """Make this member the leader now, instead of after somebody's timeout; all have sessions then."""
        node = self[number]

        def leads() -> bool:
            raft = node.replica.raft
            if raft.leader == NOBODY and all(
                node.is_connected(peer) for peer in self.running if peer != number
            ):
                node.replica.campaign()
                node.driver.wake()
            elif raft.leader in self.running:
                self[raft.leader].replica.transfer(number)
                self[raft.leader].driver.wake()
            return node.is_leader

        await wait_until(leads, f"node {number} leads")
        await wait_until(lambda: all(node.session_id for node in self.nodes), "all have sessions")
        return await self.wait_leader()

    async def wait_followers(self) -> tuple[Node, list[Node]]:
        """(the leader, the others)."""
        leader = await self.wait_leader()
        return leader, [node for node in self.nodes if node is not leader]

    # ------------------------------------------------------------------ what they hold

    async def wait_equal(self) -> int:
        """Return the index that all running members have applied, once they agree; their states must be the same."""

        def agree() -> bool:
            logs = {(node.replica.raft.last_index, node.replica.store_index) for node in self.nodes}
            return len(logs) == 1 and all(last == applied for last, applied in logs)

        await wait_until(agree, "all members have applied the same")
        digests = {node.node_id: node.replica.store.digest() for node in self.nodes}
        assert len(set(digests.values())) == 1, f"members differ: {digests}"
        return self.nodes[0].replica.store_index


QUICK: Final = NodeConfig(data_dir=Path(), profile="fast", segment_bytes=1 << 20, reserve_bytes=0)


def cluster_configs(
    directory: Path, count: int = 3, host: str = "127.0.0.1", **settings: Any
) -> list[NodeConfig]:
    """`count` members on free ports, with fast timings and small files unless `settings` say otherwise."""
    members = dict(enumerate(free_addresses(count, host), start=1))
    shared = replace(QUICK, members=members, **settings)
    return [
        replace(shared, data_dir=directory / f"n{number}", node_id=number, listen=address)
        for number, address in members.items()
    ]


@asynccontextmanager
async def local_cluster(
    directory: Path, count: int = 3, *, start: bool = True, host: str = "127.0.0.1", **settings: Any
) -> AsyncGenerator[LocalCluster]:
    """`count` members with data below `directory`; stopped at the end of the block, abandoned when it raises."""
    async with trio.open_nursery() as nursery:
        cluster = LocalCluster(nursery, cluster_configs(directory, count, host, **settings))
        if start:
            await cluster.start()
        yield cluster
        await cluster.stop(*cluster.running)
        nursery.cancel_scope.cancel()
