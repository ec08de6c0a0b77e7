"""A run to look into: what happened, and how the world stood at any instant of it.

    r = run("partition-leader", seed=3)
    r.check()
    r.at("430ms").node(2).role

An instant is reached by running the same case again up to it: exact, because a case has one course, and cheap, because
runs are short. What stands there is never run on. Scenario files are read by `scenario`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from quorker.core.errors import InvalidInput
from quorker.core.raft.messages import Entry
from quorker.sim.cases.case import Case
from quorker.sim.cases.replay import replay_line
from quorker.sim.cases.scenario import Scenario, judge, load
from quorker.sim.cases.units import BadValue, duration_ns, duration_text
from quorker.sim.disks.disk import DurableLog
from quorker.sim.oracles.checks import Violation
from quorker.sim.runs.cluster import BUGS, Report, build, collection_paused, run_case
from quorker.sim.runs.node import Node
from quorker.sim.runs.replica_node import ReplicaNode
from quorker.sim.stories.story import Event, Kind, Story
from quorker.sim.world.host import Host, leader_of
from quorker.sim.world.kernel import Call
from quorker.sim.world.trace import Trace

LAST: Final = 1 << 30  # the rank of what happens after everything else of an instant
DOWN: Final = "down"


def run(what: str | Path | Scenario | Case, seed: int | None = None) -> Run:
    """Run a scenario file, a shipped scenario by its bare name, or a case; `seed` replaces the one it has.

    Raises `InvalidInput` for a file that makes no sense. A violation is not raised: see `Run.check`.
    """
    if isinstance(what, Case):
        scenario = Scenario("case", what)
    elif isinstance(what, Scenario):
        scenario = what
    else:
        scenario = load(what)
    case = scenario.case if seed is None else replace(scenario.case, seed=seed)
    return Run(scenario, run_case(case))


class Run:
    """One finished run."""

    def __init__(self, scenario: Scenario, report: Report) -> None:
        self.scenario = scenario
        self.report = report

    def __repr__(self) -> str:
        return f"<Run of {self.scenario.name}, seed {self.case.seed}: {judge(self.scenario, self.report) or 'as expected'}>"

    @property
    def case(self) -> Case:
        return self.report.case

    @property
    def violation(self) -> Violation | None:
        return self.report.violation

    @property
    def sometimes(self) -> dict[str, int]:
        """What happened that is worth testing, and how often."""
        return self.report.sometimes

    @property
    def replay(self) -> str:
        """The command that repeats this run on any machine."""
        return replay_line(self.case)

    def check(self) -> Run:
        """Raise what is wrong with this run, with the line that repeats it; else return the run."""
        wrong = judge(self.scenario, self.report)
        if not wrong:
            return self
        error = self.violation or AssertionError(f"{self.scenario.name}, seed {self.case.seed}, {wrong}")
        note = f"repeat it: {self.replay}"
        if note not in getattr(error, "__notes__", []):
            error.add_note(note)
        raise error

    @cached_property
    def story(self) -> Story:
        """Everything that happened, with causes; the run is made again to record it."""
        story = Story()
        run_case(self.case, story=story)
        return story

    @property
    def events(self) -> list[Event]:
        return self.story.events

    def table(self, *kinds: Kind | str) -> list[dict[str, Any]]:
        """Events as plain rows for a data frame: of these kinds, or all."""
        wanted = [Kind(kind) for kind in kinds] or list(Kind)
        return [
            {**asdict(event), "kind": event.kind.value, "at_ms": event.at_ns / 1e6}
            for event in self.events
            if event.kind in wanted
        ]

    def at(self, instant: str | int) -> Moment:
        """The world when everything of that instant has happened: "13.4s", or nanoseconds. At most the end of the run."""
        return Moment(self.case, _instant_ns(instant))


def _instant_ns(instant: str | int) -> int:
    if isinstance(instant, str):
        try:
            instant = duration_ns(instant)
        except BadValue as wrong:
            raise InvalidInput(f"{instant!r} {wrong}") from None
    if instant < 0:
        raise InvalidInput(f"{duration_text(instant)} is before the start of the run")
    return instant


class _Reached(Exception):
    """The instant has come; nothing more is to happen."""


class Moment:
    """A world that stands still. What it holds is the live objects of a run that was left there: look, do not touch."""

    def __init__(self, case: Case, at_ns: int) -> None:
        self.case = case
        self._cluster = build(case, Trace())
        self._cluster.world.kernel.after(at_ns, _stop, rank=LAST)
        self.is_over = True
        self.ended_by: BaseException | None = None  # the violation, if the run ended with one
        with collection_paused():
            try:
                self._cluster.run()
            except _Reached:
                self.is_over = False
            except (Violation, *BUGS) as found:
                self.ended_by = found

    def __repr__(self) -> str:
        return f"<{duration_text(self.at_ns)}{', the end' if self.is_over else ''}: {self.nodes}>"

    @property
    def at_ns(self) -> int:
        return self._cluster.world.kernel.now

    @property
    def nodes(self) -> list[NodeView]:
        """All members, by number."""
        return [view_of(host) for host in self._hosts.values()]

    def node(self, number: int) -> NodeView:
        host = self._hosts.get(number)
        if host is None:
            raise InvalidInput(f"node {number}: this cluster has nodes 1 to {len(self._hosts)}")
        return view_of(host)

    @property
    def leader(self) -> NodeView | None:
        """The running member that leads the highest term."""
        host = leader_of(self._hosts)
        return None if host is None else view_of(host)

    @property
    def commit_index(self) -> int:
        """What any leader has ever committed."""
        return self._cluster.world.oracles.commit_index

    def table(self) -> list[dict[str, Any]]:
        """Members as plain rows for a data frame."""
        shown = (
            "id",
            "role",
            "term",
            "voted_for",
            "commit_index",
            "applied_index",
            "last_index",
            "is_paused",
        )
        return [{name: getattr(node, name) for name in shown} for node in self.nodes]

    @property
    def _hosts(self) -> dict[int, Host]:
        return dict(self._cluster.nodes)


def _stop(_: Call) -> None:
    raise _Reached


@dataclass(frozen=True, slots=True)
class LogRow:
    """One entry of a member's log."""

    index: int
    term: int
    data: bytes


@dataclass(frozen=True, slots=True)
class NodeView:
    """A member at one instant. Of one that is down, what its disk holds; `role` is then "down"."""

    id: int
    role: str
    term: int
    voted_for: int  # 0: nobody
    commit_index: int
    applied_index: int
    log: tuple[LogRow, ...]
    voters: tuple[int, ...]
    learners: tuple[int, ...]
    is_paused: bool
    store: Any  # its job store; of a bare member the digest of all it applied, None when it is down
    disk: DurableLog

    def __repr__(self) -> str:
        return (
            f"<n{self.id} {self.role} term {self.term} commit {self.commit_index} log to {self.last_index}>"
        )

    @property
    def last_index(self) -> int:
        return self.log[-1].index if self.log else self.disk.snapshot.index


def view_of(host: Host) -> NodeView:
    """What can be seen of a member now."""
    raft, durable = host.raft, host.disk.durable
    if raft is None:
        state = durable.hard_state
        return NodeView(
            host.id, DOWN, state.term, state.voted_for, min(state.commit_index, durable.last), durable.snapshot.index,
            _rows(durable.entries), durable.snapshot.conf_state.voters, durable.snapshot.conf_state.learners, False,
            None, durable,
        )  # fmt: skip
    entries = raft.log.entries(raft.log.first_index, raft.last_index + 1)
    return NodeView(
        host.id, raft.role.value, raft.term, raft.voted_for, raft.commit_index, host.applied_index, _rows(entries),
        raft.conf_state.voters, raft.conf_state.learners, host.paused, _store_of(host), durable,
    )  # fmt: skip


def _rows(entries: Sequence[Entry]) -> tuple[LogRow, ...]:
    return tuple(LogRow(entry.index, entry.term, entry.data) for entry in entries)


def _store_of(host: Host) -> Any:
    if isinstance(host, ReplicaNode):
        return host.replica.store
    return host.state if isinstance(host, Node) else None
