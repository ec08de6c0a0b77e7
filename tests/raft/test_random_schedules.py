"""Random schedules over bare members: safety at every step, progress at the end."""

from __future__ import annotations

import pytest

from quorker.core.raft.effects import Role
from quorker.sim.bare.pair import Cluster
from quorker.sim.bare.shake import Shake

SEEDS = range(100, 130)
FOUND_BUGS = (
    41,  # a stale rejection moved next_index while a snapshot was on its way
    69,  # a new member refused the only snapshot there was, because it did not name it
    1324,  # a demoted leader with the longer log kept the last voter from being elected
    1692,  # an answer to a read of a former life answered a read of this one
    1815,
)


@pytest.mark.parametrize("seed", [*SEEDS, *FOUND_BUGS])
def test_a_random_schedule_keeps_every_promise(seed: int) -> None:
    Shake(seed).run()


def test_random_schedules_commit_something() -> None:
    assert sum(Shake(seed).run(200) for seed in range(5)) > 20


def test_a_seed_decides_everything() -> None:
    first, second = Shake(7), Shake(7)
    first.run(200)
    second.run(200)
    assert first.cluster.committed == second.cluster.committed
    assert [member.log for member in first.cluster.members.values()] == [
        member.log for member in second.cluster.members.values()
    ]


def test_a_shake_notices_two_leaders_in_a_term() -> None:
    shake = Shake(3)
    shake.leaders = dict.fromkeys(range(100), 99)
    with pytest.raises(AssertionError, match="were elected in term"):
        shake.run()


def test_the_cluster_of_three_elects_without_help() -> None:
    cluster = Cluster(3)
    cluster.tick(60)
    assert [cluster[node].role for node in cluster.leaders()] == [Role.LEADER]
