"""Where a process listens and where it dials: "host:port" as a checked value, and the rule for open listeners.

A host is an IP address or a name. Names stay names: they are resolved at each connect, because a member that moved
keeps its name. Opening sockets must not live here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from quorker.core.errors import ConfigurationError, InvalidInput

PORT_MAX: Final = 65_535
NAME_MAX: Final = 253
UNIX_PREFIX: Final = "unix:"
LOCALHOST: Final = "localhost"

_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_NUMBERS: Final = re.compile(r"[0-9.]+")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_FORM: Final = 'write it as "name:7701", "192.0.2.1:7701" or "[2001:db8::1]:7701"'


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked host and port. Port 0 occurs only where a process listens: take a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """The address, or None for a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def is_loopback(self) -> bool:
        """Only processes on this machine can reach it."""
        ip = self.ip
        return self.host.lower() == LOCALHOST if ip is None else ip.is_loopback

    @property
    def bind_hosts(self) -> tuple[str, ...]:
        """The addresses to listen on: itself, loopback for localhost, every interface for any other name."""
        if self.ip is not None:
            return (self.host,)
        return ("127.0.0.1",) if self.is_loopback else ("0.0.0.0", "::")  # guarded by check_exposure


def parse_endpoint(text: str, *, what: str = "address", listening: bool = False) -> Endpoint:
    """`what` is named in the error. Raises `InvalidInput`; nothing is resolved."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise InvalidInput(f"{what} {text!r} has no port: {_FORM}")
    if host.startswith("[") and host.endswith("]"):
        host = _checked_ipv6(host[1:-1], text, what)
    elif ":" in host:
        raise InvalidInput(f"{what} {text!r}: an IPv6 address needs brackets: {_FORM}")
    else:
        _check_host(host, text, what)
    return Endpoint(host, _checked_port(port, text, what, listening))


def parse_address(text: str, *, what: str = "address") -> Endpoint | Path:
    """Where a client dials: "host:port", or "unix:/path/to/quorker.sock"."""
    if not text.startswith(UNIX_PREFIX):
        return parse_endpoint(text, what=what)
    path = Path(text[len(UNIX_PREFIX) :])
    if not path.is_absolute():
        raise InvalidInput(f"{what} {text!r}: the path of a unix socket must be absolute")
    return path


def _checked_ipv6(host: str, text: str, what: str) -> str:
    try:
        return str(IPv6Address(host))
    except ValueError:
        raise InvalidInput(f"{what} {text!r}: {host!r} is not an IPv6 address: {_FORM}") from None


def _check_host(host: str, text: str, what: str) -> None:
    if _NUMBERS.fullmatch(host):
        try:
            IPv4Address(host)
        except ValueError:
            raise InvalidInput(f"{what} {text!r}: {host!r} is not an IPv4 address: {_FORM}") from None
    elif not _NAME.fullmatch(host) or len(host) > NAME_MAX:
        raise InvalidInput(f"{what} {text!r}: {host!r} is not a host name: {_FORM}")


def _checked_port(port: str, text: str, what: str, listening: bool) -> int:
    lowest = 0 if listening else 1
    if not _PORT.fullmatch(port) or not lowest <= int(port) <= PORT_MAX:
        raise InvalidInput(f"{what} {text!r}: port {port!r} is outside {lowest}..{PORT_MAX}")
    return int(port)


def check_exposure(endpoint: Endpoint, *, has_secret: bool, has_tls: bool, insecure_no_auth: bool) -> None:
    """Raise `ConfigurationError` for a listener that strangers could reach and nothing protects."""
    if endpoint.is_loopback or has_secret or has_tls or insecure_no_auth:
        return
    raise ConfigurationError(
        f"refusing to listen on {endpoint}, which other machines can reach, without authentication: "
        "give a secret, give tls, listen on loopback, or say insecure_no_auth=True"
    )
