"""Settings that cannot work are refused at the start, with the setting's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from quorker.core import prng
from quorker.core.errors import ConfigurationError
from quorker.core.raft import roles
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Fatal
from quorker.core.raft.messages import ConfState, Entry, HardState, SnapshotMeta
from quorker.sim.bare.solo import TIMEOUT, leader, member, of_kind


def test_the_defaults_are_valid() -> None:
    RaftConfig(1).validate()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"node_id": 0}, "node_id"),
        ({"heartbeat_interval": 0}, "heartbeat_interval"),
        ({"election_timeout": 1 << 41}, "election_timeout"),
        ({"election_timeout": 5, "heartbeat_interval": 5}, "election_timeout"),
        ({"disk_stall_timeout": -1}, "disk_stall_timeout"),
        ({"max_append_bytes": -1}, "max_append_bytes"),
        ({"max_uncommitted_bytes": 1 << 63}, "max_uncommitted_bytes"),
        ({"max_inflight_messages": 0}, "max_inflight_messages"),
        ({"max_inflight_bytes": 10, "max_append_bytes": 11}, "max_inflight_bytes"),
        ({"lease_reads": True, "check_quorum": False}, "lease_reads"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        replace(RaftConfig(1), **settings).validate()
    with pytest.raises(ConfigurationError):
        member(**{key: value for key, value in settings.items() if key != "node_id"}, node_id=0)


def test_the_stall_timeout_is_one_election_timeout_unless_set() -> None:
    assert RaftConfig(1, TIMEOUT).stall_timeout == TIMEOUT
    assert RaftConfig(1, TIMEOUT, disk_stall_timeout=3).stall_timeout == 3


def test_draws_depend_on_seed_and_counter_only() -> None:
    draws = [prng.uniform(7, counter, 10, 19) for counter in range(1000)]
    assert draws == [prng.uniform(7, counter, 10, 19) for counter in range(1000)]
    assert set(draws) == set(range(10, 20))
    assert draws != [prng.uniform(8, counter, 10, 19) for counter in range(1000)]


def test_draws_are_even() -> None:
    draws = [prng.uniform(1, counter, 0, 9) for counter in range(10_000)]
    assert all(900 < draws.count(value) < 1100 for value in range(10))


def test_purposes_have_seeds_of_their_own() -> None:
    seeds = {prng.derive(seed, purpose) for seed in range(30) for purpose in range(30)}
    assert len(seeds) == 900


BASE_AT_5 = SnapshotMeta(5, 2, ConfState((1,)))


@pytest.mark.parametrize(
    "durable",
    [
        DurableState(HardState(2), BASE_AT_5, (Entry(2, 7),)),  # a gap
        DurableState(HardState(2), BASE_AT_5, (Entry(1, 6),)),  # a term before the snapshot's
        DurableState(HardState(2), BASE_AT_5, (Entry(3, 6),)),  # a term that was never entered
        DurableState(HardState(2), BASE_AT_5, (Entry(2, 6),), applied_index=7),  # a state from the future
    ],
)
def test_a_disk_that_cannot_be_is_fatal(durable: DurableState) -> None:
    raft = Raft(RaftConfig(1), durable)
    assert [effect.invariant for effect in of_kind(raft.drain(), Fatal)] == [
        "the disk holds what was promised"
    ]
    raft.campaign()
    assert raft.drain() == ()


def test_a_fresh_member_knows_nothing() -> None:
    raft = Raft(RaftConfig(1), DurableState())
    assert (raft.term, raft.last_index, raft.conf_state, raft.next_deadline()) == (0, 0, ConfState(), None)


def test_a_bootstrapped_member_may_be_at_term_zero() -> None:
    raft = Raft(RaftConfig(1), DurableState(HardState(), BASE_AT_5))
    assert (raft.term, raft.last_index, raft.commit_index) == (0, 5, 5)


@pytest.mark.parametrize(
    ("before", "after"), [(member, roles.become_leader), (leader, roles.become_candidate)]
)
def test_roles_change_only_along_the_table(
    before: Callable[[], Raft], after: Callable[[Raft], object]
) -> None:
    with pytest.raises(AssertionError, match="no way"):
        after(before())
