"""TCP proxies between real members, one for each direction, and one before each member for its clients: what a nemesis cuts.

A member sends on the connection that it dialled, so one proxy is one direction. Nothing is dropped out of the middle of a
stream, which TCP would never do: a cut link carries nothing, and when it heals, its connections break with what they held.
What must not live here: when links are cut, and which.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import trio

from quorker.transport.endpoint import parse_endpoint

Pair: TypeAlias = tuple[int, int]
"""(who sends, who hears)."""

READ_BYTES: Final = 64 << 10
HOST: Final = "127.0.0.1"
_ABORT: Final = struct.pack("ii", 1, 0)  # linger for no time: closing resets


@dataclass(frozen=True, slots=True, eq=False)
class _Carried:
    """One connection through a link."""

    near: trio.SocketStream
    scope: trio.CancelScope


class Link:
    """A proxy before `target`. Cuts and clogs are counted: each has to end before bytes move again."""

    def __init__(self, target: str) -> None:
        self.address = ""
        self._target = parse_endpoint(target, what="target of a link")
        self._carried: list[_Carried] = []
        self._cuts = self._clogs = 0
        self._opened = trio.Event()

    async def open(self, nursery: trio.Nursery) -> None:
        """Listen on `address` from now on, until the nursery is cancelled."""
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        self.address = f"{HOST}:{listeners[0].socket.getsockname()[1]}"
        nursery.start_soon(partial(trio.serve_listeners, self._serve, listeners, handler_nursery=nursery))

    # ------------------------------------------------------------------ what goes wrong

    def cut(self) -> None:
        self._cuts += 1

    def heal(self) -> None:
        self._cuts = max(0, self._cuts - 1)
        if not self._cuts:
            self.reset()
        self._wake()

    def clog(self) -> None:
        self._clogs += 1

    def unclog(self) -> None:
        """What was held arrives now."""
        self._clogs = max(0, self._clogs - 1)
        self._wake()

    def reset(self) -> None:
        """Break all connections, with what is under way on them."""
        for carried in self._carried:
            carried.near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            carried.scope.cancel()

    def free(self) -> None:
        """End all that is wrong with this link."""
        if self._cuts or self._clogs:
            self.reset()
        self._cuts = self._clogs = 0
        self._wake()

    @property
    def is_open(self) -> bool:
        return not self._cuts and not self._clogs

    def _wake(self) -> None:
        if self.is_open:
            opened, self._opened = self._opened, trio.Event()
            opened.set()

    # ------------------------------------------------------------------ bytes

    async def _serve(self, near: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            carried = _Carried(near, scope)
            self._carried.append(carried)
            try:
                await self._carry(near)
            except (OSError, trio.BrokenResourceError):
                pass  # nobody listens there: the member is down, and its dialler learns it as from a real network
            finally:
                self._carried.remove(carried)

    async def _carry(self, near: trio.SocketStream) -> None:
        async with near:
            await self._wait_open()
            far = await trio.open_tcp_stream(self._target.host, self._target.port)
            async with far, trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, near, far, nursery.cancel_scope)
                nursery.start_soon(self._pump, far, near, nursery.cancel_scope)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            while data := await source.receive_some(READ_BYTES):
                await self._wait_open()
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass  # one side is gone: the other one hears of it now
        scope.cancel()

    async def _wait_open(self) -> None:
        while not self.is_open:
            await self._opened.wait()


class Links:
    """All links of a cluster. `fronts`: before each member, where its clients come in."""

    def __init__(self, addresses: Mapping[int, str]) -> None:
        self.nodes = list(addresses)
        self.between = {
            (one, other): Link(addresses[other]) for one in self.nodes for other in self.nodes if one != other
        }
        self.fronts = {node: Link(address) for node, address in addresses.items()}

    async def open(self, nursery: trio.Nursery) -> None:
        for link in (*self.between.values(), *self.fronts.values()):
            await link.open(nursery)

    def seen_by(self, node: int, own: str) -> dict[int, str]:
        """The addresses at which this member finds the others, and its own."""
        return {other: own if other == node else self.between[node, other].address for other in self.nodes}

    def free(self) -> None:
        for link in (*self.between.values(), *self.fronts.values()):
            link.free()

    def of(self, pairs: Iterable[Pair]) -> list[Link]:
        return [self.between[pair] for pair in pairs]

    # ------------------------------------------------------------------ which links

    def to(self, node: int) -> list[Pair]:
        return [(other, node) for other in self.nodes if other != node]

    def from_(self, node: int) -> list[Pair]:
        return [(node, other) for other in self.nodes if other != node]

    def around(self, node: int) -> list[Pair]:
        return self.to(node) + self.from_(node)

    def across(self, sides: int, *spared: int) -> list[Pair]:
        """Both directions between two groups; bit i of `sides` tells the group of node i."""
        return [
            (one, other)
            for one, other in self.between
            if (sides >> one ^ sides >> other) & 1 and one not in spared and other not in spared
        ]
