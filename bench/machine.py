"""The machine's own limits, measured beside everything else: what an honest store could at best reach here."""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

APPEND_BYTES = 4096
PING_BYTES = 300


def fdatasync_rate(folder: Path, seconds: float = 1.0) -> dict[str, float]:
    """One writer that appends 4 KiB and calls fdatasync: syncs per second, p50 and p99 in ms."""
    times: list[float] = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        descriptor, block = file.fileno(), os.urandom(APPEND_BYTES)
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - start)
    return summary(times, seconds)


def loopback_round_trip(count: int = 2000) -> dict[str, float]:
    """A 300-byte ping over TCP on loopback between two threads with blocking sockets, in ms."""
    server = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_echo, args=(server, count))
    thread.start()
    times: list[float] = []
    with socket.create_connection(server.getsockname()) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            start = time.perf_counter()
            client.sendall(b"x" * PING_BYTES)
            _receive(client)
            times.append(time.perf_counter() - start)
    thread.join()
    server.close()
    return summary(times, sum(times))


def _echo(server: socket.socket, count: int) -> None:
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        for _ in range(count):
            connection.sendall(_receive(connection))


def _receive(connection: socket.socket) -> bytes:
    data = b""
    while len(data) < PING_BYTES:
        data += connection.recv(PING_BYTES - len(data))
    return data


def summary(times: list[float], seconds: float) -> dict[str, float]:
    """Rate per second and quantiles in ms of durations in seconds."""
    ordered = sorted(times)
    return {
        "per_second": len(times) / seconds,
        "p50_ms": statistics.median(ordered) * 1000,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000,
    }
