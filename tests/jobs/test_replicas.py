"""Replicas: the same log gives the same bytes, whatever was restored when, in every process, after every entry."""

from __future__ import annotations

import os
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorker.core.jobs.store import JobStore
from quorker.sim.bare.store_traffic import SMALL_LIMITS, StoreTraffic
from quorker.sim.oracles.store_invariants import check_store, check_successors

PRINT_DIGEST = """
from quorker.sim.bare.store_traffic import StoreTraffic
traffic = StoreTraffic(7)
for _ in traffic.entries(150): pass
print(traffic.store.digest().hex())
"""


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_a_replica_restored_at_any_points_stays_equal(seed: int) -> None:
    traffic, dice = StoreTraffic(seed), Random(seed)
    replica = JobStore(SMALL_LIMITS)
    for number, (data, outcome) in enumerate(traffic.entries(60)):
        before = JobStore.restore(replica.snapshot().chunks(), SMALL_LIMITS)
        assert replica.apply(number + 1, data) == outcome
        assert outcome.faults == []
        check_store(traffic.store)
        check_successors(before, replica)
        if dice.random() < 0.3:
            replica = JobStore.restore(replica.snapshot().chunks(dice.choice((1, 100, 65536))), SMALL_LIMITS)
    assert replica.digest() == traffic.store.digest()


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32))
def test_no_seed_breaks_an_invariant(seed: int) -> None:
    traffic = StoreTraffic(seed)
    for _ in traffic.entries(200):
        check_store(traffic.store)


def test_traffic_reaches_every_state_and_every_kind_of_reply() -> None:
    """The traffic above is worth something only if it gets around."""
    traffic = StoreTraffic(2)
    states: set[str] = set()
    reasons: set[str] = set()
    kinds: set[str] = set()
    for _, outcome in traffic.entries(1500):
        states.update(job.state for job in traffic.store.jobs.values())
        reasons.update(reply[1] for _, _, reply in outcome.replies if reply[0] == 1)
        kinds.update(notice.kind for notice in outcome.notices)
    assert states >= {
        "", "Own", "Enqueued", "Scheduled", "Processing", "Succeeded", "Failed", "Deleted", "Awaiting", "Quarantined",
    }  # fmt: skip
    assert reasons >= {
        "store_full", "not_found", "wrong_state", "lease_lost", "lock_held", "precondition_failed", "stale_sequence",
        "session_expired", "no_session", "too_many_sessions", "too_many_locks",
    }  # fmt: skip
    assert kinds == {"job", "lock", "cancel", "session_closed"}


@pytest.mark.parametrize("other_seed", ["0", "12345"])
def test_the_hash_seed_of_the_process_decides_nothing(other_seed: str) -> None:
    traffic = StoreTraffic(7)
    for _ in traffic.entries(150):
        pass
    environment = {**os.environ, "PYTHONHASHSEED": other_seed}
    found = subprocess.run(
        [sys.executable, "-c", PRINT_DIGEST], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == traffic.store.digest().hex()


def test_queries_and_asking_what_is_due_change_nothing() -> None:
    traffic, quiet = StoreTraffic(3), JobStore(SMALL_LIMITS)
    for number, (data, _) in enumerate(traffic.entries(150)):
        quiet.apply(number + 1, data)
        for later in (0, 10**4, 10**9):
            traffic.store.due(traffic.lt + later, traffic.wt + later)
        traffic.store.next_due()
    assert quiet.digest() == traffic.store.digest()
