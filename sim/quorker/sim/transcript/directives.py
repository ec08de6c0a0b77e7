"""Runs transcripts: each directive drives a small cluster of our Raft members and says what happened.

The language is that of etcd's interaction tests. Here are the names of its directives and their arguments; what
they do is in `environment`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from quorker.core.raft.confchange import ConfigChange, Transition
from quorker.core.raft.config import RaftConfig
from quorker.core.raft.messages import ConfState, EntryKind, NodeId, SnapshotMeta
from quorker.sim.transcript.environment import Environment
from quorker.sim.transcript.format import indented, parse_steps
from quorker.sim.transcript.parser import Argument, Directive, Transcript, TranscriptError

ELECTION_TICKS: Final = 3
HEARTBEAT_TICKS: Final = 1
UNLIMITED: Final = (1 << 31) - 1
SNAPSHOT_TERM: Final = 1
QUIET: Final = "none"
LOG_LEVELS: Final = ("debug", "info", "warn", "error", "fatal", QUIET)
LOG_WORDS: Final = tuple(f"{level.upper()} " for level in LOG_LEVELS[:-1])
TRANSITIONS: Final = {
    "auto": Transition.AUTO,
    "implicit": Transition.IMPLICIT,
    "explicit": Transition.EXPLICIT,
}
READ_MODES: Final = {"safe": False, "lease-based": True}


class DirectiveFailed(Exception):
    """What a node refused; its text is part of what the directive prints."""


def structural(text: str) -> list[str]:
    """The lines that say what happened, without log lines, which every implementation words for itself."""
    lines = [line.rstrip() for line in text.splitlines()]
    return [line for line in lines if line and not line.lstrip().startswith(LOG_WORDS)] or ["ok"]


def run_transcript(transcript: Transcript, *, as_etcd: bool = False) -> Iterator[tuple[Directive, str]]:
    """Each directive with what it printed, in order. Raises TranscriptError where one cannot be run.

    `as_etcd`: with our deliberate deviations (`deviations`) switched off.
    """
    runner = TranscriptRunner(as_etcd=as_etcd)
    for directive in transcript.directives:
        yield directive, runner.run(directive)


class TranscriptRunner:
    """One run of a transcript, from an empty cluster on. Each directive is a method that returns what it prints."""

    def __init__(self, *, as_etcd: bool = False) -> None:
        self.cluster = Environment()
        self._as_etcd = as_etcd
        self._log_level = LOG_LEVELS[0]

    def run(self, directive: Directive) -> str:
        """What the directive prints: `ok` if nothing. A quiet transcript prints nothing but refusals."""
        try:
            output, refusal = self._printed(directive)
        except TranscriptError as error:
            raise TranscriptError(f"line {directive.line}: {directive.head}: {error}") from error
        output = ("" if self._log_level == QUIET else output) + refusal
        return output if output.endswith("\n") else (output or "ok") + "\n"

    def _printed(self, directive: Directive) -> tuple[str, str]:
        command = DIRECTIVES.get(directive.name)
        if command is None:
            raise TranscriptError("there is no such directive")
        try:
            return command(self, directive), ""
        except DirectiveFailed as refusal:
            return "", str(refusal)

    def add_nodes(self, directive: Directive) -> str:
        config = replace(stub_config(), early_vote_requests=self._as_etcd)
        members: dict[str, tuple[NodeId, ...]] = {"voters": (), "learners": ()}
        index, asynchronous = 0, False
        for argument in directive.named():
            if argument.key in members:
                members[argument.key] = argument.integers()
            elif argument.key == "index":
                (index,) = argument.integers()
            elif argument.key == "async-storage-writes":
                asynchronous = argument.flag()
            else:
                config = with_option(config, argument)
        snapshot = starting_snapshot(index, members["voters"], members["learners"])
        self.cluster.add_nodes(directive.integer(0), config, snapshot, asynchronous=asynchronous)
        return ""

    def compact(self, directive: Directive) -> str:
        return self.cluster.compact(directive.integer(0), directive.integer(1))

    def raft_log(self, directive: Directive) -> str:
        return self.cluster.raft_log(directive.integer(0))

    def raft_state(self, _directive: Directive) -> str:
        return self.cluster.raft_state()

    def status(self, directive: Directive) -> str:
        return self.cluster.status(directive.integer(0))

    def send_snapshot(self, directive: Directive) -> str:
        return self.cluster.send_snapshot(directive.integer(0), directive.integer(1))

    def campaign(self, directive: Directive) -> str:
        self.cluster.node(directive.integer(0)).campaign()
        return ""

    def forget_leader(self, directive: Directive) -> str:
        self.cluster.node(directive.integer(0)).forget_leader()
        return ""

    def report_unreachable(self, directive: Directive) -> str:
        self.cluster.node(directive.integer(0)).peer_unreachable(directive.integer(1))
        return ""

    def transfer_leadership(self, directive: Directive) -> str:
        (sender,), (to,) = (_required(directive, key).integers() for key in ("from", "to"))
        self.cluster.node(sender).transfer(to)
        return ""

    def tick_election(self, directive: Directive) -> str:
        self.cluster.node(directive.integer(0)).tick(ELECTION_TICKS)
        return ""

    def tick_heartbeat(self, directive: Directive) -> str:
        self.cluster.node(directive.integer(0)).tick(HEARTBEAT_TICKS)
        return ""

    def set_election_timeout(self, directive: Directive) -> str:
        (ticks,) = _required(directive, "timeout").integers()
        self.cluster.node(directive.integer(0)).set_election_timeout(ticks)
        return ""

    def set_log_level(self, directive: Directive) -> str:
        self._log_level = _log_level(directive.positionals()[0])
        return ""

    def propose(self, directive: Directive) -> str:
        node_id, data = directive.integer(0), directive.positionals()[1]
        return _refuse_if(self.cluster.node(node_id).propose(data.encode()))

    def propose_config_change(self, directive: Directive) -> str:
        version, transition = directive.get("v1"), directive.get("transition")
        change = ConfigChange(
            parse_steps(directive.input),
            TRANSITIONS[transition.one()] if transition else Transition.AUTO,
            entry_kind=EntryKind.CONFIG if version and version.flag() else EntryKind.CONFIG_V2,
        )
        return _refuse_if(self.cluster.node(directive.integer(0)).propose_config(change))

    def stabilize(self, directive: Directive) -> str:
        level = directive.get("log-level")
        output = self.cluster.stabilize(_node_ids(directive))
        return "" if level and _log_level(level.one()) == QUIET else output

    def process_readies(self, directive: Directive) -> str:
        return _of_each(directive, "handling Ready", self.cluster.process_ready)

    def process_append_threads(self, directive: Directive) -> str:
        return _of_each(directive, "processing append thread", self.cluster.process_append_thread)

    def process_apply_threads(self, directive: Directive) -> str:
        return _of_each(directive, "processing apply thread", self.cluster.process_apply_thread)

    def deliver(self, directive: Directive) -> str:
        kind = directive.get("type")
        wanted = kind.one() if kind else None
        printed: list[str] = []
        for argument in directive.arguments:
            if not argument.values:
                printed.append(self.cluster.deliver(int(argument.key), wanted))
            elif argument.key == "drop":
                printed += [self.cluster.drop(node_id, wanted) for node_id in argument.integers()]
        return "".join(printed) or "no messages\n"


DIRECTIVES: Final[Mapping[str, Callable[[TranscriptRunner, Directive], str]]] = {
    "add-nodes": TranscriptRunner.add_nodes,
    "campaign": TranscriptRunner.campaign,
    "compact": TranscriptRunner.compact,
    "deliver-msgs": TranscriptRunner.deliver,
    "forget-leader": TranscriptRunner.forget_leader,
    "log-level": TranscriptRunner.set_log_level,
    "process-append-thread": TranscriptRunner.process_append_threads,
    "process-apply-thread": TranscriptRunner.process_apply_threads,
    "process-ready": TranscriptRunner.process_readies,
    "propose": TranscriptRunner.propose,
    "propose-conf-change": TranscriptRunner.propose_config_change,
    "raft-log": TranscriptRunner.raft_log,
    "raft-state": TranscriptRunner.raft_state,
    "report-unreachable": TranscriptRunner.report_unreachable,
    "send-snapshot": TranscriptRunner.send_snapshot,
    "set-randomized-election-timeout": TranscriptRunner.set_election_timeout,
    "stabilize": TranscriptRunner.stabilize,
    "status": TranscriptRunner.status,
    "tick-election": TranscriptRunner.tick_election,
    "tick-heartbeat": TranscriptRunner.tick_heartbeat,
    "transfer-leadership": TranscriptRunner.transfer_leadership,
}


def stub_config() -> RaftConfig:
    """What the members of a transcript have unless it says otherwise: no limits, every option off."""
    return RaftConfig(
        node_id=1,
        election_timeout=ELECTION_TICKS,
        heartbeat_interval=HEARTBEAT_TICKS,
        pre_vote=False,
        check_quorum=False,
        max_append_bytes=UNLIMITED,
        max_inflight_messages=UNLIMITED,
        max_inflight_bytes=0,
        max_uncommitted_bytes=0,
        max_committed_bytes_per_apply=0,
        step_down_on_removal=False,
        join_appends=False,
        persist_commit=True,
    )


def with_option(config: RaftConfig, argument: Argument) -> RaftConfig:
    """The configuration with one option of `add-nodes`."""
    match argument.key:
        case "inflight":
            return replace(config, max_inflight_messages=argument.integers()[0])
        case "prevote":
            return replace(config, pre_vote=argument.flag())
        case "checkquorum":
            return replace(config, check_quorum=argument.flag())
        case "max-committed-size-per-ready":
            return replace(config, max_committed_bytes_per_apply=argument.integers()[0])
        case "disable-conf-change-validation":
            return replace(config, disable_config_validation=argument.flag())
        case "read-only":
            return replace(config, lease_reads=READ_MODES[argument.one()])
        case "step-down-on-removal":
            return replace(config, step_down_on_removal=argument.flag())
        case "content":
            return config  # what the state machine holds is never shown
        case unknown:
            raise TranscriptError(f"add-nodes has no option {unknown}")


def starting_snapshot(index: int, voters: tuple[NodeId, ...], learners: tuple[NodeId, ...]) -> SnapshotMeta:
    """What the new members have applied: nothing, or everything up to `index`."""
    if not index and not voters and not learners:
        return SnapshotMeta()
    if index <= 1:
        raise DirectiveFailed("index must be specified as > 1 due to bootstrap")
    return SnapshotMeta(index, SNAPSHOT_TERM, ConfState(tuple(sorted(voters)), tuple(sorted(learners))))


def _node_ids(directive: Directive) -> tuple[NodeId, ...]:
    return tuple(int(key) for key in directive.positionals())


def _of_each(directive: Directive, title: str, process: Callable[[NodeId], str]) -> str:
    """What `process` prints for each node; under a title if there are several."""
    node_ids = _node_ids(directive)
    if len(node_ids) == 1:
        return process(node_ids[0])
    return "".join(f"> {node_id} {title}\n{indented(process(node_id))}" for node_id in node_ids)


def _required(directive: Directive, key: str) -> Argument:
    argument = directive.get(key)
    if argument is None:
        raise TranscriptError(f"{key}= is missing")
    return argument


def _log_level(name: str) -> str:
    if name.lower() not in LOG_LEVELS:
        raise DirectiveFailed(f"log levels must be either of {' '.join(LOG_LEVELS)}")
    return name.lower()


def _refuse_if(error: str) -> str:
    if error:
        raise DirectiveFailed(error)
    return ""
