"""Opens the sockets of a node: TCP on every address of its endpoint, and the private unix socket beside its data.

The unix socket may be used by whoever may use the data directory: its file mode is its authentication. The path of a
unix socket is at most 107 bytes long; under a deeper directory the socket stands in a private temporary directory, and
a small file beside the data says where.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from quorker.core.errors import ConfigurationError
from quorker.transport.endpoint import Endpoint

BACKLOG: Final = 256
UNIX_PATH_MAX: Final = 107
UNIX_NAME: Final = "quorker.sock"
POINTER_NAME: Final = "quorker.sock.path"
_NEW: Final = ".new"


async def open_tcp(endpoint: Endpoint) -> tuple[Endpoint, list[trio.SocketListener]]:
    """Listen; also returns where exactly, port 0 replaced by the one taken. Raises `ConfigurationError`."""
    listeners: list[trio.SocketListener] = []
    port = endpoint.port
    for host in endpoint.bind_hosts:
        try:
            opened = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        except OSError as error:
            if listeners:  # the second kind of address is not there on every machine
                continue
            raise ConfigurationError(f"cannot listen on {endpoint}: {_explained(error)}") from error
        listeners += opened
        port = int(opened[0].socket.getsockname()[1])
    return Endpoint(endpoint.host, port), listeners


def _explained(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another process listens there: stop it, or choose another port"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
        case _:
            return str(error)


@contextmanager
def unix_socket_path(data_dir: Path) -> Generator[Path]:
    """The path to listen on beside `data_dir`; whatever was made for it is removed afterwards.

    The caller holds the lock of the directory, so a socket that is there already was left by a dead process.
    """
    path, pointer = data_dir / UNIX_NAME, data_dir / POINTER_NAME
    private: str | None = None
    if len(os.fsencode(path)) + len(_NEW) > UNIX_PATH_MAX:
        private = tempfile.mkdtemp(prefix="quorker-")  # mode 0700
        path = Path(private) / UNIX_NAME
        pointer.write_text(str(path))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        if private is not None:
            pointer.unlink(missing_ok=True)
            shutil.rmtree(private, ignore_errors=True)


def find_unix_socket(data_dir: Path) -> Path | None:
    """Where the process that holds this directory may be listening; None when none ever said."""
    path = data_dir / UNIX_NAME
    if path.is_socket():
        return path
    with suppress(OSError):
        pointed = Path((data_dir / POINTER_NAME).read_text())
        return pointed if pointed.is_socket() else None
    return None


async def open_unix(path: Path) -> trio.SocketListener:
    """Listen on `path`, for this user only. Raises `ConfigurationError`."""
    fresh = path.with_name(path.name + _NEW)
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        fresh.unlink(missing_ok=True)
        await sock.bind(str(fresh))
        fresh.chmod(0o600)
        sock.listen(BACKLOG)
        fresh.replace(path)  # nobody can connect before the mode is right
    except OSError as error:
        sock.close()
        raise ConfigurationError(f"cannot listen on {path}: {error}") from error
    return trio.SocketListener(sock)


async def dial_unix(path: Path) -> trio.SocketStream:
    """Raises OSError; a path that is too long is reported as one too."""
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise OSError(
            errno.ENAMETOOLONG, f"the path of a unix socket has at most {UNIX_PATH_MAX} bytes", str(path)
        )
    return await trio.open_unix_socket(path)


async def dial_tcp(endpoint: Endpoint, source: str | None = None) -> trio.SocketStream:
    """Resolve the name anew, and connect to whatever answers first. Raises OSError.

    `source`: the own address to dial from (several members on one machine, told apart by their addresses).
    """
    return await trio.open_tcp_stream(endpoint.host, endpoint.port, local_address=source)
