"""Transcripts nobody wrote: random directives, while the runner checks members and disks after every input.

Beyond what the runner checks of one member, no two lead a term, and what is committed stays and is the same everywhere.
"""

from __future__ import annotations

import random

import pytest

from quorker.core.raft.effects import Role
from quorker.core.raft.messages import Entry, NodeId
from quorker.sim.transcript.directives import TranscriptRunner
from quorker.sim.transcript.node import Node
from quorker.sim.transcript.parser import parse_transcript

DIRECTIVES = 150
OPTIONS = (
    "prevote=true",
    "checkquorum=true",
    "async-storage-writes=true",
    "inflight=2",
    "max-committed-size-per-ready=1",
    "step-down-on-removal=true",
)
TEMPLATES = {  # {0} and {1} are members, {2} is a set of them, {3} are steps of a configuration change
    "stabilize {2}\n": 30,
    "propose {0} {1}\n": 11,
    "process-ready {0}\n": 8,
    "deliver-msgs {0}\n": 8,
    "campaign {0}\n": 6,
    "deliver-msgs drop=({0})\n": 6,
    "propose-conf-change {0}\n{3}\n": 4,
    "propose-conf-change {0} transition=explicit\n{3}\n": 2,
    "propose-conf-change {0}\n": 2,
    "process-append-thread {0}\n": 4,
    "process-apply-thread {0}\n": 3,
    "tick-heartbeat {0}\n": 3,
    "tick-election {0}\n": 3,
    "transfer-leadership from={0} to={1}\n": 2,
    "forget-leader {0}\n": 1,
    "report-unreachable {0} {1}\n": 1,
    "compact {0} {4}\n": 2,
}


class Walk:
    """One random transcript, and what was ever true in it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.runner = TranscriptRunner()
        self.leaders: dict[int, NodeId] = {}
        self.committed: dict[int, Entry] = {}
        self.written = ""
        self.members = self.random.randint(2, 5)
        voters = ",".join(map(str, range(1, self.random.randint(1, self.members) + 1)))
        options = " ".join(option for option in OPTIONS if self.random.random() < 0.4)
        self.run(f"add-nodes {self.members} voters=({voters}) index=10 {options}\n")
        self.run("campaign 1\n")
        self.run("stabilize\n")

    def run(self, directive: str) -> None:
        self.written += f"{directive}----\n\n"
        self.runner.run(parse_transcript(f"{directive}----\n").directives[0])
        for node in self.runner.cluster.nodes:
            self.check(node)

    def check(self, node: Node) -> None:
        core = node.core
        if core.role is Role.LEADER:
            assert self.leaders.setdefault(core.term, node.node_id) == node.node_id, self.written
        for entry in core.log.entries(core.first_index, core.commit_index + 1):
            assert self.committed.setdefault(entry.index, entry) == entry, self.written

    def step(self) -> None:
        template = self.random.choices(list(TEMPLATES), list(TEMPLATES.values()))[0]
        first, second = self.member(), self.member()
        some = " ".join(map(str, sorted(self.random.sample(range(1, self.members + 1), k=second))))
        steps = " ".join(
            f"{self.random.choice('vvlr')}{self.member()}" for _ in range(self.random.randint(1, 2))
        )
        storage, applied = (
            self.runner.cluster.node(first).storage,
            self.runner.cluster.node(first).core.applied_index,
        )
        if "compact" not in template or storage.first_index <= applied <= storage.last_index:
            self.run(template.format(first, second, some, steps, applied))

    def member(self) -> NodeId:
        return self.random.randint(1, self.members)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_is_safe(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(DIRECTIVES):
        walk.step()
    assert walk.leaders
    assert walk.committed


def test_the_check_can_fail() -> None:
    walk = Walk(0)
    walk.committed[11] = Entry(9, 11)
    with pytest.raises(AssertionError, match="add-nodes"):
        walk.run("stabilize\n")
