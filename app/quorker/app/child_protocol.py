"""The frames between a node and its worker processes: 4 bytes of length, then msgpack. Data only, never code.

parent -> child   ["run", call...]     run one task (`ChildCall`)
                  ["answer", ...]      to an "ask" of the child
child -> parent   ["ready"]            once, when it can run tasks
                  ["ask", ...]         what the task's own enqueue() or result() wants from the store
                  ["done", bytes]      the encoded result
                  ["failed", ...]      an exception as text (`failure.Failure`)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.errors import ProtocolError
from quorker.core.wire.records import list_of

_codec: Any = msgpack
_LENGTH: Final = struct.Struct(">I")
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024


class ChildCall(NamedTuple):
    """One attempt of one job. The task is `qualname` in the module of `module_name` (or of `module_file`)."""

    module_name: str
    module_file: str
    qualname: str
    args: bytes
    result_bytes_max: int
    job_id: str
    fence: int
    attempt: int
    queue: str
    task: str
    deadline: float | None  # time.monotonic() seconds, which is one clock for all processes of a machine
    headers: dict[str, str]  # all that the job has in the store
    batch_id: str


def pack_frame(kind: str, *fields: object) -> bytes:
    body: bytes = _codec.packb([kind, *fields])
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> list[Sequence[Any]]:
        """The frames that are complete now, in order. Raises `ProtocolError` for what is no frame."""
        self._buffer += data
        frames: list[Sequence[Any]] = []
        while len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if size > FRAME_BYTES_MAX:
                raise ProtocolError(f"a frame of {size} bytes between a node and its worker process")
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                break
            frames.append(_unpack(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[:end]
        return frames


def _unpack(body: bytes) -> Sequence[Any]:
    try:
        frame: Any = _codec.unpackb(body, strict_map_key=False)
    except (ValueError, _codec.exceptions.UnpackException) as error:
        raise ProtocolError(f"a broken frame between a node and its worker process: {error}") from error
    if not list_of(frame):
        raise ProtocolError("an empty frame between a node and its worker process")
    return list_of(frame)
