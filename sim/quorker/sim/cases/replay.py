"""One line that repeats a run on any machine: as a token that holds the whole case, or as a seed and its profile.

A token also names the sources that it was made with, because other code may run another course. Running is elsewhere.
"""

from __future__ import annotations

import base64
import zlib
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # no stubs are published

import quorker.core
from quorker.core.errors import InvalidInput
from quorker.sim.cases.case import Case
from quorker.sim.cases.data import RAW, from_table, to_table
from quorker.sim.cases.limits import check_case

PREFIX: Final = "rs1:"
CASE_BYTES_MAX: Final = 1 << 24
_codec: Any = msgpack


def token_of(case: Case) -> str:
    """The case as one word of printable characters."""
    packed: bytes = _codec.packb([code_hash(), to_table(case, RAW)])
    return PREFIX + base64.b85encode(zlib.compress(packed, 9)).decode()


def case_of(token: str) -> tuple[Case, str]:
    """The case in a token, and a warning ("" if none is due). Raises `InvalidInput`."""
    if not token.startswith(PREFIX):
        raise InvalidInput(f"{token[:20]!r} is no replay token: one begins with {PREFIX}")
    try:
        inflater = zlib.decompressobj()
        packed = inflater.decompress(base64.b85decode(token.removeprefix(PREFIX)), CASE_BYTES_MAX)
        if not inflater.eof:  # cut short, or larger than any case: its checksum was not seen
            raise ValueError("incomplete")
        code, table = _codec.unpackb(packed)
    except (ValueError, TypeError, zlib.error, _codec.UnpackException):
        raise InvalidInput("this replay token is damaged: copy all of it, in single quotes") from None
    case = from_table(Case, table, "token", RAW)
    check_case(case, "token")
    return case, _warning(code)


def _warning(code: object) -> str:
    here = code_hash()
    if code == here:
        return ""
    return f"this token was made by other sources ({code}, here {here}): the run may take another course"


def code_hash() -> str:
    """A short name of the sources that decide the course of a run: the simulator and the core."""
    digest = blake2b(digest_size=6)
    for folder in (Path(__file__).parents[1], *map(Path, quorker.core.__path__)):
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(folder)).encode() + b"\0")
            digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def replay_line(case: Case) -> str:
    """The command that repeats this case anywhere."""
    return f"quorker sim replay '{token_of(case)}'"


def seed_line(seed: int, profile: str) -> str:
    """The command that repeats a seed of a campaign, and tells its story."""
    return f"quorker sim replay --seed {seed} --profile {profile} --trace"
