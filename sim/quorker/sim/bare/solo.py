"""One Raft member, with a disk and a state machine that do at once what they are told: for tests of single answers.

The test plays all the other members. The member is number 1 of the voters 1, 2, 3 unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.core import Raft
from quorker.core.raft.effects import Apply, Effect, InstallState, Persist, Role, Send
from quorker.core.raft.messages import (
    AppendEntries,
    AppendResponse,
    ConfState,
    Entry,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    Message,
    NodeId,
    SnapshotMeta,
    VoteResponse,
)

TIMEOUT: Final = 10
VOTERS: Final = (1, 2, 3)
BASE: Final = SnapshotMeta(1, 1, ConfState(VOTERS))

Kind = TypeVar("Kind")


def member(
    terms: Sequence[int] = (),
    term: int = 0,
    conf_state: ConfState = BASE.conf_state,
    commit: int = 1,
    **settings: Any,
) -> Raft:
    """Member 1 with one entry for each of `terms`, after a base of (index 1, term 1). No pre-vote by default."""
    entries = tuple(Entry(entry_term, index) for index, entry_term in enumerate(terms, 2))
    hard_state = HardState(max([term, 1, *terms]), 0, commit)
    config = replace(RaftConfig(1, TIMEOUT, pre_vote=False), **settings)
    return Raft(config, DurableState(hard_state, replace(BASE, conf_state=conf_state), entries))


def candidate(terms: Sequence[int] = (), **settings: Any) -> Raft:
    """Member 1, which has asked for votes."""
    raft = member(terms, **settings)
    raft.campaign()
    flush(raft)
    assert raft.role is Role.CANDIDATE
    return raft


def leader(terms: Sequence[int] = (), **settings: Any) -> Raft:
    """Member 1 as a new leader, whose first entry nobody else has acknowledged."""
    raft = member(terms, **settings)
    raft.campaign()
    flush(raft)
    for voter in raft.configuration.voters.ids():
        if raft.role is not Role.LEADER:
            raft.step(VoteResponse(voter, 1, raft.term, granted=True))
    flush(raft)
    assert raft.role is Role.LEADER
    return raft


def settled_leader(terms: Sequence[int] = (), **settings: Any) -> Raft:
    """Member 1 as a leader to whom everybody has acknowledged everything."""
    raft = leader(terms, **settings)
    accept_all(raft)
    return raft


def accept_all(raft: Raft) -> None:
    """Every peer acknowledges the whole log."""
    for peer in raft.peers:
        accept(raft, peer, raft.last_index)
    flush(raft)
    for peer in raft.peers:  # and what its commit told them
        accept(raft, peer, raft.last_index)
    flush(raft)


def flush(raft: Raft) -> list[Effect]:
    """All that the member asks for until it rests. Writes succeed, and what follows them stands in the list too."""
    done: list[Effect] = []
    while effects := raft.drain():
        for effect in effects:
            done.append(effect)
            if isinstance(effect, Persist):
                done.extend(effect.then)
                raft.persisted(effect.seq)
            elif isinstance(effect, Apply):
                raft.applied(effect.entries[-1].index)
            elif isinstance(effect, InstallState):
                raft.applied(effect.snapshot.index)
    return done


def compact(raft: Raft, keep_from: int) -> SnapshotMeta:
    """Make a snapshot of what is applied, and drop the log before `keep_from`."""
    meta = raft.applied_meta
    assert meta is not None
    raft.snapshot_made(meta, keep_from)
    return meta


def of_kind(effects: Sequence[Effect], kind: type[Kind]) -> list[Kind]:
    return [effect for effect in effects if isinstance(effect, kind)]


def messages(effects: Sequence[Effect]) -> list[Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def said(raft: Raft) -> list[Message]:
    """What the member says until it rests."""
    return messages(flush(raft))


def heard(raft: Raft, kind: type[Kind]) -> list[Kind]:
    """What the member says until it rests, of one kind."""
    return [message for message in said(raft) if isinstance(message, kind)]


def accept(raft: Raft, peer: NodeId, index: int) -> None:
    """The peer acknowledges the leader's log up to `index`."""
    known = raft.progress[peer]
    raft.step(AppendResponse(peer, 1, raft.term, index, session=known.session, flight=known.flight))


def reject(raft: Raft, peer: NodeId, index: int, hint_index: int = 0, hint_term: int = 0) -> None:
    """The peer has no match for an append after `index`."""
    known = raft.progress[peer]
    raft.step(
        AppendResponse(
            peer,
            1,
            raft.term,
            index,
            True,
            hint_index,
            hint_term,
            session=known.session,
            flight=known.flight,
        )
    )


def beat_back(raft: Raft, peer: NodeId, read_round: int = 0) -> None:
    """The peer answers a heartbeat."""
    raft.step(HeartbeatResponse(peer, 1, raft.term, read_round, raft.progress[peer].session))


def beat(raft: Raft, commit: int = 0, leader_id: NodeId = 2, term: int = 0) -> None:
    """The leader lives."""
    raft.step(Heartbeat(leader_id, 1, term or raft.term, commit))


def append(
    raft: Raft,
    previous: tuple[int, int],
    entries: Sequence[Entry] = (),
    *,
    term: int = 0,
    commit: int = 0,
    leader_id: NodeId = 2,
) -> AppendResponse:
    """The leader of `term` appends after `previous` = (index, term). What the member answers, once it may."""
    index, previous_term = previous
    raft.step(AppendEntries(leader_id, 1, term or raft.term, index, previous_term, tuple(entries), commit))
    (answer,) = heard(raft, AppendResponse)
    return answer


def entries_of(term: int, first: int, count: int) -> tuple[Entry, ...]:
    return tuple(Entry(term, index, b"%d" % index) for index in range(first, first + count))
