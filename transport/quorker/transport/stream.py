"""One authenticated connection: frames in, frames out, over a plain socket, a unix socket, TLS or memory.

Sending never blocks its caller. On a plain socket it is one system call on the spot; only what the kernel does not take
at once, and everything on TLS, waits in a bounded queue for the writer task. What frames mean must not live here,
except for pings, which keep a quiet connection alive and measure it.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from quorker.core.wire import requests
from quorker.core.wire.frames import Frame, FrameReader, FrameWriter, Outgoing, WireLimits
from quorker.core.wire.handshake import Established
from quorker.core.wire.requests import Ping, Pong
from quorker.transport.clock import monotonic_ms

READ_BYTES: Final = 64 << 10
WRITE_BYTES: Final = 256 << 10
_PONG: Final = requests.encode(Pong(0, 0, 0))[0]


class ConnectionLost(Exception):
    """The connection is over for a reason of the network. Never leaves `quorker.transport`."""


class Pipe(Protocol):
    """Bytes both ways."""

    async def receive(self) -> bytes:
        """Some bytes, or none at the end. Raises `ConnectionLost`."""
        ...

    def write_some(self, data: bytes) -> int:
        """As many as are taken without waiting. Raises `ConnectionLost`."""
        ...

    async def write_all(self, data: bytes) -> None: ...

    def release(self) -> None:
        """Write nothing more: the stream beneath is about to be closed."""
        ...


class SocketPipe:
    """A plain TCP or unix socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = stream.socket
        self._raw: socket.socket | None = None

    async def receive(self) -> bytes:
        """Wait first and ask the kernel then, once: trio's own `recv` asks before it waits, and yields once more after."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                try:
                    return os.read(self._socket.fileno(), READ_BYTES)
                except BlockingIOError:
                    continue  # woken for nothing, which the kernel is free to do
        except (
            OSError,
            ValueError,
            trio.ClosedResourceError,
        ) as error:  # ValueError: there is no descriptor any more
            raise ConnectionLost(str(error)) from error

    def write_some(self, data: bytes) -> int:
        if self._raw is None:
            # A second view of the same descriptor, for sends without a task switch; `release` lets go of it.
            self._raw = socket.socket(fileno=self._socket.fileno())
            self._raw.setblocking(False)
        try:
            return self._raw.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionLost(str(error)) from error

    async def write_all(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[await self._socket.send(rest, socket.MSG_NOSIGNAL) :]
        except (OSError, trio.ClosedResourceError) as error:
            raise ConnectionLost(str(error)) from error

    def release(self) -> None:
        if self._raw is not None:
            self._raw.detach()


class StreamPipe:
    """Any other stream: every byte passes through the writer task."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError) as error:
            raise ConnectionLost(innermost(error)) from error

    def write_some(self, data: bytes) -> int:
        return 0

    async def write_all(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError) as error:
            raise ConnectionLost(innermost(error)) from error

    def release(self) -> None:
        """The stream itself refuses writes once it is closed."""


def pipe_over(stream: trio.abc.Stream) -> Pipe:
    return SocketPipe(stream) if isinstance(stream, trio.SocketStream) else StreamPipe(stream)


def innermost(error: BaseException) -> str:
    """trio wraps what TLS said; people want to read that."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """How one connection is used."""

    limits: WireLimits
    send_limit: int  # bytes of one payload
    queued_messages_max: int
    queued_bytes_max: int
    pings: bool  # the dialling side does


class FrameStream:
    """Frames both ways after a handshake. `run` it in a task; everything else is immediate."""

    def __init__(
        self, pipe: Pipe, reader: FrameReader, established: Established, config: StreamConfig
    ) -> None:
        """`reader` may hold bytes that came right behind the handshake; it knows its key already."""
        self.established = established
        self.dropped = 0  # messages that found the queue full
        self.rtt_ms: int | None = None
        self.last_pong: Pong | None = None
        self._pipe = pipe
        self._reader = reader
        self._writer = FrameWriter(config.send_limit, established.send_key)
        self._config = config
        self._blocked = False  # the writer task has work; until it is done everything queues behind it
        self._rest = b""
        self._queue: deque[Outgoing] = deque()
        self._queued_bytes = 0
        self._heard_at = 0.0
        self._latest: dict[int, Outgoing] = {}
        self._wake = trio.Event()
        self._room = trio.Event()
        self._scope = trio.CancelScope()
        self._closed = False
        self._failure: Exception | None = None

    # ------------------------------------------------------------------ sending

    def send(self, frames: Sequence[Outgoing]) -> bool:
        """Send all of these, or none and return False: the queue is full, one is too large, the connection is over."""
        if self._closed or any(len(payload) > self._config.send_limit for _, payload in frames):
            self.dropped += len(frames)
            return False
        if self._blocked:
            return self._enqueue(frames)
        self._write_now(self._writer.join(frames))
        return not self._closed

    def send_latest(self, slot: int, frame: Outgoing) -> None:
        """Send this, ahead of the queue; while blocked only the newest of each slot is kept."""
        if self._blocked:
            self._latest[slot] = frame
        else:
            self.send((frame,))

    def _write_now(self, data: bytes) -> None:
        try:
            sent = self._pipe.write_some(data)
        except ConnectionLost as error:
            self._fail(error)
            return
        if sent < len(data):
            self._rest = data[sent:] if sent else data
            self._blocked = True
            self._wake.set()

    def _enqueue(self, frames: Sequence[Outgoing]) -> bool:
        size = sum(len(payload) for _, payload in frames)
        too_many = len(self._queue) + len(frames) > self._config.queued_messages_max
        if too_many or self._queued_bytes + size > self._config.queued_bytes_max:
            self.dropped += len(frames)
            return False
        self._queue.extend(frames)
        self._queued_bytes += size
        return True

    @property
    def is_blocked(self) -> bool:
        return self._blocked

    async def wait_room(self) -> bool:
        """Wait until everything was handed to the kernel; False when the connection is over."""
        while self._blocked and not self._closed:
            await self._room.wait()
        await trio.lowlevel.checkpoint()
        return not self._closed

    # ------------------------------------------------------------------ life

    async def run(self, on_frames: Callable[[list[Frame]], None]) -> None:
        """Deliver all frames of each wake at once, until the other side ends the connection or `close` is called.

        Raises `ConnectionLost`, `ProtocolError`, or what `on_frames` raised.
        """
        try:
            with self._scope:
                await self._run_tasks(on_frames)
        finally:
            self._end()
        if self._failure is not None:
            raise self._failure

    async def _run_tasks(self, on_frames: Callable[[list[Frame]], None]) -> None:
        async with trio.open_nursery() as nursery:
            self._heard_at = trio.current_time()
            nursery.start_soon(self._watch)
            nursery.start_soon(self._write)
            if self._config.pings:
                nursery.start_soon(self._ping)
            await self._guarded_read(on_frames)
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        """End the connection; what is queued is lost."""
        self._end()
        self._scope.cancel()

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._pipe.release()
        self._room.set()

    def _fail(self, error: Exception) -> None:
        if self._failure is None and not self._closed:
            self._failure = error
        self.close()

    async def _guarded_read(self, on_frames: Callable[[list[Frame]], None]) -> None:
        """One error, not a group of them, is what `run` raises."""
        try:
            await self._read(on_frames)
        except Exception as error:  # noqa: BLE001  # raised again by `run`
            self._fail(error)

    async def _read(self, on_frames: Callable[[list[Frame]], None]) -> None:
        data = b""
        while True:
            frames = self._reader.feed(data)
            if frames and (frames := self._without_pings(frames)):
                on_frames(frames)
            data = await self._pipe.receive()
            if not data:
                return
            self._heard_at = trio.current_time()

    async def _watch(self) -> None:
        """End a connection that says nothing. Moving a deadline with every packet would cost more than reading it."""
        idle_seconds = self._config.limits.read_idle_ms / 1000
        heard_at = -1.0
        while heard_at != self._heard_at:
            heard_at = self._heard_at
            await trio.sleep_until(heard_at + idle_seconds)
        self._fail(ConnectionLost(f"nothing was heard for {self._config.limits.read_idle_ms} ms"))

    async def _write(self) -> None:
        stall_ms = self._config.limits.write_stall_ms
        while True:
            while not self._blocked:
                self._wake = trio.Event()
                await self._wake.wait()
            with trio.move_on_after(stall_ms / 1000) as stalled:
                try:
                    await self._pipe.write_all(self._take())
                except ConnectionLost as error:
                    self._fail(error)
            if stalled.cancelled_caught:
                self._fail(ConnectionLost(f"the other side took nothing for {stall_ms} ms"))
            if not self._rest and not self._queue and not self._latest:
                self._blocked = False
                self._room.set()
                self._room = trio.Event()

    def _take(self) -> bytes:
        """The next piece for the writer task, heartbeats first."""
        if self._rest:
            data, self._rest = self._rest[:WRITE_BYTES], self._rest[WRITE_BYTES:]
            return data
        frames = list(self._latest.values())
        self._latest.clear()
        size = 0
        while self._queue and size < WRITE_BYTES:
            frame = self._queue.popleft()
            frames.append(frame)
            size += len(frame[1])
        self._queued_bytes -= size
        self._rest = self._writer.join(frames)
        data, self._rest = self._rest[:WRITE_BYTES], self._rest[WRITE_BYTES:]
        return data

    # ------------------------------------------------------------------ pings

    async def _ping(self) -> None:
        number = 0
        while True:
            await trio.sleep(self._config.limits.ping_ms / 1000)
            number += 1
            self.send_latest(requests.PING, requests.encode(Ping(number, monotonic_ms())))

    def _without_pings(self, frames: list[Frame]) -> list[Frame]:
        if all(kind not in (requests.PING, _PONG) for kind, _ in frames):
            return frames
        for kind, payload in frames:
            if kind in (requests.PING, _PONG):
                self._on_ping(requests.decode(kind, payload))
        return [frame for frame in frames if frame[0] not in (requests.PING, _PONG)]

    def _on_ping(self, record: requests.Speech) -> None:
        if isinstance(record, Ping):
            answer = Pong(record.number, record.clock_ms, monotonic_ms())
            self.send_latest(_PONG, requests.encode(answer))
        elif isinstance(record, Pong):
            self.last_pong = record
            self.rtt_ms = max(0, monotonic_ms() - record.echoed_clock_ms)
