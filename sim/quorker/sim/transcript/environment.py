"""The small cluster of a transcript: members numbered from 1, messages in flight, and the order of work.

Every operation returns what a transcript prints. How one member is driven is in `node`; what the
directives are called and which arguments they take is in `transcript`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import replace
from typing import Final

from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.effects import Role
from quorker.core.raft.messages import HardState, InstallSnapshot, NodeId, SnapshotMeta
from quorker.sim.transcript.format import (
    format_entries,
    format_flag,
    format_hard_state,
    format_progress_map,
    format_snapshot,
    indented,
)
from quorker.sim.transcript.node import Node
from quorker.sim.transcript.parser import TranscriptError
from quorker.sim.transcript.ready import Envelope, LocalResponse, Ready, envelope_wire
from quorker.sim.transcript.wire import format_message, format_wire

ROLES: Final = {
    Role.FOLLOWER: "StateFollower",
    Role.PRE_CANDIDATE: "StatePreCandidate",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
}

ROUNDS_MAX: Final = 1000


class Environment:
    """The members, and what travels between them, in the order in which it was sent."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.in_flight: list[Envelope] = []

    def node(self, node_id: NodeId) -> Node:
        if not 1 <= node_id <= len(self.nodes):
            raise TranscriptError(f"there is no node {node_id}")
        return self.nodes[node_id - 1]

    def add_nodes(
        self, count: int, config: RaftConfig, snapshot: SnapshotMeta, *, asynchronous: bool
    ) -> None:
        """New members that have applied `snapshot`, or that know nothing if it is empty."""
        for _ in range(count):
            own = replace(config, node_id=len(self.nodes) + 1, apply_unstable=not asynchronous)
            durable = DurableState(HardState(commit_index=snapshot.index), snapshot)
            self.nodes.append(Node(own, durable, asynchronous=asynchronous))

    def stabilize(self, node_ids: Sequence[NodeId]) -> str:
        """Handle Readies, deliver messages, then run append and apply threads, until nothing is left to do."""
        chosen = [self.node(node_id) for node_id in node_ids] or self.nodes
        printed: list[str] = []
        while done := self._round(chosen):
            printed.append(done)
            if len(printed) > ROUNDS_MAX:
                raise TranscriptError(f"not stable after {ROUNDS_MAX} rounds")
        return "".join(printed)

    def _round(self, chosen: Sequence[Node]) -> str:
        printed: list[str] = []
        for stage in (self._handle_if_ready, self._deliver_all, self._drain_append, self._drain_apply):
            printed += [stage(node) for node in chosen]
        return "".join(printed)

    def _handle_if_ready(self, node: Node) -> str:
        if not node.has_ready():
            return ""
        return f"> {node.node_id} handling Ready\n" + indented(self.process_ready(node.node_id))

    def _deliver_all(self, node: Node) -> str:
        delivered = self.deliver(node.node_id)
        return f"> {node.node_id} receiving messages\n" + indented(delivered) if delivered else ""

    def _drain_append(self, node: Node) -> str:
        return self._drain(node, "append", node.append_work, self.process_append_thread)

    def _drain_apply(self, node: Node) -> str:
        return self._drain(node, "apply", node.apply_work, self.process_apply_thread)

    def _drain(self, node: Node, name: str, work: Sized, process: Callable[[NodeId], str]) -> str:
        if not len(work):
            return ""
        printed = [f"> {node.node_id} processing {name} thread\n"]
        while len(work):
            printed.append(indented(process(node.node_id)))
        return "".join(printed)

    def process_ready(self, node_id: NodeId) -> str:
        ready = self.node(node_id).handle_ready()
        self.in_flight += ready.sent
        return format_ready(ready)

    def process_append_thread(self, node_id: NodeId) -> str:
        node = self.node(node_id)
        if not node.append_work:
            return "no append work to perform"
        work = node.process_append()
        self.in_flight += work.responses
        return _format_work(format_wire(work.wire), work.responses)

    def process_apply_thread(self, node_id: NodeId) -> str:
        node = self.node(node_id)
        if not node.apply_work:
            return "no apply work to perform"
        work = node.process_apply()
        self.in_flight.append(work.response)
        return _format_work(format_wire(work.wire), (work.response,))

    def deliver(self, node_id: NodeId, kind: str | None = None) -> str:
        """Deliver everything for one node, or only one kind of message."""
        printed: list[str] = []
        for envelope in self._take(lambda one: one.to == node_id and _is_kind(one, kind)):
            printed.append(format_wire(envelope_wire(envelope)) + "\n")
            error = self.node(node_id).receive(envelope)
            printed += [error + "\n"] if error else []
        return "".join(printed)

    def drop(self, node_id: NodeId, kind: str | None = None) -> str:
        """Lose what peers sent to one node. What a node tells itself cannot be lost."""
        lost = self._take(
            lambda one: one.to == node_id and not isinstance(one, LocalResponse) and _is_kind(one, kind)
        )
        return "".join(f"dropped: {format_wire(envelope_wire(envelope))}\n" for envelope in lost)

    def _take(self, wanted: Callable[[Envelope], bool]) -> list[Envelope]:
        taken = [envelope for envelope in self.in_flight if wanted(envelope)]
        self.in_flight = [envelope for envelope in self.in_flight if not wanted(envelope)]
        return taken

    def raft_log(self, node_id: NodeId) -> str:
        """What is on the node's disk."""
        storage = self.node(node_id).storage
        if not storage.entries:
            return f"log is empty: first index={storage.first_index}, last index={storage.last_index}"
        return format_entries(storage.entries)

    def raft_state(self) -> str:
        return "".join(_format_state(node) for node in self.nodes)

    def status(self, node_id: NodeId) -> str:
        """What a leader knows of the members; nothing on others."""
        core = self.node(node_id).core
        return format_progress_map(core.progress) if core.role is Role.LEADER else ""

    def compact(self, node_id: NodeId, index: int) -> str:
        """Forget the log up to and with `index`."""
        self.node(node_id).compact(index + 1)
        return self.raft_log(node_id)

    def send_snapshot(self, sender: NodeId, to: NodeId) -> str:
        """Send the latest snapshot of a node, whatever its Raft thinks of that."""
        node = self.node(sender)
        known = node.core.progress.get(to)
        session = known.session if known is not None else 0
        message = InstallSnapshot(sender, to, node.core.term, node.latest_snapshot, session)
        self.in_flight.append(message)
        return format_message(message)


def _is_kind(envelope: Envelope, kind: str | None) -> bool:
    return kind is None or envelope_wire(envelope).kind == kind


def _format_work(done: str, responses: Sequence[Envelope]) -> str:
    listed = "".join(format_wire(envelope_wire(response)) + "\n" for response in responses)
    return f"Processing:\n{done}\nResponses:\n{listed}"


def _format_state(node: Node) -> str:
    core = node.core
    voters = core.conf_state.voters + core.conf_state.voters_outgoing
    voting = "(Voter)" if node.node_id in voters else "(Non-Voter)"
    return f"{node.node_id}: {ROLES[core.role]} {voting} Term:{core.term} Lead:{core.leader}\n"


def format_ready(ready: Ready) -> str:
    """Everything a Ready holds, part by part; `<empty Ready>` if that is nothing."""
    parts: list[str] = []
    if ready.soft is not None:
        parts.append(f"Lead:{ready.soft.leader} State:{ROLES[ready.soft.role]}\n")
    if ready.hard_state is not None:
        parts.append(f"HardState {format_hard_state(ready.hard_state)}\n")
    if ready.entries:
        parts.append(f"Entries:\n{format_entries(ready.entries)}")
    if ready.snapshot is not None:
        parts.append(f"Snapshot {format_snapshot(ready.snapshot)}\n")
    if ready.committed:
        parts.append(f"CommittedEntries:\n{format_entries(ready.committed)}")
    if ready.messages:
        parts.append("Messages:\n" + "".join(format_wire(wire) + "\n" for wire in ready.messages))
    if not parts:
        return "<empty Ready>"
    return f"Ready MustSync={format_flag(ready.must_sync)}:\n" + "".join(parts)
