"""`quorker node MODULE:app`: be a member of a cluster until a signal says stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import trio
from cyclopts import App as Program
from cyclopts import Parameter
from cyclopts.config import Env

from quorker.app.app import App, load_app
from quorker.app.cli.client_options import DEFAULT_ADDRESS, PATHS, read_secret, tls_paths
from quorker.app.cli.configuration import VARIABLE_PREFIX, ConfigFile, Table, keys_of
from quorker.app.front_door import Attached, FrontDoor, WorkPlan
from quorker.core.errors import ConfigurationError, InvalidInput
from quorker.transport.memory_pauses import calm_collector
from quorker.transport.node_config import Profile

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """One member. Every option can stand in [node] of quorker.toml or in QUORKER_<OPTION>."""

    node_id: Annotated[int, Parameter(name="--id", help="This member's number, its own in the cluster.")] = 1
    data: Annotated[Path | None, Parameter(help="Where it keeps its log; default .quorker/n<id>.")] = None
    listen: Annotated[str, Parameter(help="host:port for members and clients; port 0 takes a free one.")] = (
        DEFAULT_ADDRESS
    )
    members: Annotated[
        tuple[str, ...],
        Parameter(help="The first members, this one too: 1=host:port,2=host:port. None: a cluster of one."),
    ] = ()
    cluster: Annotated[str | None, Parameter(help="Name that all members share; default the app's.")] = None
    secret_file: Annotated[
        Path | None, Parameter(help="File with the secret that members and clients share.")
    ] = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_authority: Path | None = None
    insecure_no_auth: Annotated[bool, Parameter(help="Listen beyond this machine without secret or TLS.")] = (
        False
    )
    profile: Annotated[
        Profile, Parameter(help="Timings: fast finds a dead leader sooner, on quiet machines.")
    ] = "default"
    rejoin: Annotated[
        bool,
        Parameter(
            help="For one start, on a wiped directory or an older copy of it: no vote until caught up."
        ),
    ] = False
    workers: Annotated[
        int | None, Parameter(help="Jobs at a time; default 5 per CPU, at most 20; 0 for none.")
    ] = None
    queues: Annotated[
        tuple[str, ...], Parameter(help="Queues to work on, most urgent first; default the tasks'.")
    ] = ()
    shutdown_timeout: Annotated[float, Parameter(help="Seconds that running jobs get at the end.")] = 15.0
    stop_at_eof: Annotated[bool, Parameter(help="Stop when standard input ends, for supervisors.")] = False
    record: Annotated[
        Path | None, Parameter(help="Write all that this member is told to a file, for sim replay-recording.")
    ] = None
    log_level: Annotated[str, Parameter(help="debug, info, warning or error.")] = "info"
    config: ConfigFile = None


node_program = Program(
    name="node",
    config=[
        Env(VARIABLE_PREFIX, command=False),
        Table("node", keys_of(NodeOptions, "app"), (*PATHS, "data", "record")),
    ],
    result_action="return_value",
)


@node_program.default
def node(app: str, *, options: NodeOptions = NodeOptions()) -> None:  # frozen
    """Be a member of the cluster and work on the tasks of APP (MODULE:app) until SIGTERM or Ctrl-C.

    A second signal ends the process at once; its jobs are then given to others when its session expires.
    """
    _set_log_level(options.log_level)
    loaded = load_app(app)
    trio.run(_serve, loaded, options)


async def _serve(app: App, options: NodeOptions) -> None:
    async with trio.open_nursery() as watch:
        stop = trio.Event()
        watch.start_soon(_stop_on_signal, options, stop)
        if options.stop_at_eof:
            watch.start_soon(_stop_at_eof, stop)
        async with _door(app, options) as attached:
            calm_collector()
            print(_ready_line(app, attached, options), flush=True)
            await stop.wait()
        watch.cancel_scope.cancel()


async def _stop_on_signal(options: NodeOptions, stop: trio.Event) -> None:
    """The first signal stops gracefully; another one ends the process there and then."""
    with trio.open_signal_receiver(*_STOP_SIGNALS) as signals:
        number = await anext(aiter(signals))
        print(f"node {options.node_id} stops on {signal.Signals(number).name}", flush=True)
        stop.set()
        os._exit(128 + await anext(aiter(signals)))


async def _stop_at_eof(stop: trio.Event) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        async for _ in stdin:
            pass
    stop.set()


def _door(app: App, options: NodeOptions) -> FrontDoor:
    return app.node(
        _data_dir(options),
        node_id=options.node_id,
        listen=options.listen,
        members=read_members(options.members),
        cluster=options.cluster,
        secret=read_secret(options.secret_file),
        tls=tls_paths(options.tls_certificate, options.tls_key, options.tls_authority),
        insecure_no_auth=options.insecure_no_auth,
        profile=options.profile,
        rejoin=options.rejoin,
        workers=options.workers,
        queues=options.queues or None,
        shutdown_timeout=options.shutdown_timeout,
        record=options.record,
    )


def _data_dir(options: NodeOptions) -> Path:
    return options.data or Path(f".quorker/n{options.node_id}")


def _ready_line(app: App, attached: Attached, options: NodeOptions) -> str:
    slots = WorkPlan.default_slots() if options.workers is None else options.workers
    work = f"{slots} workers on {', '.join(options.queues or app.queues)}" if slots else "no workers"
    return (
        f"node {attached.node_id} is up: cluster {options.cluster or app.name}, {attached.address}, "
        f"data {_data_dir(options)}, {work} (Ctrl-C stops)"
    )


def read_members(given: Sequence[str]) -> dict[int, str]:
    """Members out of `1=host:port`, repeated or with commas between them. Raises `InvalidInput`."""
    members: dict[int, str] = {}
    for entry in ",".join(given).split(",") if given else ():
        number, equals, address = entry.strip().partition("=")
        if not equals or not number.isdecimal() or not address:
            raise InvalidInput(f"member {entry!r}: write 1=127.0.0.1:7701")
        if int(number) in members:
            raise InvalidInput(f"member {number} is given twice")
        members[int(number)] = address
    return members


def _set_log_level(name: str) -> None:
    level = logging.getLevelNamesMapping().get(name.upper())
    if level is None:
        raise ConfigurationError(f"no log level {name!r}: debug, info, warning or error")
    logging.getLogger("quorker").setLevel(level)
