"""The oracle of bounded memory rejects members, logs and clients that hold more than they may."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.commands import CloseSession, OpenSession, encode
from quorker.core.jobs.store import WINDOW, JobStore
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.messages import ConfState, Entry, HardState, SnapshotMeta
from quorker.core.raft.roles import Leader, ReadRequest
from quorker.core.replica import Group, Replica, ReplicaConfig
from quorker.core.session import ClientSession, SessionConfig
from quorker.sim.cases.expansion import JOBS, expand
from quorker.sim.oracles.checks import Violation
from quorker.sim.oracles.memory import AT_REST, LogShare, weigh, weigh_at_rest, weigh_client

CONFIG = ReplicaConfig(
    RaftConfig(node_id=1), pending_groups_max=2, reserved_groups=1, pending_bytes_max=20, reserved_bytes=10
)


@pytest.fixture
def replica() -> Replica:
    """A single member that leads, with a session and nothing under way."""
    durable = DurableState(HardState(1, 0, 1), SnapshotMeta(1, 1, ConfState(voters=(1, 2, 3))))
    replica = Replica.start(CONFIG, durable, JobStore(), 0, 0)
    opening = encode_group(0, 0, [(7, encode(OpenSession("worker", 1_000)))])
    replica.store.apply(1, encode_entry(0, 0, [opening]))
    weigh(1, replica)
    weigh_at_rest(1, replica)
    return replica


def leading(replica: Replica) -> Leader:
    replica.raft.acting_as = leader = Leader(1, 0, 0)
    weigh(1, replica)
    return leader


def rejects(what: str, act: Callable[[], object]) -> None:
    with pytest.raises(Violation, match=rf"^bounded memory \[L6\]: .*{re.escape(what)}"):
        act()


def queue(replica: Any, *sizes: int) -> None:
    replica._groups = deque(Group(bytes(size), 1) for size in sizes)
    replica._groups_bytes = sum(sizes)


def test_groups_and_bytes_that_wait(replica: Replica) -> None:
    leading(replica)
    queue(replica, 10, 10, 10)
    weigh(1, replica)
    queue(replica, 1, 1, 1, 1)
    rejects("4 groups that wait", lambda: weigh(1, replica))
    queue(replica, 31)
    rejects("31 bytes that wait", lambda: weigh(1, replica))


def test_bytes_that_are_counted_wrongly(replica: Replica) -> None:
    inside: Any = replica
    inside._groups_bytes = 5
    rejects("as they are counted", lambda: weigh(1, replica))


def test_groups_of_one_that_does_not_lead(replica: Replica) -> None:
    queue(replica, 1)
    rejects("does not lead", lambda: weigh(1, replica))


def test_rounds(replica: Replica) -> None:
    inside: Any = replica
    groups: list[Group] = []
    inside._rounds = {1: groups, 2: groups}
    weigh(1, replica)
    inside._rounds[3] = groups
    rejects("3 rounds under way", lambda: weigh(1, replica))
    inside._rounds.clear()
    inside._round_index[1] = replica.raft.applied_index
    rejects("places of what is applied", lambda: weigh(1, replica))


def test_entries_that_wait_to_be_applied(replica: Replica) -> None:
    inside: Any = replica
    inside._postponed.append(Entry(1, 2, b"x"))
    rejects("wait to be applied", lambda: weigh(1, replica))


def test_replies(replica: Replica) -> None:
    (session,) = replica.store.sessions.values()
    session.replies = dict.fromkeys(range(1, WINDOW + 1), (0, None))
    weigh(1, replica)
    session.acked_below = 2
    rejects("acknowledged", lambda: weigh_at_rest(1, replica))
    session.replies[0] = (0, None)
    rejects("replies of session", lambda: weigh(1, replica))


def test_appends_and_bytes_of_a_leader(replica: Replica) -> None:
    leader = leading(replica)
    leader.uncommitted_bytes = 1
    rejects("as they are counted", lambda: weigh(1, replica))
    leader.uncommitted_bytes = 0
    inflight: Any = replica.raft.progress[2].inflight
    inflight._sent.extend((index, 1) for index in range(inflight.max_messages + 1))
    rejects("appends under way to n2", lambda: weigh(1, replica))


def test_what_waits_at_rest(replica: Replica) -> None:
    leader = leading(replica)
    leader.queued_reads = [ReadRequest(1, context) for context in range(AT_REST)]
    weigh_at_rest(1, replica)
    leader.queued_reads.append(ReadRequest(1, 99))
    rejects("reads at rest", lambda: weigh_at_rest(1, replica))


def test_a_log_is_kept_behind_the_newest_snapshots_and_no_further() -> None:
    share = LogShare(keep_entries=3)
    for saved in range(10, 60, 10):
        share.on_saved(1, saved, first_index=8, last_index=saved + 2)
    share.on_saved(1, 60, first_index=18, last_index=62)  # of six, the newest five count
    rejects("46 entries behind", lambda: share.on_saved(1, 70, first_index=27, last_index=72))


def test_a_log_that_is_kept_too_long() -> None:
    LogShare(keep_entries=3).on_saved(1, 20, first_index=18, last_index=25)
    rejects(
        "9 entries behind", lambda: LogShare(keep_entries=3).on_saved(1, 20, first_index=17, last_index=25)
    )


def test_a_client_that_is_never_answered() -> None:
    session = ClientSession(SessionConfig("worker"), 1)
    for _ in range(AT_REST):
        session.submit(CloseSession(), 0, 1, None)
    weigh_client(1, session)
    session.submit(CloseSession(), 0, 1, None)
    rejects("c1 waits for 17", lambda: weigh_client(1, session))


def test_some_runs_have_hardly_any_room() -> None:
    rooms = {expand(seed, JOBS).jobs.pending_groups for seed in range(100)}  # type: ignore[union-attr]
    assert rooms == {0, 1, 2, 3, 4}
