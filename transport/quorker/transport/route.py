"""A client's way to the cluster: one connection to any of its members, and on to the next when it ends.

What is asked and answered on it is `client.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import trio

from quorker.core.errors import NotApplied, ProtocolError, QuorkerError
from quorker.core.wire import requests
from quorker.core.wire.frames import Frame
from quorker.core.wire.handshake import Party
from quorker.core.wire.requests import (
    KNOWN,
    SENT_TO_CLIENTS,
    ClientRequest,
    Encoder,
    Role,
    Speech,
    Unsupported,
)
from quorker.transport.endpoint import LOCALHOST, UNIX_PREFIX, Endpoint
from quorker.transport.greeting import ConnectionRefused, Credentials, Destination, greet_dialled
from quorker.transport.peers import DIAL_SECONDS_MAX, Backoff
from quorker.transport.sockets import dial_tcp, dial_unix
from quorker.transport.stream import ConnectionLost, FrameStream

log = logging.getLogger("quorker.transport.client")


class Route:
    """Keeps a client connected. `on_records` gets everything one wake brought; it must not block."""

    def __init__(
        self,
        addresses: Sequence[Endpoint | Path],
        credentials: Credentials,
        role: Role,
        party: Party,
        name: str,
        on_records: Callable[[list[Speech]], None],
        on_up: Callable[[], None],
    ) -> None:
        self.addresses = _in_order_of_trial(addresses, Random())
        self.remote: Party | None = None  # who is at the other end, while there is one
        self._credentials = credentials
        self._role = role
        self._party = party
        self._name = name
        self._on_records = on_records
        self._on_up = on_up
        self._encoder = Encoder()
        self._stream: FrameStream | None = None
        self.connections = 0  # so far
        self._errors: dict[str, QuorkerError] = {}  # of the last attempt at each address
        self._changed = trio.Event()  # replaced whenever a connection came about or an attempt ended

    @property
    def is_up(self) -> bool:
        return self._stream is not None

    def send(self, record: ClientRequest) -> bool:
        """False when it was not taken: not connected, or too much waits already."""
        return self._stream is not None and self._stream.send((self._encoder.encode(record),))

    def give_up(self) -> None:
        """This member does not get anywhere: try the next one."""
        if self._stream is not None and len(self.addresses) > 1:
            self._stream.close()

    async def wait_up(self, seconds: float) -> None:
        """Wait for the first connection.

        Raises the reason named by a member once every address was tried and one refused us for good; `NotApplied` when
        nobody answers within `seconds`.
        """
        with trio.move_on_after(seconds):
            while not self.is_up:
                self._raise_if_hopeless()
                await self._changed.wait()
            return
        tried = "; ".join(f"{address}: {error}" for address, error in self._errors.items())
        raise NotApplied(f"no member answered within {seconds} s ({tried or 'no attempt has ended'})")

    def _raise_if_hopeless(self) -> None:
        if len(self._errors) < len(self.addresses):
            return
        for error in self._errors.values():
            if not isinstance(error, NotApplied):
                raise error

    async def run(self) -> None:
        """Dial one address after the other, until cancelled."""
        backoff = Backoff(Random())
        while True:
            for address in self.addresses:
                before = self.connections
                await self._attempt(address)
                if self.connections > before:
                    backoff.reset()
                self._notify()
            await trio.sleep(backoff.next_pause())

    def _notify(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _attempt(self, address: Endpoint | Path) -> None:
        """One connection from dial to end. Whatever ends it, another one follows."""
        text = f"{UNIX_PREFIX}{address}" if isinstance(address, Path) else str(address)
        try:
            await self._connect(address)
        except ConnectionRefused as error:
            self._errors[text] = error.refusal.to_error(text)
        except ProtocolError as error:
            self._errors[text] = ProtocolError(f"{text}: {error}")
        except (OSError, ConnectionLost) as error:
            self._errors[text] = NotApplied(str(error) or type(error).__name__)
        except Exception as error:
            log.exception("the connection to %s ended by an error of this client", text)
            self._errors[text] = NotApplied(f"{type(error).__name__}: {error}")
        else:
            self._errors.pop(text, None)
        if text in self._errors:
            log.info("%s: %s", text, self._errors[text])

    async def _connect(self, address: Endpoint | Path) -> None:
        stream: trio.abc.Stream | None = None
        with trio.move_on_after(DIAL_SECONDS_MAX):
            stream = await (dial_unix(address) if isinstance(address, Path) else dial_tcp(address))
        if stream is None:
            raise ConnectionLost(f"nobody answered within {DIAL_SECONDS_MAX} s")
        try:
            private = isinstance(address, Path)
            host = LOCALHOST if isinstance(address, Path) else address.host
            destination = Destination(self._role, self._party, host, name=self._name, private=private)
            await self._use(await greet_dialled(stream, self._credentials, destination))
        finally:
            await trio.aclose_forcefully(stream)

    async def _use(self, framed: FrameStream) -> None:
        self._stream, self.remote = framed, framed.established.remote
        self.connections += 1
        try:
            self._on_up()
            self._notify()
            await framed.run(self._on_frames)
        finally:
            framed.close()
            self._stream = self.remote = None

    def _on_frames(self, frames: list[Frame]) -> None:
        records: list[Speech] = []
        for kind, payload in frames:
            if kind not in KNOWN:
                continue  # a newer member says what this version does not need
            if kind not in SENT_TO_CLIENTS:
                raise ProtocolError(f"a member must not send frames of kind {kind} to a client")
            record = requests.decode(kind, payload)
            if not isinstance(record, Unsupported):
                records.append(record)
        if records:
            self._on_records(records)


def _in_order_of_trial(addresses: Sequence[Endpoint | Path], random: Random) -> list[Endpoint | Path]:
    """Unix sockets first, as given; then the others in any order, so that clients spread over the members."""
    near = [address for address in addresses if isinstance(address, Path)]
    far = [address for address in addresses if not isinstance(address, Path)]
    return near + random.sample(far, len(far))
