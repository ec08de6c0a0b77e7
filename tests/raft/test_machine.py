"""An adversary with a bundle of messages over bare members: any message, at any time, again and again.

Smaller than the simulated world and meaner: messages are never gone, the order is whatever Hypothesis likes, writes finish
when it says so. Invariants of each member are checked by `pair` at every effect; here stand those of all members together.
"""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from quorker.core.raft import quorum
from quorker.core.raft.confchange import ChangeKind, ChangeStep, ConfigChange
from quorker.core.raft.effects import ReadReady, Role, RoleChanged
from quorker.core.raft.log import RaftLog
from quorker.core.raft.messages import Message, NodeId
from quorker.core.raft.state import RaftState
from quorker.sim.bare.pair import Cluster

MEMBERS = st.integers(1, 3)
GROUPS = st.sampled_from(((1, 2, 3), (1, 2), (2, 3), (1, 3)))


class Adversary(RuleBasedStateMachine):
    """Three members; whatever they ever said can be delivered at any time."""

    messages = Bundle("messages")

    @initialize(
        pre_vote=st.booleans(), check_quorum=st.booleans(), max_append_bytes=st.sampled_from((1 << 20, 0))
    )
    def found(self, pre_vote: bool, check_quorum: bool, max_append_bytes: int) -> None:
        self.cluster = Cluster(
            3, pre_vote=pre_vote, check_quorum=check_quorum, max_append_bytes=max_append_bytes
        )
        self.leaders: dict[int, NodeId] = {}
        self.proposed = self.asked = 0
        self.floors: dict[int, int] = {}  # of each read: what was committed when it was asked for
        self.offered: dict[int, Message] = {}  # what waits and is in the bundle already

    # ------------------------------------------------------------------ what the adversary may do

    @rule(target=messages, node=MEMBERS)
    def campaign(self, node: NodeId) -> object:
        self.cluster[node].campaign()
        return self._said(node)

    @rule(target=messages, node=MEMBERS, units=st.integers(1, 12))
    def pass_time(self, node: NodeId, units: int) -> object:
        raft = self.cluster[node]
        raft.tick(raft.now + units)
        return self._said(node)

    @rule(target=messages, node=MEMBERS)
    def propose(self, node: NodeId) -> object:
        self.proposed += 1
        self.cluster[node].propose([b"%d" % self.proposed], self.proposed)
        return self._said(node)

    @rule(target=messages, node=MEMBERS, to=MEMBERS)
    def transfer(self, node: NodeId, to: NodeId) -> object:
        self.cluster[node].transfer(to)
        return self._said(node)

    @rule(target=messages, node=MEMBERS)
    def read(self, node: NodeId) -> object:
        """What is committed by now must be seen, whenever the read is answered."""
        self.asked += 1
        self.floors[self.asked] = max(self.cluster.committed, default=1)
        self.cluster[node].read(self.asked)
        return self._said(node)

    @rule(target=messages, node=MEMBERS, kind=st.sampled_from((ChangeKind.ADD_LEARNER, ChangeKind.ADD_VOTER)))
    def change(self, node: NodeId, kind: ChangeKind) -> object:
        """The third member loses its vote, or gets it back."""
        self.cluster[node].propose_config(ConfigChange((ChangeStep(kind, 3),)), 0)
        return self._said(node)

    @rule(target=messages, node=MEMBERS, count=st.sampled_from((1, 2, 99)))
    def finish_writes(self, node: NodeId, count: int) -> object:
        self.cluster.sync(node, count)
        return self._said(node)

    @rule(target=messages, message=messages)
    def deliver(self, message: Message) -> object:
        """It stays in the bundle: it can come again, and to the next life of its receiver."""
        self.cluster[message.to].step(message)
        return self._said(message.to)

    @rule(target=messages, node=MEMBERS)
    def crash(self, node: NodeId) -> object:
        self.cluster.members[node].restart()
        return self._said(node)

    @rule(node=MEMBERS, keep=st.integers(0, 2))
    def compact(self, node: NodeId, keep: int) -> None:
        self.cluster.members[node].compact(keep)

    @rule(target=messages, among=GROUPS)
    def settle(self, among: tuple[NodeId, ...]) -> object:
        """Everything between these members arrives in good order, so that something is agreed upon at all."""
        self.cluster.settle(among)
        return self._said(*among)

    @rule(target=messages, node=MEMBERS)
    def overthrow(self, node: NodeId) -> object:
        """The others elect one of them and go on, while this one hears nothing of it."""
        others = [other for other in (1, 2, 3) if other != node]
        for other in others:
            self.cluster[other].forget_leader()
        self.cluster[others[0]].campaign()
        self.cluster.settle(others)
        self.cluster[others[0]].propose([b"by the new"], 0)
        self.cluster.settle(others)
        return self._said(*others)

    @rule(target=messages, among=GROUPS, rounds=st.integers(1, 4))
    def talk(self, among: tuple[NodeId, ...], rounds: int) -> object:
        """As `settle`, for a few rounds and with disks that finish nothing."""
        for _ in range(rounds):
            for node in among:
                self.cluster.perform(node)
            self.cluster.deliver(lambda message: message.to not in among)
        return self._said(*among)

    def _said(self, *nodes: NodeId) -> object:
        """Perform what they want. New messages are on their way, and can be delivered from the bundle too."""
        queue, before = self.cluster.queue, self.offered
        for node in nodes:
            self.cluster.perform(node)
            self._watch(node)
        new = [message for message in queue if id(message) not in before]
        self.offered = {id(message): message for message in queue}
        return multiple(*new)

    # ------------------------------------------------------------------ what must hold

    def _watch(self, node: NodeId) -> None:
        """At most one leader per term (§5.2), which holds everything committed (§5.4); reads are not stale (§6.4)."""
        for effect in self.cluster.members[node].log:
            if isinstance(effect, ReadReady):
                floor = self.floors[effect.context]
                assert effect.index >= floor, f"{node} reads at {effect.index}, {floor} was committed before"
            if isinstance(effect, RoleChanged) and effect.role is Role.LEADER:
                first = self.leaders.setdefault(effect.term, node)
                assert first == node, f"{first} and {node} both lead term {effect.term}"

    @invariant()
    def committed_entries_are_on_a_majority_of_disks(self) -> None:
        if not hasattr(self, "cluster"):
            return
        for index, entry in self.cluster.committed.items():
            disks = [member.disk for member in self.cluster.members.values()]
            holders = sum(
                index <= disk.snapshot.index or any(kept == entry for kept in disk.entries) for disk in disks
            )
            assert holders >= 2, f"{entry} was applied, and only {holders} disks hold it"


TestAdversary = Adversary.TestCase
TestAdversary.settings = settings(stateful_step_count=60)


def count_too_few(voters: tuple[int, ...], acked: dict[int, int]) -> int:
    return max((acked.get(voter, 0) for voter in voters), default=quorum.UNBOUNDED)


def approve(*_: object) -> bool:
    return True


PLANTED: dict[str, tuple[object, str, object]] = {
    "acknowledged before it is durable": (RaftState, "hold", RaftState.send),
    "committed by too few": (quorum, "committed_index", count_too_few),
    "votes for any log": (RaftLog, "is_up_to_date", approve),
    "reads without a round": (RaftState, "decides_alone", property(approve)),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_the_adversary_finds_planted_bugs(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*PLANTED[bug])
    only_find = settings(
        max_examples=200,
        stateful_step_count=60,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Adversary, settings=only_find)
