"""Sockets: ports that are free and taken, the unix socket, its mode, its length limit and what stays behind."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import trio

from quorker.core.errors import ConfigurationError
from quorker.transport.endpoint import Endpoint
from quorker.transport.sockets import (
    UNIX_NAME,
    UNIX_PATH_MAX,
    dial_tcp,
    dial_unix,
    find_unix_socket,
    open_tcp,
    open_unix,
    unix_socket_path,
)

pytestmark = pytest.mark.trio


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def close(listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        await listener.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_port_0_takes_a_free_one_and_says_which(host: str) -> None:
    bound, listeners = await open_tcp(Endpoint(host, 0))
    assert bound.host == host
    assert bound.port > 0
    stream = await dial_tcp(bound)
    accepted = await listeners[0].accept()
    await stream.send_all(b"x")
    assert await accepted.receive_some() == b"x"
    await stream.aclose()
    await accepted.aclose()
    await close(listeners)


async def test_a_port_that_is_taken_is_named() -> None:
    bound, listeners = await open_tcp(Endpoint("127.0.0.1", 0))
    with pytest.raises(ConfigurationError, match=f"cannot listen on {bound}"):
        await open_tcp(bound)
    await close(listeners)


async def test_the_own_address_may_be_chosen() -> None:
    """Members on one machine are told apart by their loopback addresses."""
    bound, listeners = await open_tcp(Endpoint("127.0.0.1", 0))
    stream = await dial_tcp(bound, source="127.0.0.7")
    accepted = await listeners[0].accept()
    assert accepted.socket.getpeername()[0] == "127.0.0.7"
    await stream.aclose()
    await accepted.aclose()
    await close(listeners)


async def exchange(path: Path) -> None:
    listener = await open_unix(path)
    assert mode(path) == 0o600
    stream = await dial_unix(path)
    accepted = await listener.accept()
    await stream.aclose()
    assert await accepted.receive_some() == b""
    await accepted.aclose()
    await listener.aclose()


async def test_the_unix_socket_stands_beside_the_data_for_its_owner_alone(tmp_path: Path) -> None:
    assert find_unix_socket(tmp_path) is None
    with unix_socket_path(tmp_path) as path:
        assert path == tmp_path / UNIX_NAME
        await exchange(path)
        assert find_unix_socket(tmp_path) == path
    assert names_in(tmp_path) == []


def deep(tmp_path: Path, length: int) -> Path:
    """A directory in which the path of the socket has `length` bytes."""
    missing = length - len(str(tmp_path / "x" / UNIX_NAME)) + 1
    directory = tmp_path / ("d" * missing)
    directory.mkdir()
    return directory


@pytest.mark.parametrize("spare", [5, 4])
async def test_a_path_of_up_to_107_bytes_is_used(tmp_path: Path, spare: int) -> None:
    """Four bytes are needed while the socket is not yet private."""
    data_dir = deep(tmp_path, UNIX_PATH_MAX - spare)
    with unix_socket_path(data_dir) as path:
        assert path.parent == data_dir
        await exchange(path)


@pytest.mark.parametrize("spare", [3, 0, -1, -50])
async def test_a_longer_path_moves_to_a_private_directory(tmp_path: Path, spare: int) -> None:
    data_dir = deep(tmp_path, UNIX_PATH_MAX - spare)
    with unix_socket_path(data_dir) as path:
        assert path.parent != data_dir
        assert mode(path.parent) == 0o700
        await exchange(path)
        assert find_unix_socket(data_dir) == path
    assert not path.parent.exists()
    assert names_in(data_dir) == []
    assert find_unix_socket(data_dir) is None


async def test_the_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / UNIX_NAME
    dead = await open_unix(path)
    await dead.aclose()
    assert path.is_socket()
    await exchange(path)


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen on"):
        await open_unix(tmp_path / "missing" / UNIX_NAME)


async def test_dialling_too_long_a_path_is_an_error_of_the_network() -> None:
    with pytest.raises(OSError, match="at most 107 bytes"):
        await dial_unix(Path("/" + "x" * UNIX_PATH_MAX))


async def test_a_pointer_to_nowhere_is_no_socket(tmp_path: Path) -> None:
    await trio.Path(tmp_path / "quorker.sock.path").write_text(str(tmp_path / "gone"))
    assert find_unix_socket(tmp_path) is None
