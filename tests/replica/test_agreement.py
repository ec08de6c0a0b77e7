"""Members compare what they have come to while they run: who differs from the majority stops, and all are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quorker.core.agreement import DISPUTES_MAX, REMEMBERED, Agreement, Contradicted, Diverged
from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.commands import ClaimDigest, EnqueueJobs, IncrementCounter, NewJob, OpenSession, encode
from quorker.core.jobs.outcome import DigestClaim
from quorker.core.jobs.store import JobStore
from quorker.core.raft.quorum import JointVoters
from quorker.core.replica import Applied

RIGHT, WRONG, OTHER = b"r" * 16, b"w" * 16, b"o" * 16
THREE = JointVoters((1, 2, 3))


def member(node: int, own: bytes | None) -> Agreement:
    agreement = Agreement(node)
    if own is not None:
        agreement.remember(5, own)
    return agreement


def hear_all(agreement: Agreement, *digests: bytes, voters: JointVoters = THREE) -> list[Any]:
    """Claims of node 1, 2, ...; the verdict after each."""
    return [
        agreement.hear(DigestClaim(5, node, digest), voters).verdict
        for node, digest in enumerate(digests, start=1)
    ]


def test_equal_claims_are_silent() -> None:
    agreement = member(3, RIGHT)
    for node in (1, 2):
        hearing = agreement.hear(DigestClaim(5, node, RIGHT), THREE)
        assert (hearing.alarm, hearing.verdict, hearing.report) == (None, None, None)


def test_who_differs_says_so_and_waits_for_a_majority() -> None:
    hearing = member(3, WRONG).hear(DigestClaim(5, 1, RIGHT), THREE)
    assert hearing.report == DigestClaim(5, 3, WRONG)
    assert hearing.alarm == Contradicted(5, ((1, RIGHT), (3, WRONG)))
    assert hearing.verdict is None


def test_who_agrees_says_so_once_somebody_differs() -> None:
    agreement = member(2, RIGHT)
    assert agreement.hear(DigestClaim(5, 1, RIGHT), THREE).report is None
    assert agreement.hear(DigestClaim(5, 3, WRONG), THREE).report == DigestClaim(5, 2, RIGHT)


def test_the_minority_stops_and_the_majority_does_not() -> None:
    assert hear_all(member(3, WRONG), RIGHT, RIGHT) == [None, Diverged(5, WRONG, RIGHT)]
    assert hear_all(member(2, RIGHT), RIGHT, RIGHT, WRONG) == [None, None, None]


def test_a_leader_that_a_majority_contradicts_stops() -> None:
    assert hear_all(member(1, WRONG), WRONG, RIGHT, RIGHT) == [None, None, Diverged(5, WRONG, RIGHT)]


def test_when_no_majority_can_agree_all_stop() -> None:
    assert hear_all(member(2, RIGHT), WRONG, RIGHT, OTHER)[-1] == Diverged(5, RIGHT, b"")
    assert hear_all(member(2, RIGHT), WRONG, RIGHT, voters=JointVoters((1, 2)))[-1] == Diverged(5, RIGHT, b"")


def test_both_halves_of_a_joint_configuration_must_agree() -> None:
    joint = JointVoters((1, 2, 3), (1, 4, 5))
    assert hear_all(member(3, WRONG), RIGHT, RIGHT, voters=joint) == [None, None]
    assert hear_all(member(3, WRONG), RIGHT, RIGHT, WRONG, RIGHT, voters=joint)[-1] == Diverged(
        5, WRONG, RIGHT
    )


def test_nothing_is_judged_that_is_not_remembered() -> None:
    agreement = member(3, RIGHT)
    for index in range(6, 6 + REMEMBERED):
        agreement.remember(index, OTHER)
    hearing = agreement.hear(DigestClaim(5, 1, WRONG), THREE)
    assert (hearing.alarm, hearing.verdict, hearing.report) == (None, None, None)


def test_old_disputes_are_forgotten() -> None:
    agreement = member(3, WRONG)
    agreement.hear(DigestClaim(5, 1, RIGHT), THREE)
    for index in range(6, 6 + DISPUTES_MAX):
        agreement.hear(DigestClaim(index, 1, RIGHT), THREE)
    assert agreement.hear(DigestClaim(5, 2, RIGHT), THREE).verdict is None


# ---------------------------------------------------------------------- the chain


def entry(*groups: bytes) -> bytes:
    return encode_entry(1, 1, groups)


def opened() -> tuple[JobStore, JobStore]:
    stores = JobStore(), JobStore()
    for store in stores:
        store.apply(1, entry(encode_group(0, 0, [(1, encode(OpenSession("n", 5000)))])))
    return stores


def test_the_chain_is_equal_for_equal_entries_and_survives_a_restore() -> None:
    one, other = opened()
    other = JobStore.restore(other.snapshot().chunks())
    assert one.chain == other.chain != JobStore().chain
    one.apply(2, b"")
    other.apply(2, b"")
    assert one.chain == other.chain


def test_the_chain_differs_for_ever_once_an_outcome_has() -> None:
    one, other = opened()
    count = entry(encode_group(0, 0, [(1, encode(IncrementCounter("c", 1)))]))
    one.apply(2, count)
    other.apply(2, entry(encode_group(0, 0, [(1, encode(IncrementCounter("c", 2)))])))
    assert one.chain != other.chain
    one.apply(3, count)
    other.apply(3, count)
    assert one.chain != other.chain


def test_only_members_make_claims() -> None:
    (store, _) = opened()
    claim = (1, encode(ClaimDigest(1, 2, RIGHT)))
    (session,) = store.sessions
    refused = store.apply(2, entry(encode_group(session, 0, [claim])))
    assert refused.replies[0][2][:2] == (1, "bad_command")
    assert not refused.claims
    assert store.apply(3, entry(encode_group(0, 0, [claim]))).claims == [DigestClaim(1, 2, RIGHT)]


# ---------------------------------------------------------------------- three members


@pytest.fixture
def trio(cluster: Any) -> Any:
    for replica in cluster.replicas.values():
        replica.config = replace(replica.config, claim_every_entries=5)
    return cluster


def watch(trio: Any, monkeypatch: pytest.MonkeyPatch) -> dict[int, list[Contradicted | Diverged]]:
    """What each member finds; one that has to stop hears and says nothing from then on."""
    found: dict[int, list[Contradicted | Diverged]] = {node: [] for node in trio.replicas}
    perform = trio._perform

    def note(node: int, effect: Any) -> None:
        if isinstance(effect, Contradicted | Diverged):
            found[node].append(effect)
        if isinstance(effect, Diverged):
            trio.cut.add(node)
        perform(node, effect)

    monkeypatch.setattr(trio, "_perform", note)
    return found


@pytest.mark.parametrize("spoiled", [1, 3], ids=["the leader", "a follower"])
def test_a_member_that_differs_stops_and_the_others_go_on(
    trio: Any, monkeypatch: pytest.MonkeyPatch, spoiled: int
) -> None:
    found = watch(trio, monkeypatch)
    trio.submit(2, EnqueueJobs((NewJob("t"),)))
    trio.replicas[spoiled].store.jobs.popitem()
    for each in range(12):
        trio.submit(2, IncrementCounter("c", each))
    verdicts = {node: [each for each in seen if isinstance(each, Diverged)] for node, seen in found.items()}
    assert [node for node, seen in verdicts.items() if seen] == [spoiled]
    (verdict,) = verdicts[spoiled][:1]
    assert verdict.own != verdict.theirs != b""
    assert all(any(isinstance(each, Contradicted) for each in seen) for seen in found.values())
    trio.advance(5_000)
    others = [node for node in trio.replicas if node != spoiled]
    assert trio.submit(others[-1], IncrementCounter("after", 1)).known
    assert trio.replicas[others[0]].store.digest() == trio.replicas[others[1]].store.digest()


def collect_claims(members: Any, claims: list[DigestClaim]) -> None:
    def collect(_: int, effect: Applied) -> None:
        claims.extend(effect.outcome.claims)

    members.on_applied = collect


def test_claims_travel_with_other_commands_only(trio: Any) -> None:
    claims: list[DigestClaim] = []
    collect_claims(trio, claims)
    before = trio.replicas[1].raft.last_index
    for each in range(12):
        trio.submit(2, IncrementCounter("c", each))
    assert claims
    assert trio.replicas[1].raft.last_index == before + 12


def test_a_cluster_of_one_claims_nothing(lone: Any) -> None:
    claims: list[DigestClaim] = []
    collect_claims(lone, claims)
    for each in range(8):
        lone.submit(1, IncrementCounter("c", each))
    assert not claims
