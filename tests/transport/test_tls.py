"""Mutual TLS: whose certificate opens what, on both sides, and what happens when it does not."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from quorker.core.errors import ConfigurationError, ProtocolError
from quorker.core.raft.messages import Heartbeat
from quorker.core.wire.handshake import Party, Reason
from quorker.core.wire.requests import Role
from quorker.core.wire.roster import Roster
from quorker.jepsen_like.loopback import CLUSTER, SECRET, Door, Recorder, host_of_node, party_of
from quorker.transport.endpoint import Endpoint
from quorker.transport.greeting import ConnectionRefused, Credentials, Destination, greet_dialled
from quorker.transport.peers import PeerLinks
from quorker.transport.stream import ConnectionLost, FrameStream
from quorker.transport.tls import Tls, TlsPaths, certificate_names, names_node


class Authority:
    """Signs certificates and writes them where a node would read them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = trustme.CA()
        self.path = directory / "authority.pem"
        self.ca.cert_pem.write_to_path(str(self.path))

    def paths(self, *names: str, authority: Path | None = None) -> TlsPaths:
        certificate = self.ca.issue_cert(*names)
        number = len(list(self.directory.iterdir()))
        key, chain = self.directory / f"{number}.key", self.directory / f"{number}.crt"
        certificate.private_key_pem.write_to_path(str(key))
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(str(chain), append=True)
        return TlsPaths(chain, key, authority or self.path)

    def tls(self, *names: str, authority: Path | None = None) -> Tls:
        return Tls(self.paths(*names, authority=authority))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("foreign"))


@pytest.fixture
async def door(authority: Authority, nursery: trio.Nursery) -> Door:
    """Node 1 with its own certificate."""
    door = Door(tls=authority.tls(host_of_node(1)))
    await door.open(nursery)
    return door


async def enter(
    door: Door, tls: Tls | None, role: Role = Role.PEER, *secrets: bytes, host: str = host_of_node(1)
) -> FrameStream:
    """Dial as node 2, or as a client."""
    party = party_of(2) if role is Role.PEER else Party(CLUSTER)
    destination = Destination(role, party, host, to=1)
    return await greet_dialled(door.memory.connect(), Credentials(secrets, tls), destination)


async def assert_serves(door: Door, authority: Authority) -> None:
    framed = await enter(door, authority.tls("somebody.example.org"), Role.OBSERVER)
    assert framed.established.remote == party_of(1)


# ---------------------------------------------------------------------- let in


@pytest.mark.trio
@pytest.mark.parametrize(
    "names",
    [
        (host_of_node(2),),
        ("NODE2.example.org",),
        ("other.example.org", host_of_node(2)),
        ("quorker-node-2",),
        ("10.0.0.7", "quorker-node-2", "quorker-node-5"),
    ],
    ids="+".join,
)
async def test_a_member_whose_certificate_names_it_gets_in(
    door: Door, authority: Authority, names: tuple[str, ...]
) -> None:
    framed = await enter(door, authority.tls(*names))
    assert framed.established.remote == party_of(1)
    assert framed.established.send_key is None, "no tags inside TLS"
    await door.recorder.wait_named("connected")


@pytest.mark.trio
@pytest.mark.parametrize("role", [Role.CLIENT, Role.OBSERVER])
async def test_a_client_needs_any_certificate_of_the_authority(
    door: Door, authority: Authority, role: Role
) -> None:
    await enter(door, authority.tls("web.example.org"), role)
    await door.recorder.wait_named("client")


@pytest.mark.trio
async def test_messages_travel_in_both_directions_of_dialling(
    door: Door, authority: Authority, nursery: trio.Nursery
) -> None:
    recorder = Recorder()
    credentials = Credentials(tls=authority.tls(host_of_node(2)))

    async def dial(_: Endpoint) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return door.memory.connect()

    links = PeerLinks(party_of(2), credentials, Roster(party_of(2), [1, 2]), recorder, dial=dial)
    links.set_peers({1: Endpoint(host_of_node(1), 7701)})
    nursery.start_soon(links.run)
    await recorder.wait_named("up")
    for commit in range(100):
        links.send(1, Heartbeat(2, 1, 5, commit))
        links.flush()
        assert await links.wait_room(1)
    got = await door.recorder.wait_named("message", 100)
    assert [message.commit_index for _, message in got] == list(range(100))


# ---------------------------------------------------------------------- kept out by the accepting side


@pytest.mark.trio
@pytest.mark.parametrize(
    "names",
    [
        (host_of_node(3),),
        ("quorker-node-3",),
        ("quorker-node-3", host_of_node(2)),
        ("quorker-node-22",),
        ("sub.node2.example.org",),
        ("*.example.org",),
    ],
    ids="+".join,
)
async def test_the_certificate_of_another_node_is_refused(
    door: Door, authority: Authority, names: tuple[str, ...]
) -> None:
    """A certificate that names a number is held to it, whatever hosts it names besides."""
    with pytest.raises(ConnectionRefused, match="is not node 2") as raised:
        await enter(door, authority.tls(*names))
    assert raised.value.refusal.reason is Reason.WRONG_CERTIFICATE
    assert door.recorder.events == []
    await assert_serves(door, authority)


@pytest.mark.trio
async def test_a_certificate_of_a_foreign_authority_is_no_certificate(
    door: Door, authority: Authority, foreign: Authority
) -> None:
    """With TLS 1.3 the dialling side's handshake succeeds: only WELCOME, which never comes, would be success."""
    with pytest.raises(ConnectionLost):
        await enter(door, foreign.tls(host_of_node(2), authority=authority.path))
    await trio.testing.wait_all_tasks_blocked()
    assert door.recorder.events == []
    assert door.listener.events["ConnectionLost"] == 1
    await assert_serves(door, authority)


def bare_client(authority: Authority, tls_max: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.path)
    if tls_max is not None:
        context.maximum_version = tls_max
    return context


@pytest.mark.trio
async def test_no_certificate_no_entry(door: Door, authority: Authority) -> None:
    tls = authority.tls(host_of_node(2))
    tls.client = bare_client(authority)
    with pytest.raises(ConnectionLost):
        await enter(door, tls)
    await assert_serves(door, authority)


@pytest.mark.trio
async def test_older_versions_of_tls_are_not_spoken(door: Door, authority: Authority) -> None:
    tls = authority.tls(host_of_node(2))
    tls.client = bare_client(authority, ssl.TLSVersion.TLSv1_2)
    with pytest.raises(ConnectionLost, match="tls: "):
        await enter(door, tls)
    await assert_serves(door, authority)


@pytest.mark.trio
async def test_plain_bytes_at_a_tls_listener(door: Door, authority: Authority) -> None:
    with pytest.raises((ConnectionLost, ProtocolError)):
        await enter(door, None)
    await assert_serves(door, authority)


@pytest.mark.trio
async def test_tls_at_a_plain_listener(authority: Authority, nursery: trio.Nursery) -> None:
    door = Door(SECRET)
    await door.open(nursery)
    with pytest.raises(ConnectionLost, match="tls: "):
        await enter(door, authority.tls(host_of_node(2)))
    await enter(door, None, Role.CLIENT, SECRET)


@pytest.mark.trio
async def test_a_handshake_that_stalls_is_cut_off(
    door: Door, authority: Authority, mock_clock: trio.testing.MockClock
) -> None:
    stream = door.memory.connect()
    await stream.send_all(b"\x16\x03\x01")  # the beginning of a ClientHello
    await trio.testing.wait_all_tasks_blocked()
    assert door.listener.counts.strangers.total() == 1
    mock_clock.jump(5.1)
    assert await stream.receive_some() == b""
    assert door.listener.counts.strangers.total() == 0


@pytest.mark.trio
async def test_with_a_secret_besides_the_secret_is_demanded_too(
    authority: Authority, nursery: trio.Nursery
) -> None:
    door = Door(SECRET, tls=authority.tls(host_of_node(1)))
    await door.open(nursery)
    with pytest.raises(ConnectionRefused, match="requires a secret"):
        await enter(door, authority.tls(host_of_node(2)))
    framed = await enter(door, authority.tls(host_of_node(2)), Role.PEER, SECRET)
    assert framed.established.send_key is None


# ---------------------------------------------------------------------- kept off by the dialling side


@pytest.mark.trio
@pytest.mark.parametrize("host", [host_of_node(3), "localhost", "127.0.0.1"])
async def test_the_certificate_reached_has_to_name_the_host_dialled(
    door: Door, authority: Authority, host: str
) -> None:
    with pytest.raises(ConnectionLost, match=r"tls: .*(mismatch|not valid)"):
        await enter(door, authority.tls(host_of_node(2)), host=host)
    await assert_serves(door, authority)


@pytest.mark.trio
async def test_a_listener_of_a_foreign_authority_is_not_believed(
    authority: Authority, foreign: Authority, nursery: trio.Nursery
) -> None:
    door = Door(tls=foreign.tls(host_of_node(1), authority=authority.path))
    await door.open(nursery)
    with pytest.raises(ConnectionLost, match=r"tls: .*self.signed|tls: .*issuer"):
        await enter(door, authority.tls(host_of_node(2)))


# ---------------------------------------------------------------------- files


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.paths("node1.example.org"), authority.paths("node2.example.org")
    junk, missing = tmp_path / "junk.pem", tmp_path / "missing.pem"
    junk.write_text("not a certificate")
    for paths, named in [
        (TlsPaths(missing, good.key, good.authority), missing),
        (TlsPaths(good.certificate, missing, good.authority), missing),
        (TlsPaths(good.certificate, good.key, missing), missing),
        (TlsPaths(junk, good.key, good.authority), junk),
        (TlsPaths(good.certificate, other.key, good.authority), other.key),
        (TlsPaths(good.certificate, good.key, junk), junk),
    ]:
        with pytest.raises(ConfigurationError) as raised:
            Tls(paths)
        assert str(named) in str(raised.value)


def test_new_files_are_used_after_a_reload_and_bad_ones_are_not(authority: Authority) -> None:
    paths = authority.paths("node1.example.org")
    tls = Tls(paths)
    before = tls.server, tls.client
    tls.reload()
    assert tls.server is not before[0]
    assert tls.client is not before[1]
    before = tls.server, tls.client
    paths.certificate.write_text("half a cert")
    with pytest.raises(ConfigurationError):
        tls.reload()
    assert (tls.server, tls.client) == before


def test_only_our_authority_is_trusted(authority: Authority) -> None:
    tls = authority.tls("node1.example.org")
    for context in (tls.server, tls.client):
        assert len(context.get_ca_certs()) == 1
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert tls.client.check_hostname


CERTIFICATE: dict[str, Any] = {
    "subject": ((("commonName", "node9.example.org"),),),
    "subjectAltName": (
        ("DNS", "Node2.Example.org"),
        ("IP Address", "2001:DB8:0:0:0:0:0:1"),
        ("email", "a@b"),
    ),
}


def test_names_in_a_certificate() -> None:
    """The common name says nothing."""
    assert certificate_names(CERTIFICATE) == ("node2.example.org", "2001:db8::1")
    assert certificate_names({}) == ()


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("node2.example.org", True),
        ("NODE2.example.org.", True),
        ("2001:db8::1", True),
        ("2001:db8::2", False),
        ("node9.example.org", False),
        ("", False),
        (None, False),
    ],
)
def test_a_node_is_named_by_its_host(host: str | None, named: bool) -> None:
    assert names_node(CERTIFICATE, 2, host) is named
