"""A run of members with a job store, and of clients that enqueue, lock and work under every fault.

The last phase demands that a client at each member is served, that every job ends, and that all stores are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from quorker.core.jobs.batch import decode_entry
from quorker.core.jobs.commands import RemoveRecurring, SetQueuePaused
from quorker.core.jobs.lifecycle import DELETED, QUARANTINED
from quorker.core.jobs.records import Job
from quorker.core.jobs.store import JobStore
from quorker.core.raft.confchange import ConfigChange
from quorker.core.raft.messages import EntryKind, NodeId
from quorker.sim.cases.case import ClockKnobs, Fault, FaultKind, JobsKnobs, Op
from quorker.sim.clients.asks import QUEUES
from quorker.sim.clients.client import Lines, SimClient
from quorker.sim.disks.disk import DurableLog, LogDisk
from quorker.sim.faults.network import End, Strike, missed
from quorker.sim.model.witness import Witness
from quorker.sim.oracles.beliefs import Beliefs
from quorker.sim.oracles.checks import Violation
from quorker.sim.oracles.job_checks import JobOracles, Order
from quorker.sim.oracles.late_ends import pace_of
from quorker.sim.oracles.lease_gaps import fastest_ppm
from quorker.sim.oracles.memory import weigh_at_rest, weigh_client
from quorker.sim.runs.membership import CHANGES
from quorker.sim.runs.phases import Phases, Recovery
from quorker.sim.runs.replica_node import MAINTENANCE_MS, ReplicaNode
from quorker.sim.stories.story import Kind
from quorker.sim.world.clock import NodeClock
from quorker.sim.world.host import Host, leader_of
from quorker.sim.world.kernel import MS, Call
from quorker.sim.world.world import World

LOOK_MS = 50
CONTEXTS_OF_CHANGES = 1 << 41  # far from those that replicas count for their batches


class JobsCluster(Phases[ReplicaNode]):
    """`clients` are numbered from 1."""

    empty_state = b""

    def prepare(self) -> None:
        self.knobs = self.case.jobs or JobsKnobs()
        pace = pace_of(self.case, MAINTENANCE_MS)
        self.jobs = JobOracles(self.world.oracles, fastest_ppm(self.case), pace)
        self.jobs.witness = Witness()
        self.jobs.witness.naive.lost_max = self.knobs.max_lost_deliveries
        self.beliefs = Beliefs(self.world)
        self.jobs.on_revoked = self.beliefs.revoke
        story = self.world.trace.story
        if story is not None:
            self.jobs.on_event = story.decide
        self.clients: dict[int, SimClient] = {}
        self._contexts = CONTEXTS_OF_CHANGES

    def node(self, node_id: NodeId, clock: NodeClock, disk: LogDisk) -> ReplicaNode:
        return ReplicaNode(self.world, node_id, clock, disk, self.jobs)

    def begin(self) -> None:
        self._lines = Lines(self.world, list(self.nodes.values()))
        for number in range(1, self.knobs.clients + 1):
            self._hire(number, self.nodes[number] if number <= self.knobs.housed else None)
        for op in self.case.ops:
            self.world.kernel.after(op.at_ns, self._perform, op)

    def _hire(self, number: int, home: ReplicaNode | None) -> SimClient:
        place = len(self.nodes) + number - 1
        knobs = self.case.clocks[place] if place < len(self.case.clocks) else ClockKnobs()
        clock = home.clock if home is not None else NodeClock(knobs.rate_ppm, knobs.wall_offset_ms)
        client = SimClient(number, clock, self._lines, self.jobs, self.beliefs, home)
        self.clients[number] = client
        if home is not None:
            home.housed.append(client)
        client.start()
        return client

    def _perform(self, call: Call) -> None:
        if call.payload.kind in CHANGES:
            self._change(call.payload)
            return
        client = self.clients.get(call.payload.node)
        if client is not None:
            client.perform(call.payload)

    def _change(self, op: Op) -> None:
        """Membership changes go to whoever leads: others would only drop them."""
        leader = leader_of(self.nodes)
        if leader is None:
            return
        self._contexts += 1
        change, context = CHANGES[op.kind](op), self._contexts
        if self.world.trace.story is not None:
            self.world.trace.story.enter(f"n{leader.id}", Kind.OPERATION, f"is asked for {change}")
        leader.ask(lambda raft: raft.propose_config(change, context))

    # ------------------------------------------------------------------ faults of clients

    def strikes(self) -> Mapping[FaultKind, Strike]:
        return {
            FaultKind.CLIENT_CRASH: self._client_crash,
            FaultKind.CLIENT_PAUSE: self._client_pause,
            FaultKind.CLIENT_CLOCK_RATE: self._client_clock_rate,
            FaultKind.CLIENT_WALL_JUMP: self._client_wall_jump,
            FaultKind.LINE_RESET: self._line_reset,
            FaultKind.LINE_STALL: self._line_stall,
            FaultKind.WALL_JUMP: self._wall_jump,
        }

    def _wall_jump(self, node: Host, fault: Fault) -> None:
        self._jump(node.clock, fault.amount)

    def _jump(self, clock: NodeClock, by_ms: int) -> None:
        if by_ms < 0 and self.jobs.holders:
            self.world.note("clock set back while jobs run")
        clock.jump_wall(by_ms)

    def _client(self, fault: Fault) -> SimClient:
        """One that has a process of its own, if there is any."""
        clients = list(self.clients.values())
        return clients[max(fault.node % len(clients), min(self.knobs.housed, len(clients) - 1))]

    def _client_crash(self, _: Host, fault: Fault) -> End | None:
        client = self._client(fault)
        if client.home is not None or not client.alive:
            return missed
        client.crash(fault.for_ns)
        return None

    def _client_pause(self, _: Host, fault: Fault) -> End:
        client = self._client(fault)
        if client.home is not None:
            return missed
        client.pause()
        return client.resume

    def _client_clock_rate(self, _: Host, fault: Fault) -> End | None:
        client = self._client(fault)
        if client.home is not None:
            return missed
        client.clock.set_rate(self.world.kernel.now, fault.amount)
        return None

    def _client_wall_jump(self, _: Host, fault: Fault) -> End | None:
        client = self._client(fault)
        if client.home is not None:
            return missed
        self._jump(client.clock, fault.amount)
        return None

    def _line_reset(self, node: Host, _: Fault) -> None:
        cast("ReplicaNode", node).break_lines()

    def _line_stall(self, node: Host, _: Fault) -> Callable[[], None]:
        return cast("ReplicaNode", node).stall_lines()

    # ------------------------------------------------------------------ the end

    def recovery(self, core: list[NodeId]) -> Recovery:
        self._set_walls()
        for client in self.clients.values():
            client.calm = True
            client.resume()
            if not client.alive and client.home is None:
                client.start()
        return JobsCalm(self, core)

    def _set_walls(self) -> None:
        """Somebody sets all wall clocks right; they wait for no time that only a wrong clock ever showed."""
        now = self.world.kernel.now
        latest = max(
            [
                self.jobs.wt,
                self.jobs.latest_due_wt,
                *(
                    client.wall_ms() for client in self.clients.values()
                ),  # what they asked for may still be on its way
                *(node.clock.wall_ms(now) for node in self.nodes.values()),
                *(node.replica.clock.wt for node in self.nodes.values() if node.raft is not None),
                *(
                    decode_entry(entry.data).wt
                    for entry in self.world.oracles.uncommitted()
                    if entry.kind is EntryKind.NORMAL and entry.data
                ),
            ]
        )
        for node in self.nodes.values():
            node.clock.jump_wall(latest - node.clock.wall_ms(now))

    def hire_probe(self, node: ReplicaNode) -> SimClient:
        """A client in the process of a member, to see whether that member serves it."""
        return self._hire(100 + node.id, node)

    def scan(self) -> None:
        """The power is cut: the disks alone must give back every acknowledged job [D1]."""
        commit_index = self.world.oracles.commit_index
        stores = [
            store
            for node in self.nodes.values()
            if (store := recovered(node.disk.durable, commit_index)) is not None
        ]
        if not stores:
            raise Violation("acknowledged is not lost [D1]", f"no disk leads to index {commit_index}")
        for store in stores:
            self.jobs.scan(store)


def recovered(durable: DurableLog, commit_index: int) -> JobStore | None:
    """The store that this disk alone gives back, if its log goes so far."""
    if durable.snapshot.index > commit_index:
        return None
    store = JobStore.restore([durable.state]) if durable.state else JobStore()
    reached = durable.snapshot.index
    for entry in durable.entries:
        if reached < entry.index <= commit_index:
            reached = entry.index
            if entry.kind is EntryKind.NORMAL and entry.data:
                store.apply(entry.index, entry.data)
    return store if reached == commit_index else None


def is_expired(job: Job) -> bool:
    """It was not started in time."""
    return job.current is not None and job.state == DELETED and job.current.reason.startswith("expired")


class JobsCalm:
    """`done` when every member of the core has served a client of its own, all jobs have ended and stores are equal."""

    def __init__(self, cluster: JobsCluster, core: list[NodeId]) -> None:
        self.done = False
        self._cluster = cluster
        self._world: World = cluster.world
        self._nodes = {node_id: cluster.nodes[node_id] for node_id in core}
        self._probes: dict[NodeId, Order] = {}
        self._clients: dict[NodeId, SimClient] = {}
        self._read: set[NodeId] = set()
        self._contexts = 1 << 40
        self._why = "nobody leads"
        self._since_wt = max(node.clock.wall_ms(self._world.kernel.now) for node in self._nodes.values())
        for node in self._nodes.values():
            node.on_read = lambda node_id, _: self._read.add(node_id)

    def start(self) -> None:
        self._world.kernel.after(LOOK_MS * MS, self._look)

    def verdict(self) -> Violation:
        leader = leader_of(self._nodes)
        missing = leader and self._cluster.jobs.batches.missing(leader.replica.store)
        if missing:
            return missing
        shown = ", ".join(
            f"n{node.id} {node.raft.role.value if node.raft else 'down'} at {node.applied_index if node.raft else 0}"
            for node in self._nodes.values()
        )
        return Violation("liveness", f"no recovery after all faults ended: {self._why}; {shown}")

    def _look(self, _: Call) -> None:
        leader = leader_of(self._nodes)
        if leader is not None and leader.raft is not None:
            conf_state = leader.raft.conf_state
            if conf_state.voters_outgoing and not conf_state.auto_leave:
                leader.ask(lambda raft: raft.propose_config(ConfigChange(), 0))
            named = {*conf_state.voters, *conf_state.learners, *conf_state.voters_outgoing}
            members = [node for node in self._nodes.values() if node.id in named and node.raft is not None]
            self._why = self._owed(leader, members)
            self.done = not self._why
        if self.done and leader is not None:
            self._cluster.jobs.compare(leader.replica.store)
            self._cluster.jobs.scan(leader.replica.store)
            missing = self._cluster.jobs.batches.missing(leader.replica.store)
            if missing is not None:
                raise missing
            if any(job.state == QUARANTINED for job in leader.replica.store.jobs.values()):
                self._world.note("job quarantined")
            if any(is_expired(job) for job in leader.replica.store.jobs.values()):
                self._world.note("job expired")
            self._world.kernel.stop()
        else:
            self._world.kernel.after(LOOK_MS * MS, self._look)

    def _owed(self, leader: ReplicaNode, members: list[ReplicaNode]) -> str:
        """What is missing, in the order in which it is asked for."""
        unread = [node for node in members if node.id not in self._read]
        for node in unread:
            self._contexts += 1
            node.read(self._contexts)
        if unread:
            return f"reads through {[node.id for node in unread]}"
        unserved = [node.id for node in members if not self._is_served(node)]
        if unserved:
            return f"clients at {unserved}"
        recurring = self._recurring(leader)
        if recurring:
            return recurring
        unfinished = self._cluster.jobs.unfinished(leader.replica.store)
        if unfinished:
            self._open_queues()
            return f"jobs {unfinished[:5]}"
        behind = [node.id for node in members if node.applied_index != self._world.oracles.commit_index]
        if behind or any(node.replica.loading for node in members):
            return f"members {behind} are behind"
        silent = [node.id for node in members if node.raft is not None and node.raft.rejoining is not None]
        if silent:
            return f"members {silent} still rejoin"
        for node in members:
            weigh_at_rest(node.id, node.replica)
            self._cluster.jobs.on_state(node.id, node.replica.store.applied_index, node.replica.store)
            self._cluster.jobs.look_inside(node.id, node.replica.store)
        for client in self._clients.values():
            weigh_client(client.id, client.session)
        return ""

    def _recurring(self, leader: ReplicaNode) -> str:
        """All of them go on firing; then they are removed, so that jobs come to an end."""
        wall_ms = leader.clock.wall_ms(self._world.kernel.now)
        owed = self._cluster.jobs.schedules.owed(wall_ms, self._since_wt)
        if owed:
            return f"recurring jobs {owed}"
        client = next(iter(self._clients.values()))
        left = list(leader.replica.store.recurring)
        for name in left:
            client.submit(RemoveRecurring(name), LOOK_MS, None)
        return f"recurring jobs {left} to be removed" if left else ""

    def _open_queues(self) -> None:
        """Somebody has to; a late copy of an older command may close them again."""
        client = next(iter(self._clients.values()))
        for queue in QUEUES:
            client.submit(SetQueuePaused(queue, paused=False), LOOK_MS, None)

    def _is_served(self, node: ReplicaNode) -> bool:
        client = self._clients.get(node.id)
        if client is None:
            client = self._clients[node.id] = self._cluster.hire_probe(node)
            client.calm = True
        order = self._probes.get(node.id)
        if order is None or order.fate not in ("asked", "acknowledged"):
            self._probes[node.id] = client.probe()
            return False
        return order.fate == "acknowledged"
