"""No command of the store is left out: some simulated client sends each, or its reason is here, and the witness replays each."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any, Final, get_args

import pytest

from quorker.core.jobs import commands as c
from quorker.core.jobs.batch import decode_entry, decode_group
from quorker.core.raft.messages import EntryKind
from quorker.sim.cases.expansion import JOBS, expand
from quorker.sim.model.witness import Witness
from quorker.sim.runs.jobs_cluster import JobsCluster
from quorker.sim.world.trace import Trace

BY_LEADERS: Final[dict[type[Any], str]] = {
    c.ExpireSessions: "the leader ends sessions that are silent for too long",
    c.ReleaseDue: "the leader starts scheduled jobs that are due",
    c.ExpireRecords: "the leader evicts what is past its time",
    c.Maintain: "the leader reclaims what was fetched and not renewed, and times jobs out",
    c.SetLimits: "the leader brings its configured limits into the log",
    c.AdvanceRecurring: "the leader finds which slots of recurring jobs are due",
    c.ClaimDigest: "members claim what their state is, to be compared",
}
"""Not sent by clients, and why."""

RUNS_MAX: Final = 60


class Sent:
    """What stood in the logs of some runs: commands of clients, of leaders, and preconditions."""

    def __init__(self) -> None:
        self.by_clients: set[type[Any]] = set()
        self.by_leaders: set[type[Any]] = set()
        self.preconditions: set[type[Any]] = set()
        self.start_rules: set[str] = set()  # names of those that say something

    def take(self, cluster: JobsCluster) -> None:
        for entry in cluster.world.oracles.committed:
            is_batch = entry.kind is EntryKind.NORMAL and entry.data
            for packed in decode_entry(entry.data).groups if is_batch else ():
                group = decode_group(packed)
                for _, wire in group.commands:
                    self._take_command(c.decode(wire), is_client=bool(group.session))

    def _take_command(self, command: Any, *, is_client: bool) -> None:
        kinds: set[type[Any]] = {command.__class__}
        if isinstance(command, c.Batch):
            kinds |= {type(op) for op in command.ops}
            self.preconditions |= {type(each) for each in command.preconditions}
        for job in command.jobs if isinstance(command, c.EnqueueJobs) else ():
            given, nothing = (job.start or c.StartRules())._asdict(), c.StartRules()._asdict()
            self.start_rules |= {name for name, value in given.items() if value != nothing[name]}
        (self.by_clients if is_client or isinstance(command, c.OpenSession) else self.by_leaders).update(
            kinds
        )

    def missing(self) -> list[str]:
        wanted = {
            *(set(c.COMMAND_TYPES) - set(BY_LEADERS) - self.by_clients),
            *(set(BY_LEADERS) - self.by_leaders),
            *(set(get_args(c.Precondition)) - self.preconditions),
        }
        return sorted([each.__name__ for each in wanted] + list(set(c.StartRules._fields) - self.start_rules))


def test_some_run_sends_every_command() -> None:
    sent = Sent()
    for seed in count():
        cluster = JobsCluster(replace(expand(seed, JOBS), dead_in_calm=0), Trace())
        cluster.run()
        sent.take(cluster)
        if not sent.missing() or seed == RUNS_MAX:
            break
    assert not sent.missing()
    assert not set(BY_LEADERS) & sent.by_clients


@pytest.mark.parametrize("kind", c.COMMAND_TYPES, ids=lambda each: each.__name__)
def test_the_witness_replays_every_command(kind: type[Any]) -> None:
    assert Witness().replays(kind)
