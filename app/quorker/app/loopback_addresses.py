"""Loopback addresses for members that are restarted, so that nobody else takes their ports meanwhile.

Taken below the ports that the system hands out by itself: a port that is free now is not given to an outgoing
connection while its member is down. Each process begins at a place of its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import count
from typing import Final

LOWEST: Final = 15_000
PORTS: Final = 15_000
PORTS_PER_PROCESS: Final = 250


def _ports() -> Iterator[int]:
    first = os.getpid() * PORTS_PER_PROCESS
    return (LOWEST + (first + step) % PORTS for step in count())


_next_ports: Final = _ports()


def free_addresses(number: int, host: str = "127.0.0.1") -> list[str]:
    """So many "host:port" that nobody listens on; no port is given out twice by one process."""
    return [f"{host}:{_free_port()}" for _ in range(number)]


def _free_port() -> int:
    return next(port for port in _next_ports if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
