"""Mutual TLS from three files: this node's certificate and key, and the one authority that signs all of them.

TLS 1.3 only, the system's authorities are never trusted, and both sides must show a certificate. The library checks
the dialled name; that the dialling side's certificate names the node it claims to be is checked here, by hand.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import trio

from quorker.core.errors import ConfigurationError
from quorker.core.raft.messages import NodeId

NODE_NAME: Final = "quorker-node-"


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """PEM files."""

    certificate: Path
    key: Path
    authority: Path


class Tls:
    """The two contexts made from the files; `reload` after the files were replaced."""

    def __init__(self, paths: TlsPaths) -> None:
        """Raises `ConfigurationError` naming the file that cannot be used."""
        self.paths = paths
        self.server, self.client = self._build()

    def reload(self) -> None:
        """New connections use the files as they are now. Raises `ConfigurationError` and keeps what it had."""
        self.server, self.client = self._build()

    def _build(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.verify_mode = ssl.CERT_REQUIRED
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (server, client):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            _load(context, self.paths)
        return server, client


def _load(context: ssl.SSLContext, paths: TlsPaths) -> None:
    for path in (paths.certificate, paths.key, paths.authority):
        if not path.is_file():
            raise ConfigurationError(f"tls file {path} does not exist")
    try:
        context.load_cert_chain(paths.certificate, paths.key)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        text = f"tls certificate {paths.certificate} with key {paths.key} cannot be used: {error}"
        raise ConfigurationError(text) from error
    try:
        context.load_verify_locations(paths.authority)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"tls authority {paths.authority} cannot be used: {error}") from error


def wrap_accepted(stream: trio.abc.Stream, tls: Tls) -> trio.SSLStream[trio.abc.Stream]:
    """The accepting side. The caller handshakes under a deadline and closes forcefully."""
    return trio.SSLStream(stream, tls.server, server_side=True, https_compatible=True)


def wrap_dialled(stream: trio.abc.Stream, tls: Tls, host: str) -> trio.SSLStream[trio.abc.Stream]:
    """The dialling side: the certificate shown must name `host`. That it was accepted only WELCOME proves."""
    return trio.SSLStream(stream, tls.client, server_hostname=host, https_compatible=True)


def certificate_names(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The DNS names (lower case) and IP addresses for which a verified certificate speaks."""
    names: list[str] = []
    for kind, value in certificate.get("subjectAltName", ()):
        if kind == "DNS":
            names.append(str(value).lower())
        elif kind == "IP Address":
            names.append(str(ip_address(str(value).strip())))
    return tuple(names)


def names_node(certificate: Mapping[str, Any], node: NodeId, host: str | None) -> bool:
    """True when this certificate may speak for `node`, which is known at `host`.

    A certificate with a name `quorker-node-N` is held to exactly those numbers; any other must name the host.
    """
    names = certificate_names(certificate)
    numbered = [name for name in names if name.startswith(NODE_NAME)]
    if numbered:
        return f"{NODE_NAME}{node}" in numbered
    return host is not None and _canonical(host) in names


def _canonical(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower().rstrip(".")
