"""etcd's data-driven tests of majorities and joint majorities, run against ours."""

from __future__ import annotations

from pathlib import Path

from quorker.core.raft.quorum import (
    UNBOUNDED,
    JointVoters,
    VoteResult,
    committed_index,
    id_set,
    joint_committed_index,
    joint_vote_result,
    vote_result,
)
from quorker.sim.transcript.parser import Directive, parse_transcript

VERDICTS = {VoteResult.WON: "VoteWon", VoteResult.LOST: "VoteLost", VoteResult.PENDING: "VotePending"}


def test_quorum_vector(quorum_vector: Path) -> None:
    directives = parse_transcript(quorum_vector.read_text()).directives
    assert directives
    for directive in directives:
        assert outcome(directive) == directive.expected, f"{quorum_vector.name}:{directive.line}"


def outcome(directive: Directive) -> str:
    incoming, outgoing = ids_of(directive, "cfg"), ids_of(directive, "cfgj")
    order = tuple(dict.fromkeys(incoming + outgoing))
    values = values_of(directive, "votes" if directive.name == "vote" else "idx")
    voters = JointVoters(id_set(incoming), id_set(outgoing))
    if len(order) != len(values):
        listed, given = " ".join(map(str, voters.ids())), " ".join(map(number_of, values))
        return f"error: mismatched input (explicit or _) for voters map[{listed}]: [{given}]\n"
    known = {node_id: value for node_id, value in zip(order, values, strict=True) if value != "_"}
    if directive.name == "vote":
        return verdict(voters, {node_id: value == "y" for node_id, value in known.items()})
    acked = {node_id: int(value) for node_id, value in known.items()}
    committed = checked_committed(voters, acked)
    return table(voters.ids(), acked) + ("∞" if committed == UNBOUNDED else str(committed)) + "\n"


def ids_of(directive: Directive, key: str) -> tuple[int, ...]:
    argument = directive.get(key)
    return (
        () if argument is None else tuple(int(item) for item in argument.values if item not in ("", "zero"))
    )


def values_of(directive: Directive, key: str) -> tuple[str, ...]:
    argument = directive.get(key)
    return () if argument is None else tuple(value for value in argument.values if value)


def number_of(value: str) -> str:
    return {"_": "0", "y": "2", "n": "1"}.get(value, value)


def verdict(voters: JointVoters, votes: dict[int, bool]) -> str:
    result = joint_vote_result(voters, votes)
    assert result is joint_vote_result(JointVoters(voters.outgoing, voters.incoming), votes)
    if not voters.outgoing:
        assert result is vote_result(voters.incoming, votes)
    return VERDICTS[result] + "\n"


def checked_committed(voters: JointVoters, acked: dict[int, int]) -> int:
    """The committed index, after asking for it in every other way that must agree."""
    committed = joint_committed_index(voters, acked)
    assert committed == joint_committed_index(JointVoters(voters.outgoing, voters.incoming), acked)
    if not voters.outgoing:
        assert committed == by_counting(voters.incoming, acked)
        assert committed == joint_committed_index(JointVoters(voters.incoming, voters.incoming), acked)
        for node_id in [node_id for node_id, index in acked.items() if index < committed]:
            assert committed == committed_index(voters.incoming, acked | {node_id: 0})
    return committed


def by_counting(voters: tuple[int, ...], acked: dict[int, int]) -> int:
    """The definition itself: the largest acknowledged index that more than half have reached."""
    if not voters:
        return UNBOUNDED
    reached = [acked.get(voter, 0) for voter in voters]
    return max([index for index in reached if 2 * sum(other >= index for other in reached) > len(voters)])


def table(voters: tuple[int, ...], acked: dict[int, int]) -> str:
    """One bar per voter, as long as the number of voters with a lower index."""
    if not voters:
        return "<empty majority quorum>"
    width = len(voters)
    rows = [" " * width + "    idx\n"]
    reached = [acked.get(voter, 0) for voter in voters]
    for voter, index in zip(voters, reached, strict=True):
        bar = "x" * sum(other < index for other in reached) + ">" if voter in acked else "?"
        rows.append(f"{bar:<{width + 1}} {index:5d}    (id={voter:x})\n")
    return "".join(rows)


def test_a_vote_of_a_stranger_counts_for_nothing() -> None:
    assert vote_result((1, 2, 3), {1: True, 8: True, 9: True}) is VoteResult.PENDING


def test_an_acknowledgement_of_a_stranger_counts_for_nothing() -> None:
    assert committed_index((1, 2, 3), {1: 7, 8: 7, 9: 7}) == 0


def test_joint_voters_know_their_members() -> None:
    voters = JointVoters((1, 2, 3), (2, 4))
    assert voters.ids() == (1, 2, 3, 4)
    assert 4 in voters
    assert 5 not in voters
    assert voters.is_joint
    assert not voters.is_single
    assert JointVoters((7,)).is_single
