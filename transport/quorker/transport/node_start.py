"""Puts a member together and takes it apart again: directory, state machine, listeners, links, drive loop, own session.

Everything that can be wrong with a configuration is found before the first promise is made, and named.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final

import trio

from quorker.core.errors import OperationError
from quorker.core.jobs.commands import CloseSession
from quorker.core.jobs.store import JobStore
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.effects import ConfigChanged
from quorker.core.raft.messages import NOBODY, ConfState, Forgotten, NodeId, SnapshotMeta
from quorker.core.replica import Replica, ReplicaConfig
from quorker.core.session import SessionConfig, SessionState
from quorker.core.wire.handshake import Party, Refusal, cluster_id_of
from quorker.core.wire.identity import Identity
from quorker.core.wire.roster import Roster
from quorker.core.wire.storage import StorageSettings
from quorker.core.wire.storage_open import Trust
from quorker.transport.clock import monotonic_ms, wall_ms
from quorker.transport.disk import Disk
from quorker.transport.driver import Driver
from quorker.transport.endpoint import Endpoint, check_exposure, parse_endpoint
from quorker.transport.flight_recorder import Recorder, start_recorded
from quorker.transport.greeting import INSTANCE, Credentials
from quorker.transport.listener import Listener
from quorker.transport.node import Node
from quorker.transport.node_config import NodeConfig
from quorker.transport.node_identity import Refusals, announced, announcement, seed_roster
from quorker.transport.node_network import NodeNetwork
from quorker.transport.own_session import OwnSession
from quorker.transport.peers import PeerLinks
from quorker.transport.session_driver import SessionDriver
from quorker.transport.snapshots import BOOTSTRAP_INDEX, SnapshotMover
from quorker.transport.sockets import open_tcp, open_unix, unix_socket_path
from quorker.transport.tls import Tls

log = logging.getLogger("quorker.transport.node")

STOP_SECONDS: Final = 5.0
ANNOUNCE_SECONDS: Final = 3600.0
OPENING_SECONDS: Final = 1.0
MAJORITY_POLL_SECONDS: Final = 0.05


@asynccontextmanager
async def open_node(config: NodeConfig) -> AsyncGenerator[Node]:
    """Be a member while the block runs. It is entered as soon as the node listens; calls wait for a leader.

    Raises `ConfigurationError`, `IdentityMismatch`, `CorruptionError`, `StorageFailed`, each with a text for people.
    When the node has to stop by itself, the block is cancelled and the reason is raised in its place.
    """
    config.validate()
    endpoint = parse_endpoint(config.listen, what="listen address", listening=True)
    check_exposure(
        endpoint,
        has_secret=config.secret is not None,
        has_tls=config.tls is not None,
        insecure_no_auth=config.insecure_no_auth,
    )
    peers = {
        node: parse_endpoint(text, what=f"address of node {node}") for node, text in config.members.items()
    }
    disk = Disk.open(
        config.data_dir,
        _identity_of(config),
        StorageSettings(config.segment_bytes, config.reserve_bytes, config.low_bytes),
        trust=Trust(config.others_help, config.rejoin),
    )
    _tell(config, disk)
    try:
        prepared = _Prepared(config, endpoint, peers, disk)
        try:
            async with _running(prepared) as node:
                yield node
        finally:
            prepared.end_recording()
    finally:
        disk.close()


def _tell(config: NodeConfig, disk: Disk) -> None:
    """What an operator should know about this start."""
    for note in disk.notes:
        log.warning("node %s: %s", config.node_id, note)
    if forgotten := disk.durable.hard_state.forgotten:
        log.warning(
            "node %s may have forgotten %s: it takes part without a vote until the others have brought it up to date",
            config.node_id,
            forgotten.name.lower(),
        )


def _identity_of(config: NodeConfig) -> Identity:
    return Identity(cluster_id_of(config.cluster), config.node_id)


def _recover(config: NodeConfig, disk: Disk) -> tuple[DurableState, JobStore]:
    """The log and the state machine as of its newest snapshot; a fresh directory gets the first configuration."""
    if disk.fresh and not config.join:
        voters = tuple(sorted(config.members)) or (config.node_id,)
        disk.bootstrap(SnapshotMeta(BOOTSTRAP_INDEX, BOOTSTRAP_INDEX, ConfState(voters)))
    durable = disk.durable
    members, forgotten = durable.snapshot.conf_state, durable.hard_state.forgotten
    is_named = config.node_id in (*members.voters, *members.learners, *members.voters_outgoing)
    if not is_named and not config.join and not forgotten:
        log.warning("node %s is not among the members %s of its own log", config.node_id, members.voters)
    if durable.snapshot.index <= BOOTSTRAP_INDEX:
        return durable, JobStore(epoch=disk.identity.restore_epoch)
    store = JobStore.restore(disk.open_snapshot(durable.snapshot))
    store.epoch = max(store.epoch, disk.identity.restore_epoch)
    return durable, store


def replica_config(config: NodeConfig, incarnation: int) -> ReplicaConfig:
    timing = config.timing
    raft = RaftConfig(
        config.node_id,
        election_timeout=timing.election_ms,
        heartbeat_interval=timing.heartbeat_ms,
        seed=int.from_bytes(INSTANCE, "big"),
        incarnation=incarnation,
    )
    return ReplicaConfig(
        raft,
        snapshot_after_bytes=config.snapshot_after_bytes,
        snapshot_after_entries=config.snapshot_after_entries,
        keep_entries=config.keep_entries,
    )


class _Prepared:
    """The parts of a node before anything runs, and the two ways in which it ends."""

    def __init__(
        self, config: NodeConfig, endpoint: Endpoint, peers: dict[NodeId, Endpoint], disk: Disk
    ) -> None:
        self.config = config
        self.endpoint = endpoint
        self.peers = peers
        self.disk = disk
        self.failure: BaseException | None = None
        self.has_started = False
        self.nursery: trio.Nursery
        durable, store = _recover(config, disk)
        identity = disk.identity
        self.party = Party(
            identity.cluster_id, identity.node_id, identity.dir_uuid, identity.incarnation, INSTANCE
        )
        if durable.hard_state.forgotten is Forgotten.PROMISES:
            self.party = replace(self.party, rejoins=True)
        self.roster = Roster(self.party, peers or (config.node_id,), log.error)
        self.refusals = Refusals(config.node_id, len(peers) - 1)
        seed_roster(self.roster, store)
        settings = replica_config(config, identity.incarnation)
        self.recorder = Recorder(config.record, config.record_bytes_max) if config.record else None
        if self.recorder is None:
            replica = Replica.start(settings, durable, store, monotonic_ms(), wall_ms())
        else:
            log.warning("node %s records all its inputs to %s", config.node_id, self.recorder.path)
            replica = start_recorded(self.recorder, settings, durable, store, monotonic_ms(), wall_ms())
        self.node = Node(config, config.cluster, replica, config.listen)
        self.roster.recall = lambda peer: announced(identity.cluster_id, replica.store).get(peer)
        self._assemble(replica)

    def _assemble(self, replica: Replica) -> None:
        node, config = self.node, self.config
        tls = Tls(config.tls) if config.tls is not None else None
        secrets = (config.secret,) if config.secret is not None else ()
        self.credentials = Credentials(secrets, tls)
        self.network = NodeNetwork(node, self.start, self.on_refused)
        self.links = PeerLinks(self.party, self.credentials, self.roster, self.network)
        self.links.set_peers(self.peers)
        self.network.links = self.links
        node.is_connected = self.links.is_up
        node.driver = driver = Driver(replica, self.disk, self.network, node)
        self.mover = SnapshotMover(
            replica, self.disk, self.network, self.start, driver.wake, node.on_state_replaced
        )
        self.network.mover = self.mover
        name = config.name or f"node-{config.node_id}"
        session = SessionConfig(name, config.timing.session_ttl_ms, config.timing.retransmit_ms)
        own = SessionDriver(session, driver.wake, config.default_timeout)
        node.own = OwnSession(own, node.hosts, node.submit_group, lambda: replica.raft.leader)
        node.refuse_forwarded = self.network.refuse_forwarded
        node.save_snapshot = self.mover.save
        node.load_snapshot = self.mover.load
        node.on_members_changed = self.on_members_changed
        node.on_has_its_say = self.on_has_its_say
        self.listener = Listener(self.party, self.credentials, self.roster, self.network, self.links.host_of)

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        self.nursery.start_soon(work)

    def fail(self, error: BaseException) -> None:
        """The first error counts: it ends the parts, and then the block of whoever opened this node."""
        if self.failure is None:
            if self.has_started:  # whoever opens a node that cannot start is told at once
                log.error("node %s has to stop: %s", self.config.node_id, error)
            self.failure = error
            self.node.faulted = str(error) or type(error).__name__
        self.nursery.cancel_scope.cancel()

    def end_recording(self) -> None:
        if self.recorder is not None:
            self.recorder.close(f"the member stopped: {self.node.faulted or 'as asked'}")

    def on_refused(self, peer: NodeId, refusal: Refusal) -> None:
        raft = self.node.replica.raft
        final = self.refusals.on_refused(peer, refusal, raft.leader != NOBODY)
        if final is not None:
            self.fail(final.to_error(f"node {peer} at {self.peers[peer]}"))

    def on_has_its_say(self) -> None:
        """From now on this node stands for its directory again: another one would be a mistake."""
        self.party = replace(self.party, rejoins=False)
        self.links.set_party(self.party)
        self.listener.set_party(self.party)

    def on_members_changed(self, effect: ConfigChanged) -> None:
        conf = effect.conf_state
        members = {*conf.voters, *conf.learners, *conf.voters_outgoing, *conf.learners_next}
        self.roster.set_members(sorted(members | set(self.peers)))


@asynccontextmanager
async def _running(prepared: _Prepared) -> AsyncGenerator[Node]:
    """Run the parts. Errors of the block pass through as they are; errors of the node replace them."""
    node, failed = prepared.node, None
    async with trio.open_nursery() as block:
        try:
            await block.start(_run_parts, prepared, block.cancel_scope)
            yield node
            await _stop(node)
        except BaseException as error:  # noqa: BLE001  # raised again below, without the nursery's wrapping
            failed = error
            with trio.CancelScope(shield=True):
                await _stop(node)
        if prepared.failure is None:
            prepared.nursery.cancel_scope.cancel()
    if prepared.failure is not None:
        raise prepared.failure
    if failed is not None:
        raise failed


async def _run_parts(
    prepared: _Prepared, block: trio.CancelScope, *, task_status: trio.TaskStatus[None]
) -> None:
    """Once started, the parts outlive a cancelled block: without them it could not give anything back."""
    try:
        with ExitStack() as stack, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                prepared.nursery = nursery
                await _start(prepared, nursery, stack)
                scope.shield = True
                prepared.has_started = True
                task_status.started()
    except Exception as error:  # noqa: BLE001  # it is raised by whoever opened the node
        prepared.fail(_sole(error))
    finally:
        block.cancel()


def _sole(error: BaseException) -> BaseException:
    """What trio's nurseries wrapped, if it is one error."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group: BaseExceptionGroup[BaseException] = error  # pyright: ignore[reportUnknownVariableType]  # narrowed to Unknown
    return _sole(group.exceptions[0]) if len(group.exceptions) == 1 else group


async def _start(prepared: _Prepared, nursery: trio.Nursery, stack: ExitStack) -> None:
    config, node, driver = prepared.config, prepared.node, prepared.node.driver
    bound, listeners = await open_tcp(prepared.endpoint)
    node.address = str(bound)
    await nursery.start(prepared.listener.serve, listeners)
    if config.unix_socket:
        path = stack.enter_context(unix_socket_path(config.data_dir))
        unix = await open_unix(path)

        async def serve_unix(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            await prepared.listener.serve([unix], private=True, task_status=task_status)

        await nursery.start(serve_unix)
    await nursery.start(prepared.links.run)
    nursery.start_soon(driver.run)
    nursery.start_soon(driver.run_timer)
    nursery.start_soon(_announce, prepared)
    node.own.driver.open()
    if node.replica.raft.conf_state.voters == (config.node_id,):
        node.replica.campaign()  # nobody else can: there is no reason to wait for a timeout
    driver.wake()


async def _announce(prepared: _Prepared) -> None:
    """Say which directory this member runs from, as soon as somebody leads."""
    node, said = prepared.node, False
    while not said:
        await node.own.driver.wait_open()
        try:
            await node.submit(announcement(prepared.disk.identity), timeout=ANNOUNCE_SECONDS)
            said = True
        except OperationError as error:
            log.info("node %s could not announce its directory yet: %s", node.node_id, error)
    seed_roster(prepared.roster, node.replica.store)


async def _stop(node: Node) -> None:
    """Give jobs and locks back, hand leadership over. Bounded; without a majority there is nothing to agree on."""
    if node.faulted:
        return
    with trio.move_on_after(STOP_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_majority, node, nursery.cancel_scope)
            await _say_goodbye(node)
            nursery.cancel_scope.cancel()


async def _watch_majority(node: Node, goodbye: trio.CancelScope) -> None:
    while True:
        await trio.sleep(MAJORITY_POLL_SECONDS)
        if node.faulted or not node.sees_majority():
            goodbye.cancel()


async def _say_goodbye(node: Node) -> None:
    with trio.move_on_after(OPENING_SECONDS):  # one that is just being opened would be left behind
        await node.own.driver.wait_open()
    if node.own.driver.session.state is SessionState.OPEN:
        try:
            await node.submit(CloseSession(), timeout=STOP_SECONDS)
        except OperationError as error:
            log.warning("node %s could not close its session: %s", node.node_id, error)
    await node.transfer_leadership()
