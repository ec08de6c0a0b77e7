"""The chained digest of all that the log has led to: sixteen bytes that differ for ever once one outcome has differed.

A digest of the whole state costs a walk over it; this one costs what came out of one entry. What is left out of it for
speed, and why, stands in `docs/decisions/0006-members-compare-what-they-answered.md`. Comparing must not live here.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final
from zlib import crc32

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.jobs.commands import ClaimDigest
from quorker.core.jobs.outcome import OK, DigestClaim, Reply, rejected
from quorker.core.jobs.tables import Tables

_codec: Any = msgpack
_packer: Any = _codec.Packer(unicode_errors="surrogatepass")
_reply_of: Callable[[tuple[int, int, Reply]], Reply] = itemgetter(2)
CHAIN_BYTES: Final = 16


def claim_digest(tables: Tables, command: ClaimDigest) -> Reply:
    """Handed on to whoever compares. Only members make claims, and they speak outside of any session."""
    if tables.session is not None:
        return rejected("bad_command", "only members make claims about digests")
    tables.outcome.claims.append(DigestClaim(command.index, command.node, command.digest))
    return OK


def link(tables: Tables, data: bytes) -> bytes:
    """The chain with the entry that was just applied: its bytes, its outcome, and the sizes of what it left behind.

    Texts of faults are left out: they are for people, and may differ between versions of Python.
    """
    outcome = tables.outcome
    packed: bytes = _packer.pack(
        (
            tables.chain,
            tables.applied_index,
            crc32(data),
            tables.lt,
            tables.wt,
            tables.order,
            tables.state_bytes,
            len(tables.jobs),
            len(tables.leases),
            len(tables.locks),
            len(tables.sessions),
            list(map(_reply_of, outcome.replies)),
            [(notice.session, notice.payload[:2]) for notice in outcome.notices],
            ",".join(outcome.finished),
            len(outcome.faults),
        )
    )
    return blake2b(packed, digest_size=CHAIN_BYTES).digest()
