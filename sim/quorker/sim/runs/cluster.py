"""A run of bare Raft members, and the way from any case to its report."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from quorker.core.raft.messages import NodeId
from quorker.sim.cases.case import Case, FaultKind
from quorker.sim.clients.workload import Workload
from quorker.sim.disks.disk import LogDisk
from quorker.sim.faults.network import Strike
from quorker.sim.oracles.checks import FIRST, Violation
from quorker.sim.runs.calm import Calm
from quorker.sim.runs.jobs_cluster import JobsCluster
from quorker.sim.runs.node import Node
from quorker.sim.runs.phases import Phases, Recovery
from quorker.sim.stories.story import Story
from quorker.sim.stories.words import lanes_named
from quorker.sim.world.clock import NodeClock
from quorker.sim.world.trace import Trace, What

if TYPE_CHECKING:
    from collections.abc import Generator

# The core never raises, whatever it is fed: any of these is a bug, of the core or of the simulator.
BUGS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one run. `digest` is equal for equal cases, in every process."""

    case: Case
    digest: str
    violation: Violation | None
    events: int
    true_ns: int
    committed: int
    sometimes: dict[str, int] = field(default_factory=dict[str, int])


class Cluster(Phases[Node]):
    """Bare Raft members under proposals, reads and membership changes."""

    empty_state = 0

    def prepare(self) -> None:
        pass

    def node(self, node_id: NodeId, clock: NodeClock, disk: LogDisk) -> Node:
        return Node(self.world, node_id, clock, disk)

    def strikes(self) -> Mapping[FaultKind, Strike]:
        return {}

    def begin(self) -> None:
        self.workload = Workload(self.world, self.nodes)
        self.workload.start()

    def recovery(self, core: list[NodeId]) -> Recovery:
        return Calm(self.world, self.nodes, core, self.workload)

    def scan(self) -> None:
        self.world.oracles.scan_states()


def build(case: Case, trace: Trace) -> Cluster | JobsCluster:
    """The world of a case, before anything has happened in it."""
    return Cluster(case, trace) if case.jobs is None else JobsCluster(case, trace)


def run_case(
    case: Case,
    sink: Callable[[str], None] | None = None,
    *,
    story: Story | None = None,
    trace: Trace | None = None,
) -> Report:
    """Run one case to its end or to its first violation.

    `sink` gets lines of what happens, `story` all of it; `trace` is another record than a new one.
    """
    if sink is not None:
        story = Story() if story is None else story
        story.sink = sink
    trace = Trace() if trace is None else trace
    trace.story = story
    with collection_paused():
        cluster = build(case, trace)
        violation = None
        try:
            cluster.run()
        except Violation as found:
            violation = found
        except BUGS as error:
            violation = Violation("exception", f"{type(error).__name__}: {error}")
            violation.__cause__ = error
    world = cluster.world
    if violation is not None and story is not None:
        story.violation(violation.oracle, violation.detail, lanes_named(violation.detail))
    trace.record(world.kernel.now, What.PHASE, world.oracles.commit_index, world.oracles.states[-1])
    return Report(
        case,
        trace.digest(),
        violation,
        trace.events,
        world.kernel.now,
        world.oracles.commit_index - FIRST,
        dict(sorted(world.sometimes.items())),
    )


@contextmanager
def collection_paused() -> Generator[None]:
    """No garbage collection inside a short run: it costs a sixth of the time, and everything dies at the end anyway."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
