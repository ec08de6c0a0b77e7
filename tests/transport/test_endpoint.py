"""Endpoints: what is an address, where a listener binds, and which listener refuses to start."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.errors import ConfigurationError, InvalidInput
from quorker.transport.endpoint import Endpoint, check_exposure, parse_address, parse_endpoint


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1:7701", "192.0.2.1", 7701),
        ("db1.example.org:1", "db1.example.org", 1),
        ("db_1:65535", "db_1", 65535),
        ("localhost:7701", "localhost", 7701),
        (
            "quorker-0.quorker.default.svc.cluster.local.:7701",
            "quorker-0.quorker.default.svc.cluster.local.",
            7701,
        ),
        ("[::1]:7701", "::1", 7701),
        ("[2001:DB8::0001]:7701", "2001:db8::1", 7701),
        ("[fe80::1%eth0]:7701", "fe80::1%eth0", 7701),
        ("a" * 63 + ":7701", "a" * 63, 7701),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    """A name is kept as it is: it is resolved at each connect."""
    endpoint = parse_endpoint(text)
    assert (endpoint.host, endpoint.port) == (host, port)
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no port"),
        ("db1", "has no port"),
        ("db1:", "port ''"),
        ("db1:http", "port 'http'"),
        ("db1:0", "outside 1..65535"),
        ("db1:65536", "outside 1..65535"),
        ("db1:-1", "port '-1'"),
        ("db1:+1", "port"),
        ("db1:\uff11", "port"),
        ("db1: 7701", "port"),
        (":7701", "not a host name"),
        ("[]:7701", "not an IPv6 address"),
        ("[db1]:7701", "not an IPv6 address"),
        ("[192.0.2.1]:7701", "not an IPv6 address"),
        ("::1:7701", "needs brackets"),
        ("2001:db8::1:7701", "needs brackets"),
        ("http://db1:7701", "needs brackets"),
        ("user@db1:7701", "not a host name"),
        ("db 1:7701", "not a host name"),
        ("db1..org:7701", "not a host name"),
        ("-db1:7701", "not a host name"),
        ("a" * 64 + ":7701", "not a host name"),
        (".".join(["a" * 60] * 5) + ":7701", "not a host name"),
        ("300.0.2.1:7701", "not an IPv4 address"),
        ("1.2.3:7701", "not an IPv4 address"),
    ],
)
def test_what_is_no_address(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match="address of node 3") as raised:
        parse_endpoint(text, what="address of node 3")
    assert words in str(raised.value)


def test_only_a_listener_may_leave_the_port_open() -> None:
    assert parse_endpoint("127.0.0.1:0", listening=True).port == 0
    with pytest.raises(InvalidInput):
        parse_endpoint("127.0.0.1:0")


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_invalid(text: str) -> None:
    try:
        endpoint = parse_endpoint(text, listening=True)
    except InvalidInput:
        return
    assert parse_endpoint(str(endpoint), listening=True) == endpoint


def test_a_client_may_name_a_unix_socket() -> None:
    assert parse_address("unix:/run/quorker.sock") == Path("/run/quorker.sock")
    assert parse_address("db1:7701") == Endpoint("db1", 7701)
    with pytest.raises(InvalidInput, match="absolute"):
        parse_address("unix:quorker.sock")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("192.0.2.1:1", ("192.0.2.1",)),
        ("[::1]:1", ("::1",)),
        ("localhost:1", ("127.0.0.1",)),
        ("db1:1", ("0.0.0.0", "::")),
    ],
)
def test_an_address_binds_itself_and_a_name_binds_everything(text: str, hosts: tuple[str, ...]) -> None:
    assert parse_endpoint(text).bind_hosts == hosts


OPEN = ["192.0.2.1:1", "0.0.0.0:1", "[::]:1", "db1:1", "localhost.example.org:1", "[2001:db8::1]:1"]
LOOPBACK = ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "LOCALHOST:1"]


@pytest.mark.parametrize("text", OPEN)
def test_a_listener_that_strangers_reach_refuses_to_start_open(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match="give a secret, give tls, listen on loopback, or say insecure"
    ):
        check_exposure(parse_endpoint(text), has_secret=False, has_tls=False, insecure_no_auth=False)


@pytest.mark.parametrize("text", OPEN)
@pytest.mark.parametrize("protection", ["has_secret", "has_tls", "insecure_no_auth"])
def test_with_protection_or_on_purpose_it_starts(text: str, protection: str) -> None:
    given = {"has_secret": False, "has_tls": False, "insecure_no_auth": False, protection: True}
    check_exposure(parse_endpoint(text), **given)


@pytest.mark.parametrize("text", LOOPBACK)
def test_on_loopback_it_starts(text: str) -> None:
    check_exposure(parse_endpoint(text), has_secret=False, has_tls=False, insecure_no_auth=False)
