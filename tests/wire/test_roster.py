"""The roster: a member that restarted is told from a duplicate, a copy, a wiped and a rolled-back directory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quorker.core.wire.handshake import Hello, Party, Reason, cluster_id_of
from quorker.core.wire.requests import Role
from quorker.core.wire.roster import Roster

CLUSTER = cluster_id_of("prod")
LOCAL = Party(CLUSTER, 1, b"1" * 16, 1, b"a" * 8)
TWO = Party(CLUSTER, 2, b"2" * 16, 5, b"b" * 8)


@pytest.fixture
def alarms() -> list[str]:
    return []


@pytest.fixture
def roster(alarms: list[str]) -> Roster:
    roster = Roster(LOCAL, [1, 2, 3], alarms.append)
    assert roster.admit_member(TWO) is None
    return roster


@pytest.mark.parametrize(
    "party", [TWO, replace(TWO, incarnation=6, instance=b"c" * 8)], ids=["dialled again", "restarted"]
)
def test_the_same_member_is_welcome_again(roster: Roster, party: Party, alarms: list[str]) -> None:
    assert roster.admit_member(party) is None
    assert not alarms


@pytest.mark.parametrize(
    ("party", "reason", "words"),
    [
        (replace(TWO, dir_uuid=b"x" * 16, incarnation=9), Reason.DUPLICATE_NODE, "two members share one id"),
        (replace(TWO, incarnation=4, instance=b"c" * 8), Reason.ROLLED_BACK, "older copy"),
        (replace(TWO, instance=b"c" * 8), Reason.DUPLICATE_NODE, "directory was copied"),
        (replace(TWO, node_id=1), Reason.DUPLICATE_NODE, "is node 1 itself"),
    ],
)
def test_mistakes_are_refused_with_an_alarm(
    roster: Roster, party: Party, reason: Reason, words: str, alarms: list[str]
) -> None:
    refusal = roster.admit_member(party)
    assert refusal is not None
    assert refusal.reason is reason
    assert words in refusal.detail
    assert len(alarms) == 1
    assert words in alarms[0]
    assert roster.admit_member(TWO) is None, "the first one is not forgotten for it"


def test_strangers_are_refused_without_an_alarm(roster: Roster, alarms: list[str]) -> None:
    refusal = roster.admit_member(replace(TWO, node_id=4))
    assert refusal is not None
    assert refusal.reason is Reason.UNKNOWN_MEMBER
    assert not alarms


def test_a_node_that_was_not_told_its_members_lets_any_of_the_cluster_in() -> None:
    assert Roster(LOCAL, None).admit_member(TWO) is None


def test_an_operator_vouches_for_a_new_directory(roster: Roster) -> None:
    fresh = replace(TWO, dir_uuid=b"x" * 16, incarnation=1)
    assert roster.admit_member(fresh) is not None
    roster.forget(2)
    assert roster.admit_member(fresh) is None


def test_whoever_left_is_forgotten(roster: Roster) -> None:
    roster.set_members([1, 3])
    refusal = roster.admit_member(TWO)
    assert refusal is not None
    assert refusal.reason is Reason.UNKNOWN_MEMBER
    roster.set_members([1, 2, 3])
    assert roster.admit_member(replace(TWO, dir_uuid=b"x" * 16)) is None


def test_what_the_replicated_state_knows_counts_until_more_is_known() -> None:
    roster = Roster(LOCAL, [1, 2])
    roster.remember(replace(TWO, instance=b""))
    assert roster.admit_member(replace(TWO, dir_uuid=b"x" * 16)) is not None
    assert roster.admit_member(TWO) is None
    roster.remember(replace(TWO, incarnation=3, instance=b""))
    assert roster.admit_member(replace(TWO, instance=b"c" * 8)) is not None


@pytest.mark.parametrize("role", [Role.CLIENT, Role.OBSERVER])
def test_clients_are_nobodys_duplicate(roster: Roster, role: Role) -> None:
    assert roster.admit(Hello(role, Party(), b"n" * 32)) is None


def test_a_member_that_says_hello_is_judged(roster: Roster) -> None:
    assert roster.admit(Hello(Role.PEER, TWO, b"n" * 32)) is None
    assert roster.admit(Hello(Role.PEER, replace(TWO, node_id=9), b"n" * 32)) is not None


@pytest.mark.parametrize(
    "change",
    [{"dir_uuid": b"x" * 16, "incarnation": 1}, {"incarnation": 4}, {}],
    ids=["wiped", "put back", "copied"],
)
def test_whoever_rejoins_takes_the_place_of_its_former_self(
    roster: Roster, change: dict[str, Any], alarms: list[str]
) -> None:
    again = replace(TWO, instance=b"c" * 8, rejoins=True, **change)
    assert roster.admit_member(again) is None
    assert len(alarms) == 1
    assert "rejoins and was let in although" in alarms[0]
    assert roster.admit_member(TWO) is not None, "the former directory is the mistake now"
    assert roster.admit_member(replace(again, rejoins=False)) is None, "it has its say again"


def test_rejoining_excuses_neither_strangers_nor_ourselves(roster: Roster) -> None:
    assert roster.admit_member(replace(TWO, node_id=4, rejoins=True)) is not None
    assert roster.admit_member(replace(TWO, node_id=1, rejoins=True)) is not None


def test_what_is_only_heard_of_is_asked_for_again_before_somebody_is_refused() -> None:
    """The member has replaced its directory, and the replicated state says so by now."""
    roster = Roster(LOCAL, [1, 2])
    roster.remember(replace(TWO, instance=b""))
    new = replace(TWO, dir_uuid=b"x" * 16, incarnation=1, instance=b"c" * 8)
    assert roster.admit_member(new) is not None
    roster.recall = {2: replace(new, instance=b"")}.get
    assert roster.admit_member(new) is None
    assert roster.admit_member(TWO) is not None, "whoever was seen is known better than what is said"
