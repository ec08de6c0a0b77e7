"""Performs a scenario's plan of faults on real processes and on the links between them, and ends all of it at once.

Draws are those of the simulator: the same members are clogged, and the same rings made. What must not live here: clients'
operations, and any judgement.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import trio

from quorker.app.demo.verdict import Kill
from quorker.jepsen_like.links import Link, Links, Pair
from quorker.jepsen_like.processes import ProcessCluster
from quorker.jepsen_like.real_case import Pace
from quorker.sim.cases.case import Case, Fault, FaultKind, Target
from quorker.sim.faults.network import unseen
from quorker.sim.world.kernel import MS
from quorker.sim.world.randomness import Stream

OPTIONS: Final = ("--workers", "8")


class Crashable(Protocol):
    """A client that can be made to lose all it knows."""

    def crash(self, seconds: float) -> None: ...


class LinkedCluster(ProcessCluster):
    """Members that find each other through links. Each may be killed while it starts."""

    def __init__(self, directory: Path, count: int) -> None:
        super().__init__(directory, count, options=OPTIONS)
        self.links = Links(self.addresses)
        self.kills: list[Kill] = []
        self._held: Counter[int] = Counter()
        self._starting: dict[int, trio.CancelScope] = {}
        self._locks = {node: trio.Lock() for node in self.addresses}

    def seen_by(self, node: int) -> Mapping[int, str]:
        return self.links.seen_by(node, self.addresses[node])

    async def crash(self, node: int, seconds: float) -> None:
        """Kill it, and start it again when this and every other crash of it has lasted so long."""
        self._held[node] += 1
        self.kills.append(Kill(node, time.time()))
        if node in self._starting:
            self._starting[node].cancel()
        async with self._locks[node]:
            if node in self.running:
                await self.kill(node)
        await trio.sleep(seconds)
        self._held[node] -= 1
        if not self._held[node]:
            await self._start_again(node)

    async def _start_again(self, node: int) -> None:
        async with self._locks[node]:
            with trio.CancelScope() as self._starting[node]:
                await self.start(node)
            del self._starting[node]

    async def recover(self) -> None:
        """Heal, wake and restart everything; nobody else may do anything with the members by now."""
        self.links.free()
        self.resume(*(node for node in sorted(self.paused) if node in self.running))
        self.paused.clear()
        async with trio.open_nursery() as nursery:
            for node in self.addresses:
                if node not in self.running:
                    nursery.start_soon(self.start, node)

    async def leader(self) -> int | None:
        """Who says so itself, in the highest term; None when nobody does."""
        found: list[tuple[int, int]] = []

        async def ask(node: int) -> None:
            status = await self.status(node)
            if status is not None and status.leader == node:
                found.append((status.term, node))

        async with trio.open_nursery() as nursery:
            for node in self.awake:
                nursery.start_soon(ask, node)
        return max(found)[1] if found else None


@asynccontextmanager
async def linked_cluster(directory: Path, count: int) -> AsyncGenerator[LinkedCluster]:
    """Running members and their links; all gone at the end of the block."""
    cluster = LinkedCluster(directory, count)
    async with trio.open_nursery() as nursery:
        await cluster.links.open(nursery)
        try:
            await cluster.start_all()
            yield cluster
        finally:
            await cluster.stop_all()
            nursery.cancel_scope.cancel()


class RealNemesis:
    """Whoever breaks things. `run` ends with the plan; cancelling it leaves everything as broken as it is."""

    def __init__(
        self, cluster: LinkedCluster, clients: Mapping[int, Crashable], case: Case, pace: Pace
    ) -> None:
        self.struck: Counter[str] = Counter()
        self._cluster = cluster
        self._links = cluster.links
        self._clients = clients
        self._case = case
        self._pace = pace
        self._ways = self._all_ways()
        self._struck_all = trio.Event()

    async def run(self, started: float) -> None:
        async with trio.open_nursery() as nursery:
            for fault in self._case.plan:
                nursery.start_soon(self._strike, fault, started)

    async def wait_struck(self) -> None:
        """Until every fault of the plan has struck; on a busy machine the last one may be late."""
        if self._case.plan:
            await self._struck_all.wait()

    async def _strike(self, fault: Fault, started: float) -> None:
        await trio.sleep_until(started + self._pace.seconds(fault.at_ns))
        node = await self._target(fault)
        self.struck[fault.kind] += 1
        if self.struck.total() == len(self._case.plan):
            self._struck_all.set()
        await self._ways[fault.kind](node, fault)

    async def _target(self, fault: Fault) -> int:
        if fault.target is Target.ANY:
            return fault.node
        leader = await self._cluster.leader()
        if fault.target is Target.LEADER and leader is not None:
            return leader
        if fault.target is Target.FOLLOWER and fault.node == leader:
            return fault.node % self._case.voters + 1
        return fault.node

    def _all_ways(self) -> dict[FaultKind, Callable[[int, Fault], Awaitable[None]]]:
        links = self._links
        cuts: dict[FaultKind, Callable[[int, Fault], list[Pair]]] = {
            FaultKind.ISOLATE: lambda node, _: links.around(node),
            FaultKind.DEAF: lambda node, _: links.to(node),
            FaultKind.MUTE: lambda node, _: links.from_(node),
            FaultKind.SPLIT: lambda _, fault: links.across(fault.amount),
            FaultKind.BRIDGE: lambda node, fault: links.across(fault.amount, node),
            FaultKind.LINK: self._one_link,
            FaultKind.RING: lambda _, fault: unseen(self._shuffled(fault)),
        }
        return {
            **{kind: partial(self._cut, pairs) for kind, pairs in cuts.items()},
            FaultKind.CRASH: lambda node, fault: self._cluster.crash(node, self._length(fault)),
            FaultKind.POWER_CUT: self._power_cut,
            FaultKind.PAUSE: self._pause,
            FaultKind.FLAPPING: self._flapping,
            FaultKind.CLOG: lambda node, fault: self._clog(links.of(links.around(node)), self._length(fault)),
            FaultKind.SWIZZLE: self._swizzle,
            FaultKind.CONNECTION_RESET: lambda node, _: self._reset(links.of(links.around(node))),
            FaultKind.LINE_RESET: lambda node, _: self._reset([links.fronts[node]]),
            FaultKind.LINE_STALL: lambda node, fault: self._clog([links.fronts[node]], self._length(fault)),
            FaultKind.CLIENT_CRASH: self._client_crash,
        }

    def _length(self, fault: Fault) -> float:
        return self._pace.seconds(fault.for_ns)

    # ------------------------------------------------------------------ processes

    async def _power_cut(self, _: int, fault: Fault) -> None:
        async with trio.open_nursery() as nursery:
            for node in self._cluster.addresses:
                nursery.start_soon(self._cluster.crash, node, self._length(fault))

    async def _pause(self, node: int, fault: Fault) -> None:
        if node not in self._cluster.awake:
            return
        self._cluster.pause(node)
        await trio.sleep(self._length(fault))
        if node in self._cluster.paused:
            self._cluster.resume(node)

    async def _client_crash(self, _: int, fault: Fault) -> None:
        client = self._clients.get(fault.node)
        if client is not None:
            client.crash(self._length(fault))

    # ------------------------------------------------------------------ links

    async def _cut(self, pairs: Callable[[int, Fault], list[Pair]], node: int, fault: Fault) -> None:
        await self._cut_for(self._links.of(pairs(node, fault)), self._length(fault))

    async def _cut_for(self, links: list[Link], seconds: float) -> None:
        for link in links:
            link.cut()
        try:
            await trio.sleep(seconds)
        finally:
            for link in links:
                link.heal()

    def _one_link(self, node: int, fault: Fault) -> list[Pair]:
        other = fault.peer or fault.amount % self._case.voters + 1
        return [] if other == node else [(node, other)]

    async def _flapping(self, node: int, fault: Fault) -> None:
        """Cut off and back; if the target is the leader, whoever leads by then."""
        period = self._pace.seconds(max(fault.amount, 1) * MS)
        with trio.move_on_after(self._length(fault)):
            while True:
                leader = await self._cluster.leader() if fault.target is Target.LEADER else None
                await self._cut_for(self._links.of(self._links.around(leader or node)), period)
                await trio.sleep(period)

    async def _clog(self, links: list[Link], seconds: float) -> None:
        for link in links:
            link.clog()
        try:
            await trio.sleep(seconds)
        finally:
            for link in links:
                link.unclog()

    async def _swizzle(self, _: int, fault: Fault) -> None:
        draw, half = self._draw(fault), max(1, fault.for_ns // 2)
        chosen = self._shuffled(fault)[: (self._case.voters + 1) // 2]
        async with trio.open_nursery() as nursery:
            for node in chosen:
                begin, end = draw.below(min(half, 1 << 32)), half + draw.below(min(half, 1 << 32))
                nursery.start_soon(self._clog_between, node, begin, end)

    async def _clog_between(self, node: int, begin_ns: int, end_ns: int) -> None:
        await trio.sleep(self._pace.seconds(begin_ns))
        await self._clog(self._links.of(self._links.around(node)), self._pace.seconds(end_ns - begin_ns))

    async def _reset(self, links: list[Link]) -> None:
        for link in links:
            link.reset()
        await trio.lowlevel.checkpoint()

    def _draw(self, fault: Fault) -> Stream:
        return Stream(self._case.seed, "fault", fault.kind, fault.at_ns, fault.amount)

    def _shuffled(self, fault: Fault) -> list[int]:
        order = list(self._cluster.addresses)
        self._draw(fault).shuffle(order)
        return order
