"""Random schedules over members in memory: any order of messages, writes, crashes, timers and wishes.

Smaller than the simulated world on purpose: no clocks, no disk model, no workload, so thousands of schedules take
seconds while the core is being changed. Safety is checked at every step; each run ends by healing everything and
demanding progress.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final

from quorker.core.raft.confchange import ChangeKind, ChangeStep, ConfigChange, Transition
from quorker.core.raft.effects import Fatal, ReadReady, Role, RoleChanged
from quorker.core.raft.messages import Message, NodeId
from quorker.core.raft.progress import ProgressState
from quorker.sim.bare.pair import ELECTION_TIMEOUT, Cluster

NEWCOMER: Final[NodeId] = 9
QUEUE_MAX: Final = 300
HEALING_TICKS: Final = 151
ROUNDS_PER_TICK: Final = 6
LAST_WORD: Final = b"the end"


class Shake:
    """One run, decided by its seed. Raises AssertionError where a property does not hold."""

    def __init__(self, seed: int, **settings: Any) -> None:
        self.rng = rng = Random(seed)
        self.settings: dict[str, Any] = {
            "seed": seed,
            "pre_vote": rng.random() < 0.8,
            "check_quorum": rng.random() < 0.8,
            "join_appends": rng.random() < 0.7,
            "persist_commit": rng.random() < 0.3,
            "max_append_bytes": rng.choice([0, 200, 1 << 20]),
            "max_inflight_messages": rng.choice([1, 2, 64]),
            "max_committed_bytes_per_apply": rng.choice([0, 1, 200, 4 << 20]),
            **settings,
        }
        self.cluster = Cluster(rng.choice([1, 2, 3, 3, 3, 5]), **self.settings)
        self.nodes = list(self.cluster.members)
        self.context = 0
        self.read_floors: dict[int, int] = {}  # context of a read -> what was committed when it was asked
        self.leaders: dict[int, NodeId] = {}  # term -> leader
        self._seen = dict.fromkeys(self.nodes, 0)
        self._actions: list[tuple[int, Callable[[NodeId], None]]] = [
            (30, self._deliver_some),
            (10, self._perform),
            (10, self._sync_some),
            (14, self._settle_some),
            (12, self._pass_time),
            (10, self._propose),
            (4, self._crash),
            (2, self._cut),
            (3, self._heal),
            (3, self._compact),
            (3, self._lead),
            (2, self._read),
            (2, self._report),
            (2, self._change_members),
        ]

    def run(self, steps: int = 400) -> int:
        """Shake, then heal. Returns how many entries were committed."""
        weights = [weight for weight, _ in self._actions]
        for _ in range(steps):
            (_, action) = self.rng.choices(self._actions, weights)[0]
            action(self.rng.choice(self.nodes))
        self._heal_everything()
        return len(self.cluster.committed)

    # What is checked

    def _perform(self, node_id: NodeId) -> None:
        self.cluster.perform(node_id)
        member = self.cluster.members[node_id]
        fresh = member.log[self._seen[node_id] :]
        self._seen[node_id] = len(member.log)
        for effect in fresh:
            assert not isinstance(effect, Fatal), effect
            if isinstance(effect, RoleChanged) and effect.role is Role.LEADER:
                first = self.leaders.setdefault(effect.term, node_id)
                assert first == node_id, f"{first} and {node_id} were elected in term {effect.term}"
                self._check_completeness(node_id)
            if isinstance(effect, ReadReady):
                floor = self.read_floors[effect.context]
                assert effect.index >= floor, f"a read at {effect.index} misses what was committed: {floor}"

    def _check_completeness(self, node_id: NodeId) -> None:
        """Whoever is elected holds everything that was ever committed (§5.4)."""
        log = self.cluster[node_id].log
        for index, entry in self.cluster.committed.items():
            if index >= log.first_index:
                assert log.term_at(index) == entry.term, f"leader {node_id} lacks committed entry {index}"

    # What happens

    def _deliver_some(self, _: NodeId) -> None:
        waiting = list(self.cluster.queue)
        if self.rng.random() < 0.3:
            self.rng.shuffle(waiting)
        count = self.rng.randint(0, len(waiting))
        self.cluster.queue = deque(waiting[count:][:QUEUE_MAX])
        for message in waiting[:count]:
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        chance = self.rng.random()
        if chance < 0.07:
            self.cluster.queue.append(message)  # it will come twice
        if (
            chance < 0.95
            and (message.sender, message.to) not in self.cluster.cut
            and message.to in self.nodes
        ):
            self.cluster[message.to].step(message)

    def _sync_some(self, node_id: NodeId) -> None:
        self.cluster.sync(node_id, self.rng.randint(1, 3))

    def _settle_some(self, _: NodeId) -> None:
        for _ in range(self.rng.randint(1, 4)):
            self._round([node_id for node_id in self.nodes if self.rng.random() < 0.8])

    def _round(self, nodes: list[NodeId]) -> None:
        for node_id in nodes:
            self._perform(node_id)
        for node_id in nodes:
            self.cluster.sync(node_id)
        self.cluster.deliver()

    def _pass_time(self, node_id: NodeId) -> None:
        raft = self.cluster[node_id]
        raft.tick(raft.now + self.rng.choice([1, 1, 1, 3, ELECTION_TIMEOUT + 2, 3 * ELECTION_TIMEOUT]))

    def _propose(self, node_id: NodeId) -> None:
        self.context += 1
        self.cluster[node_id].propose([b"%d" % self.context] * self.rng.randint(1, 3), self.context)

    def _crash(self, node_id: NodeId) -> None:
        self.cluster.members[node_id].restart()
        self._seen[node_id] = 0

    def _cut(self, node_id: NodeId) -> None:
        if self.rng.random() < 0.5:
            self.cluster.isolate(node_id)
        else:
            self.cluster.cut.add((node_id, self.rng.choice(self.nodes)))

    def _heal(self, _: NodeId) -> None:
        self.cluster.heal()

    def _compact(self, node_id: NodeId) -> None:
        self.cluster.members[node_id].compact(self.rng.choice([0, 0, 2, 5]))

    def _lead(self, node_id: NodeId) -> None:
        raft = self.cluster[node_id]
        wish = self.rng.randrange(3)
        if wish == 0:
            raft.transfer(self.rng.choice(self.nodes))
        elif wish == 1:
            raft.campaign()
        else:
            raft.forget_leader()

    def _read(self, node_id: NodeId) -> None:
        self.context += 1
        committed = max(member.raft.commit_index for member in self.cluster.members.values())
        self.read_floors[self.context] = committed
        self.cluster[node_id].read(self.context)

    def _report(self, node_id: NodeId) -> None:
        peer = self.rng.choice(self.nodes)
        if self.rng.random() < 0.5:
            self.cluster[node_id].snapshot_status(peer, self.rng.random() < 0.5)
        else:
            self.cluster[node_id].peer_unreachable(peer)

    def _change_members(self, node_id: NodeId) -> None:
        """Propose a change, sensible or not. The newcomer exists from the first one on."""
        if NEWCOMER not in self.nodes:
            self._add_newcomer()
        rng = self.rng
        steps = [
            ChangeStep(rng.choice(list(ChangeKind)), rng.choice(self.nodes))
            for _ in range(rng.choice([0, 0, 1, 1, 2, 3]))
        ]
        self.context += 1
        change = ConfigChange(tuple(steps), rng.choice(list(Transition)))
        self.cluster[node_id].propose_config(change, self.context)

    def _add_newcomer(self) -> None:
        self.cluster.add(NEWCOMER, **self.settings)
        self.nodes.append(NEWCOMER)
        self._seen[NEWCOMER] = 0

    # How it ends

    def _heal_everything(self) -> None:
        self.cluster.heal()
        calm_term = 0
        for tick in range(HEALING_TICKS):
            for node_id in self.nodes:
                self.cluster[node_id].tick(self.cluster[node_id].now + 1)
            for _ in range(ROUNDS_PER_TICK):
                self._round(self.nodes)
            if tick % ELECTION_TIMEOUT == 0:
                self._give_up_snapshots()
                calm_before, calm_term = calm_term, self._calm_term()
                if calm_term and calm_term == calm_before:
                    break
        self._demand_progress()

    def _calm_term(self) -> int:
        """The term, if one member leads and has committed everything; else 0."""
        leaders = [self.cluster[node_id] for node_id in self.cluster.leaders()]
        is_calm = len(leaders) == 1 and leaders[0].commit_index == leaders[0].last_index
        return leaders[0].term if is_calm else 0

    def _give_up_snapshots(self) -> None:
        """The driver notices that an offered snapshot never arrived."""
        for node_id in self.nodes:
            for peer, known in self.cluster[node_id].progress.items():
                if known.state is ProgressState.SNAPSHOT:
                    self.cluster[node_id].snapshot_status(peer, ok=False)

    def _demand_progress(self) -> None:
        leaders = [self.cluster[node_id] for node_id in self.cluster.leaders()]
        assert leaders, (
            f"nobody leads: {[member.raft.conf_state for member in self.cluster.members.values()]}"
        )
        leader = max(leaders, key=lambda raft: raft.term)
        leader.transfer(leader.node_id)  # that takes back any transfer to someone else
        leader.propose([LAST_WORD], 0)
        for _ in range(5 * ROUNDS_PER_TICK):
            self._round(self.nodes)
        assert any(entry.data == LAST_WORD for entry in self.cluster.committed.values()), (
            f"{leader.conf_state} commits nothing"
        )
