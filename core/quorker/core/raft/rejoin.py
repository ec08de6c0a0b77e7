"""Coming back with a damaged disk: a member that may have forgotten what it promised takes part without a say.

It takes entries and snapshots, and answers under a name that tells leaders not to count it: not for a commit, a quorum
check or a read. It gives no vote and stands in no election. It has its say again when a leader of its term, confirmed
since by a majority that consists of others, has named its commit index, and everything up to there is durable and
applied here. Why that is enough: whoever was elected without our vote, or led before and is confirmed by others that know
of no later term, holds every entry that our former self helped to commit, because each majority without us meets the
one of that entry in somebody who remembers. Where term and vote are lost too, everybody else must have told its term:
whoever got a vote that we forgot has entered that term, so a vote in the highest of them counts as given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorker.core.raft import reads, roles
from quorker.core.raft.effects import DiskWentBack, RejoinChanged
from quorker.core.raft.messages import NOBODY, Forgotten, NodeId, RejoinRequest, RejoinResponse
from quorker.core.raft.quorum import VoteResult, joint_vote_result
from quorker.core.raft.rejoining import Rejoining, name_of_life
from quorker.core.raft.roles import Leader, ReadRequest

if TYPE_CHECKING:
    from quorker.core.raft.progress import Progress
    from quorker.core.raft.state import RaftState


# The member that rejoins


def on_disk_went_back(raft: RaftState, remembered: int) -> None:
    """The leader remembers that we held entries which are gone: an older state of this disk was put back.

    Term and vote may be older as well. Where the others are no majority without us, nobody could help: we stop.
    """
    last = raft.log.last_index
    others = dict.fromkeys(raft.peers, True)
    if joint_vote_result(raft.configuration.voters, others) is not VoteResult.WON:
        raft.fatal("acknowledged entries stay", f"the leader commits {remembered}, our log ends at {last}")
        return
    raft.rejoining = Rejoining(Forgotten.PROMISES, name_of_life(raft.config))
    raft.lane.held.clear()  # what was about to be said was to be counted
    raft.effects += [DiskWentBack(raft.node_id, remembered, last), RejoinChanged(Forgotten.PROMISES)]


def verify(raft: RaftState, index: int) -> None:
    """Up to `index` our log has turned out to be that of the leader of our term."""
    waits = raft.rejoining
    if waits is not None:
        known = waits.verified if waits.verified_term == raft.term else 0
        waits.verified_term, waits.verified = raft.term, max(known, index)


def believable_commit(raft: RaftState, commit_index: int) -> int:
    """How far to believe a heartbeat: the leader may speak of what only our former self is known to have held."""
    waits = raft.rejoining
    if waits is None:
        return commit_index
    return min(commit_index, waits.verified if waits.verified_term == raft.term else 0)


def ask(raft: RaftState) -> None:
    """The leader lives: ask it, and where it matters everybody else, for what is still missing."""
    waits = raft.rejoining
    if waits is None or waits.is_over:
        return
    asked = {raft.leader: True} if waits.target_term != raft.term else dict[NodeId, bool]()
    if waits.forgotten is Forgotten.PROMISES:
        asked |= {peer: True for peer in raft.peers if peer not in waits.heard}
    for peer in asked:
        raft.send(RejoinRequest(raft.node_id, peer, 0, waits.name, raft.log.last_index))


def on_response(raft: RaftState, message: RejoinResponse) -> None:
    """Somebody tells its term, which becomes ours if it is later; a confirmed leader of our term names an index."""
    waits = raft.rejoining
    if waits is None or waits.name != message.rejoin:
        return
    if message.term > raft.term:
        roles.become_follower(raft, message.term, NOBODY)
    waits.heard[message.sender] = message.term
    if message.index and message.term == raft.term:
        waits.target_term, waits.target_index = message.term, message.index


def finish_if_due(raft: RaftState, waits: Rejoining) -> None:
    """Have a say again once nothing is missing, and once the disk says so too."""
    if waits.is_over:
        if raft.lane.durable.hard_state.forgotten is Forgotten.NOTHING:
            raft.rejoining = None
            raft.timer_base = raft.now
            raft.effects.append(RejoinChanged(Forgotten.NOTHING))
    elif _is_complete(raft, waits):
        waits.is_over = True
        if waits.forgotten is Forgotten.PROMISES and raft.voted_for == NOBODY:
            raft.voted_for = raft.node_id  # used up: our former self may have given it


def _is_complete(raft: RaftState, waits: Rejoining) -> bool:
    if not waits.target_index or waits.target_term != raft.term:
        return False
    if min(raft.applied_index, raft.lane.stable) < waits.target_index:
        return False
    return waits.forgotten is not Forgotten.PROMISES or all(peer in waits.heard for peer in raft.peers)


# The others


def on_request(raft: RaftState, message: RejoinRequest) -> None:
    """Tell our term. A leader also has itself confirmed, from now on, by those who have a say."""
    raft.send(RejoinResponse(raft.node_id, message.sender, raft.term, message.rejoin))
    leader, known = raft.acting_as, raft.progress.get(message.sender)
    if isinstance(leader, Leader) and known is not None:
        if known.rejoin != message.rejoin:
            known = start_anew(raft, known, message.sender, message.rejoin)
        if message.last_index < known.remembered:
            raft.effects.append(DiskWentBack(message.sender, known.remembered, message.last_index))
        known.remembered = 0
        reads.ask_once(raft, leader, ReadRequest(message.sender, message.rejoin, rejoins=True))


def start_anew(raft: RaftState, known: Progress, peer: NodeId, name: int) -> Progress:
    """`peer` rejoins: nothing that it said before counts, and its log may end anywhere."""
    raft.progress[peer] = fresh = roles.fresh_progress(raft, known.is_learner, raft.new_session())
    fresh.rejoin = name
    fresh.recent_active = True
    fresh.remembered = known.match_index
    return fresh


def is_named_otherwise(raft: RaftState, known: Progress, peer: NodeId, name: int) -> bool:
    """What to make of an answer under `name`. True if it is about what is over, as its sender began to rejoin."""
    if name == known.rejoin:
        return False
    if name:
        start_anew(raft, known, peer, name)
        return True
    known.rejoin = 0  # it has its say again: what it acknowledged under its name was durable, and counts now
    return False
