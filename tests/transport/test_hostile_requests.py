"""S1 against a whole node: a client that is let in, and says every wrong thing in the right form, harms nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from quorker.core.jobs.commands import EnqueueJobs, NewJob
from quorker.core.wire.handshake import Hello, Party
from quorker.core.wire.records import INT_MAX, pack
from quorker.core.wire.requests import (
    Attach,
    Cancel,
    ClientRequest,
    Query,
    Role,
    StatusRequest,
    Submit,
    Wait,
    encode,
)
from quorker.jepsen_like.loopback import RawDialler
from quorker.transport.client import open_client
from quorker.transport.endpoint import parse_endpoint
from quorker.transport.node_config import NodeConfig
from quorker.transport.node_start import open_node
from quorker.transport.sockets import dial_tcp

pytestmark = pytest.mark.trio


def query(
    number: int, args: bytes, name: str = "state", *, min_index: int = 0, timeout_ms: int = 10
) -> Query:
    return Query(number, name, args, linearizable=False, min_index=min_index, timeout_ms=timeout_ms)


HOSTILE: dict[str, list[ClientRequest]] = {
    "arguments that are no map": [query(1, pack([1]))],
    "arguments that are no msgpack": [query(1, b"\xc1")],
    "arguments of wrong types": [query(1, pack({"job_id": [1]})), query(2, pack({"queues": [["x"]]}), "has_waiting")],
    "arguments that nobody asked for": [query(1, pack({"job_id": "x", "more": 1}))],
    "a query that nobody knows": [query(1, pack({}), "nothing"), query(2, pack({}), ""), query(3, pack({}), "__class__")],
    "the end of time": [query(1, pack({}), "statistics", min_index=INT_MAX, timeout_ms=INT_MAX)],
    "one number twice": [StatusRequest(1), StatusRequest(1)],
    "one number again after taking it back": [query(1, pack({}), min_index=INT_MAX), Cancel(1), StatusRequest(1)],
    "taking back what was never asked": [Cancel(7), Cancel(INT_MAX)],
    "waiting for nonsense": [Wait(1, "\x00" * 4000, 10, 0), Wait(2, "", INT_MAX, INT_MAX)],
    "somebody else's session": [Attach(INT_MAX, 0), Attach(0, 0), Attach(1, INT_MAX)],
    "a group without commands": [Submit(1, b"\x93\x00\x00\x90"), Submit(2, b"\x93\x05\xce\xff\xff\xff\xff\x90")],
    "a command that is none": [Submit(1, pack([0, 0, [[1, None]]])), Submit(2, b"\x93\x00\x00\x91\x92\x01\x90")],
    "a command that nobody knows": [Submit(1, pack([0, 0, [[1, [9999]]]])), Submit(2, pack([0, 0, [[1, [-1]]]]))],
    "a command of the leader": [Submit(number, pack([0, 0, [[number, [op]]]])) for number, op in enumerate(range(64, 100), 1)],
    "a bomb": [Submit(1, b"\x93\x00\x00\x91\x92\x01\xdd\x00\x01\x00\x00" + b"\x90" * 0x10000)],
    "a deep bomb": [Submit(1, b"\x93\x00\x00\x91\x92\x01" + b"\x91" * 500 + b"\xc0")],
    "an extension": [Submit(1, b"\x93\x00\x00\x91\x92\x01\x92\x40\xc7\x00\x05")],
    "a million answers": [query(number, pack({}), "statistics") for number in range(1, 3000)],
}  # fmt: skip


async def say(address: str, requests: list[ClientRequest]) -> None:
    async with await dial_tcp(parse_endpoint(address)) as stream:
        dialler = RawDialler(stream, Hello(Role.CLIENT, Party(), b"n" * 32), ())
        await dialler.greet()
        try:
            await dialler.send(*(encode(request) for request in requests))
            await stream.send_eof()
        except trio.BrokenResourceError:
            return  # it has hung up already
        await dialler.wait_closed()


async def test_a_node_survives_every_hostile_request(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with open_node(NodeConfig(data_dir=tmp_path, unix_socket=False)) as node:
            for requests in HOSTILE.values():
                await say(node.address, requests)
            async with open_client([node.address]) as client:
                (job_id,) = await client.submit(EnqueueJobs((NewJob(task="t", args=b"", queue="default"),)))
                assert (await client.query("job", {"job_id": job_id})).value is not None
            jobs_before = len(node.replica.store.jobs)
        async with open_node(NodeConfig(data_dir=tmp_path, unix_socket=False)) as node:
            await node.submit(EnqueueJobs((NewJob(task="t", args=b"", queue="default"),)))
            assert len(node.replica.store.jobs) == jobs_before + 1, "and none of it harms a restart"
