"""Which sessions a member declares dead: those that are not in a state as new as what their client has seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from quorker.core.jobs.commands import EnqueueJobs, NewJob
from quorker.core.wire.handshake import Hello, Party
from quorker.core.wire.records import INT_MAX
from quorker.core.wire.requests import Attach, Notice, Role, decode, encode
from quorker.jepsen_like.loopback import RawDialler
from quorker.transport.endpoint import parse_endpoint
from quorker.transport.node_config import NodeConfig
from quorker.transport.node_start import open_node
from quorker.transport.sockets import dial_tcp

pytestmark = pytest.mark.trio

UNHEARD_OF, NEXT, ENDED = 101, 102, 103


async def next_ended(dialler: RawDialler) -> int:
    """The next session that is declared dead."""
    while (frame := await dialler.receive()) is not None:
        answer = decode(*frame)
        if isinstance(answer, Notice) and answer.kind == "session_closed":
            return answer.session
    raise AssertionError("the member has hung up")


async def test_a_member_that_lags_does_not_declare_a_session_dead(tmp_path: Path) -> None:
    """One that has just started knows less than the clients that come back to it."""
    with trio.fail_after(60):
        async with open_node(NodeConfig(data_dir=tmp_path, unix_socket=False)) as node:
            job = EnqueueJobs((NewJob("t"),))
            await node.submit(job)
            async with await dial_tcp(parse_endpoint(node.address)) as stream:
                dialler = RawDialler(stream, Hello(Role.CLIENT, Party(), b"n" * 32), ())
                await dialler.greet()
                applied = node.replica.store.applied_index
                await dialler.send(
                    encode(Attach(UNHEARD_OF, INT_MAX)),
                    encode(Attach(NEXT, applied + 1)),
                    encode(Attach(ENDED, applied)),
                )
                assert await next_ended(dialler) == ENDED
                node.on_state_replaced()  # as if a snapshot had come
                assert await next_ended(dialler) == ENDED, "it says so of every session that it can judge"
                await node.submit(job)
                assert await next_ended(dialler) == NEXT, "now it has seen as much as that client"
