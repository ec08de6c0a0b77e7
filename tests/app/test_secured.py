"""Whole clusters behind a secret, TLS or both: jobs run over them, and who has neither is told why.

What single connections do is tested beside the listener (`tests/transport`); here members, links and clients agree.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from quorker.app import App
from quorker.app.loopback_addresses import free_addresses
from quorker.core.errors import ConfigurationError
from quorker.jepsen_like.calls import count_up, read_counter
from quorker.jepsen_like.local_cluster import local_cluster
from quorker.jepsen_like.processes import process_cluster
from quorker.transport.client import open_client
from quorker.transport.sockets import find_unix_socket
from quorker.transport.tls import TlsPaths

pytestmark = pytest.mark.trio

SECRET = b"the secret of the cluster"
WRONG = b"the secret of another one"
HOST = "127.0.0.1"


def make_app() -> App:
    app = App("secured")

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    return app


async def result_of_job(app: App) -> Any:
    with trio.fail_after(60):
        return await (await app.tasks["double"].aenqueue(21)).aresult()


def certificate(ca: trustme.CA, directory: Path, *names: str) -> TlsPaths:
    """Files of a certificate for these names, and of the authority that signed it."""
    directory.mkdir(parents=True)
    paths = TlsPaths(directory / "own.crt", directory / "own.key", directory / "authority.pem")
    issued = ca.issue_cert(*names)
    issued.private_key_pem.write_to_path(str(paths.key))
    issued.cert_chain_pems[0].write_to_path(str(paths.certificate))
    ca.cert_pem.write_to_path(str(paths.authority))
    return paths


def member_certificates(ca: trustme.CA, directory: Path) -> dict[int, TlsPaths]:
    """On one machine all members have one host: the number in the certificate tells them apart."""
    return {
        node: certificate(ca, directory / f"member{node}", HOST, f"quorker-node-{node}") for node in (1, 2, 3)
    }


@asynccontextmanager
async def three_members(
    directory: Path, secret: bytes | None = None, tls: Mapping[int, TlsPaths] | None = None
) -> AsyncGenerator[list[str]]:
    """Three members; the third has the workers. Gives the addresses of the first two."""
    addresses = dict(enumerate(free_addresses(3), 1))
    async with AsyncExitStack() as stack:
        for node, address in addresses.items():
            door = make_app().node(
                directory / f"n{node}",
                node_id=node,
                listen=address,
                members=addresses,
                secret=secret,
                tls=None if tls is None else tls[node],
                profile="fast",
                workers=2 if node == 3 else 0,
            )
            await stack.enter_async_context(door)
        yield [addresses[1], addresses[2]]


async def test_a_job_runs_behind_a_secret(tmp_path: Path) -> None:
    client = make_app()
    async with (
        three_members(tmp_path, SECRET) as addresses,
        client.connect(*addresses, secret=SECRET),
    ):
        assert await result_of_job(client) == 42


async def test_a_job_runs_over_tls(tmp_path: Path) -> None:
    ca, client = trustme.CA(), make_app()
    async with (
        three_members(tmp_path, tls=member_certificates(ca, tmp_path)) as addresses,
        client.connect(*addresses, tls=certificate(ca, tmp_path / "client", "web.example.org")),
    ):
        assert await result_of_job(client) == 42


@pytest.mark.parametrize(
    ("given", "said"),
    [(WRONG, "it does not know the secret"), (None, "this node requires a secret")],
    ids=["wrong", "none"],
)
async def test_who_does_not_know_the_secret_is_told(tmp_path: Path, given: bytes | None, said: str) -> None:
    app = make_app()
    async with app.node(tmp_path, secret=SECRET, profile="fast", workers=0) as node:
        with pytest.raises(ConfigurationError, match=said):
            async with make_app().connect(node.address, secret=given):
                pass


async def test_a_member_with_another_secret_stops_and_says_why_while_the_others_go_on(tmp_path: Path) -> None:
    async with local_cluster(tmp_path, start=False, secret=SECRET) as cluster:
        cluster.configs[3] = replace(cluster.configs[3], secret=WRONG)
        await cluster.start(1, 2)
        await cluster.wait_leader()
        await cluster.start(3)
        failure = await cluster.wait_failed(3)
        assert isinstance(failure, ConfigurationError)
        assert "it does not know the secret" in str(failure)
        await count_up(cluster[1])
        assert await read_counter(cluster[2], consistency="linearizable") == 1


async def test_the_unix_socket_of_a_member_needs_no_secret(tmp_path: Path) -> None:
    """Who can open it owns the directory, and could read the secret's file as well."""
    app, client = make_app(), make_app()
    async with app.node(tmp_path, secret=SECRET, profile="fast", workers=1):
        path = find_unix_socket(tmp_path)
        assert path == tmp_path / "quorker.sock"
        async with client.connect(f"unix:{path}"):
            assert await result_of_job(client) == 42


async def test_member_processes_behind_a_secret_and_tls(tmp_path: Path) -> None:
    """The options of the command line, a leader killed, and the links between the others."""
    secret_file, ca = tmp_path / "secret", trustme.CA()
    secret_file.write_bytes(SECRET + b"\n")
    names = [f"quorker-node-{node}" for node in (1, 2, 3)]
    shared = certificate(ca, tmp_path / "shared", HOST, *names)
    options = (
        *("--workers", "0", "--secret-file", str(secret_file), "--tls-certificate", str(shared.certificate)),
        *("--tls-key", str(shared.key), "--tls-authority", str(shared.authority)),
    )
    own = certificate(ca, tmp_path / "client", "web.example.org")
    async with process_cluster(tmp_path, options=options) as cluster:
        addresses = list(cluster.addresses.values())
        async with open_client(addresses, secret=SECRET, tls=own) as client:
            await count_up(client)
            await cluster.kill((await client.status()).leader)
            await count_up(client)
            assert await read_counter(client, consistency="linearizable") == 2
        survivors = [cluster.addresses[node] for node in cluster.running]
        with pytest.raises(ConfigurationError, match="it does not know the secret"):
            async with open_client(survivors, secret=WRONG, tls=own):
                pass
