"""How commands reach a cluster: the options that all of them share but `node`, `demo` and `sim`, and the connection."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import trio
from cyclopts import App as Program
from cyclopts import Parameter

from quorker.app.cli.configuration import ConfigFile, Table, from_environment, keys_of
from quorker.app.cli.line_values import WAIT_SECONDS_MIN, waiting_time
from quorker.app.cli.output import Format
from quorker.app.front_door import client_name
from quorker.core.errors import ConfigurationError, NotApplied
from quorker.transport.client import open_client
from quorker.transport.connection import Connection
from quorker.transport.tls import TlsPaths

T = TypeVar("T")

DEFAULT_ADDRESS: Final = "127.0.0.1:7701"
ENDLESS: Final = math.inf
GRACE_SECONDS: Final = 2.0  # the client itself gives up before, and says why


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Which cluster, and how answers are shown."""

    address: Annotated[
        tuple[str, ...],
        Parameter(
            help="A member, host:port; repeat it for others to fall back on.",
            env_var=from_environment("address"),
        ),
    ] = (DEFAULT_ADDRESS,)
    cluster: Annotated[
        str | None,
        Parameter(help="Refuse to talk to a cluster with another name.", env_var=from_environment("cluster")),
    ] = None
    secret_file: Annotated[
        Path | None,
        Parameter(help="File with the cluster's secret.", env_var=from_environment("secret_file")),
    ] = None
    tls_certificate: Annotated[Path | None, Parameter(env_var=from_environment("tls_certificate"))] = None
    tls_key: Annotated[Path | None, Parameter(env_var=from_environment("tls_key"))] = None
    tls_authority: Annotated[Path | None, Parameter(env_var=from_environment("tls_authority"))] = None
    timeout: Annotated[
        float, Parameter(help="Seconds to wait for the cluster.", env_var=from_environment("timeout"))
    ] = 10.0
    output: Annotated[
        Format,
        Parameter(
            name=["--output", "-o"],
            help="table for people, json or jsonl (a document a line) for programs.",
            env_var=from_environment("output"),
        ),
    ] = "table"
    config: Annotated[ConfigFile, Parameter(env_var=from_environment("config"))] = None


PATHS: Final = ("secret_file", "tls_certificate", "tls_key", "tls_authority")
CLIENT_TABLE: Final = Table("client", keys_of(ClientOptions, "app"), PATHS)


def client_program(name: str, help_text: str | None = None) -> Program:
    """A command, or a group of them, that takes the options of the client."""
    return Program(
        name=name,
        help=help_text,
        config=CLIENT_TABLE,
        default_parameter=Parameter(negative_iterable=()),
        result_action="return_value",
    )


def read_secret(path: Path | None) -> bytes | None:
    """The secret in a file, without the line's end. Raises `ConfigurationError`."""
    if path is None:
        return None
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(f"the secret file cannot be read: {error}") from None


def tls_paths(certificate: Path | None, key: Path | None, authority: Path | None) -> TlsPaths | None:
    """All three files or none. Raises `ConfigurationError`."""
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None or authority is None:
        raise ConfigurationError("TLS needs --tls-certificate, --tls-key and --tls-authority, all three")
    return TlsPaths(certificate, key, authority)


def with_connection(
    options: ClientOptions,
    act: Callable[[Connection], Awaitable[T]],
    *,
    observer: bool = True,
    extra_wait: float = 0.0,
) -> T:
    """Connect, act, disconnect. An observer only reads, and needs no leader. `extra_wait`: seconds that `act` may take
    beyond the timeout, ENDLESS where each of its questions has its own. Raises `NotApplied` when no member answers in time."""
    waiting_time(options.timeout, "--timeout", WAIT_SECONDS_MIN)
    return trio.run(_connected, options, act, observer, extra_wait)


async def _connected(
    options: ClientOptions, act: Callable[[Connection], Awaitable[T]], observer: bool, extra_wait: float
) -> T:
    opening = open_client(
        options.address,
        secret=read_secret(options.secret_file),
        tls=tls_paths(options.tls_certificate, options.tls_key, options.tls_authority),
        cluster=options.cluster,
        name=client_name(),
        default_timeout=options.timeout,
        observer=observer,
    )
    with trio.move_on_after(options.timeout + extra_wait + GRACE_SECONDS):
        async with opening as connection:
            return await act(connection)
    raise NotApplied(
        f"the cluster at {', '.join(options.address)} gave no answer within {options.timeout:g} s"
    )
