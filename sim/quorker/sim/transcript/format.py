"""How entries, configurations, progress and states look in a transcript: etcd's notation, written and read.

Pure text. Messages are in `wire`; what happens in a transcript is decided in `directives`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from quorker.core.raft.confchange import ChangeKind, ChangeStep, Configuration, decode_change
from quorker.core.raft.messages import ConfState, Entry, EntryKind, HardState, NodeId, SnapshotMeta
from quorker.core.raft.progress import Progress, ProgressState
from quorker.sim.transcript.parser import TranscriptError

STEP_LETTERS: Final = {
    ChangeKind.ADD_VOTER: "v",
    ChangeKind.ADD_LEARNER: "l",
    ChangeKind.REMOVE: "r",
    ChangeKind.UPDATE: "u",
}
STEP_KINDS: Final = {letter: kind for kind, letter in STEP_LETTERS.items()}
PROGRESS_STATES: Final = {
    ProgressState.PROBE: "StateProbe",
    ProgressState.REPLICATE: "StateReplicate",
    ProgressState.SNAPSHOT: "StateSnapshot",
}

ENTRY_KINDS: Final = {
    EntryKind.NORMAL: "EntryNormal",
    EntryKind.CONFIG: "EntryConfChange",
    EntryKind.CONFIG_V2: "EntryConfChangeV2",
}
ESCAPES: Final = {ord("\n"): "\\n", ord("\t"): "\\t", ord("\r"): "\\r", ord('"'): '\\"', ord("\\"): "\\\\"}


def parse_steps(text: str) -> tuple[ChangeStep, ...]:
    """`v1 l2 r3 u4`: make 1 a voter, 2 a learner, remove 3, update 4."""
    return tuple(_parse_step(word) for word in text.split())


def _parse_step(word: str) -> ChangeStep:
    kind, number = STEP_KINDS.get(word[0]), word[1:]
    if kind is None or not number.isdecimal():
        raise TranscriptError(f"not a configuration step: {word}")
    return ChangeStep(kind, int(number))


def format_steps(steps: Sequence[ChangeStep]) -> str:
    """The inverse of `parse_steps`."""
    return " ".join(f"{STEP_LETTERS[step.kind]}{step.node_id}" for step in steps)


def format_configuration(config: Configuration) -> str:
    """`voters=(1 2 3)&&(1 2) learners=(4) learners_next=(5) autoleave`, without what is empty."""
    voters = _format_ids(config.voters.incoming)
    parts = [
        f"voters={voters}&&{_format_ids(config.voters.outgoing)}" if config.is_joint else f"voters={voters}"
    ]
    if config.learners:
        parts.append(f"learners={_format_ids(config.learners)}")
    if config.learners_next:
        parts.append(f"learners_next={_format_ids(config.learners_next)}")
    if config.auto_leave:
        parts.append("autoleave")
    return " ".join(parts)


def _format_ids(ids: Iterable[NodeId]) -> str:
    return "(" + " ".join(f"{node_id:x}" for node_id in ids) + ")"


def format_progress(known: Progress) -> str:
    """`StateProbe match=0 next=1`, then what is unusual about this follower."""
    parts = [PROGRESS_STATES[known.state], f"match={known.match_index}", f"next={known.next_index}"]
    if known.is_learner:
        parts.append("learner")
    if known.is_paused:
        parts.append("paused")
    if known.pending_snapshot:
        parts.append(f"pendingSnap={known.pending_snapshot}")
    if not known.recent_active:
        parts.append("inactive")
    if waiting := len(known.inflight):
        parts.append(f"inflight={waiting}" + ("[full]" if known.inflight.is_full else ""))
    return " ".join(parts)


def format_progress_map(progress: Mapping[NodeId, Progress]) -> str:
    """One line per follower, by id."""
    return "".join(f"{node_id}: {format_progress(progress[node_id])}\n" for node_id in sorted(progress))


def format_hard_state(hard_state: HardState) -> str:
    """`Term:1 Vote:2 Commit:3`, without a vote that was not given."""
    vote = f" Vote:{hard_state.voted_for}" if hard_state.voted_for else ""
    return f"Term:{hard_state.term}{vote} Commit:{hard_state.commit_index}"


def format_snapshot(snapshot: SnapshotMeta) -> str:
    """`Index:5 Term:1 ConfState:Voters:[1 2] VotersOutgoing:[] ...`."""
    return f"Index:{snapshot.index} Term:{snapshot.term} ConfState:{_format_conf_state(snapshot.conf_state)}"


def _format_conf_state(conf_state: ConfState) -> str:
    sets = (
        ("Voters", conf_state.voters),
        ("VotersOutgoing", conf_state.voters_outgoing),
        ("Learners", conf_state.learners),
        ("LearnersNext", conf_state.learners_next),
    )
    listed = " ".join(f"{name}:[{' '.join(map(str, ids))}]" for name, ids in sets)
    return f"{listed} AutoLeave:{format_flag(conf_state.auto_leave)}"


def format_entry(entry: Entry) -> str:
    """`1/5 EntryNormal "data"` or `1/5 EntryConfChangeV2 v2 l3`: term, index, kind, content."""
    if entry.kind is EntryKind.NORMAL:
        content = quote(entry.data)
    else:
        content = format_steps(decode_change(entry.data, entry.kind).changes)
    return f"{entry.term}/{entry.index} {ENTRY_KINDS[entry.kind]} {content}".rstrip(" ")


def format_entries(entries: Sequence[Entry]) -> str:
    """One line per entry."""
    return "".join(f"{format_entry(entry)}\n" for entry in entries)


def format_flag(value: bool) -> str:
    return "true" if value else "false"


def quote(data: bytes) -> str:
    """The bytes between double quotes; what is not printable ASCII is escaped."""
    return '"' + "".join(ESCAPES.get(byte) or _shown(byte) for byte in data) + '"'


def _shown(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


def indented(text: str) -> str:
    """Each line, two columns further to the right."""
    return "".join(f"  {line}\n" for line in text.splitlines())
