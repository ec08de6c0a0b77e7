"""Configuration changes: what they are, their bytes, and how one configuration becomes the next.

Pure functions from (configuration, progress) to a new pair; a refused change leaves both as they were. When a
change may be proposed, and when it takes effect, is decided in `membership`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import Any, Final, TypeAlias, cast

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.raft.messages import ConfState, EntryKind, NodeId
from quorker.core.raft.progress import ProgressMap, ProgressTemplate
from quorker.core.raft.quorum import JointVoters, id_set

STEPS_MAX: Final = 1024
NODE_ID_MAX: Final = (1 << 63) - 1
NO_VOTERS: Final = JointVoters()

_codec: Any = msgpack


class ChangeKind(IntEnum):
    """What a step does to one node. The numbers are stored."""

    ADD_VOTER = 0  # add as a voter, or promote a learner
    REMOVE = 1
    UPDATE = 2  # changes nothing here: carries the context of something outside Raft
    ADD_LEARNER = 3  # add as a learner, or demote a voter


class Transition(IntEnum):
    """Whether a change goes through a joint configuration, and how that is left. The numbers are stored."""

    AUTO = 0  # joint only if there is more than one step; left by itself
    IMPLICIT = 1  # joint; left by itself
    EXPLICIT = 2  # joint; stays until an empty change is proposed


@dataclass(frozen=True, slots=True)
class ChangeStep:
    kind: ChangeKind
    node_id: NodeId  # 0: the step is ignored

    def __post_init__(self) -> None:
        if not 0 <= self.node_id <= NODE_ID_MAX:
            raise ValueError(f"{self.node_id} is not a node id: they go from 1 to {NODE_ID_MAX}")


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """What is proposed. Without steps it leaves a joint configuration.

    An `entry_kind` of CONFIG carries exactly one step, and no joint configuration. Raises ValueError otherwise.
    """

    changes: tuple[ChangeStep, ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""
    entry_kind: EntryKind = EntryKind.CONFIG_V2

    def __post_init__(self) -> None:
        if len(self.changes) > STEPS_MAX:
            raise ValueError(f"{len(self.changes)} steps in one change: at most {STEPS_MAX}")
        if self.entry_kind is EntryKind.NORMAL:
            raise ValueError("a configuration change cannot be a normal entry")
        if self.entry_kind is EntryKind.CONFIG and (len(self.changes) != 1 or self.enters_joint):
            raise ValueError("a change of kind CONFIG has one step and is never joint")

    @property
    def leaves_joint(self) -> bool:
        return not self.changes and self.transition is Transition.AUTO

    @property
    def enters_joint(self) -> bool:
        return self.transition is not Transition.AUTO or len(self.changes) > 1

    @property
    def leaves_by_itself(self) -> bool:
        return self.transition is not Transition.EXPLICIT


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who is a member. A voter demoted in a joint configuration waits in `learners_next` until it is left."""

    voters: JointVoters = NO_VOTERS
    learners: tuple[NodeId, ...] = ()
    learners_next: tuple[NodeId, ...] = ()
    auto_leave: bool = False

    @property
    def is_joint(self) -> bool:
        return self.voters.is_joint

    def members(self) -> tuple[NodeId, ...]:
        """Everyone who is sent the log, sorted."""
        return id_set(self.voters.ids() + self.learners + self.learners_next)


class Refusal(Enum):
    """Why a change cannot be made to a configuration."""

    ALREADY_JOINT = "the configuration is already joint"
    NOT_JOINT = "the configuration is not joint"
    SIMPLE_IN_JOINT = "a joint configuration must be left before another change"
    NO_VOTERS_YET = "a configuration without voters cannot become joint"
    NO_VOTERS_LEFT = "the change leaves no voter"
    NEEDS_JOINT = "more than one voter would change at once"
    INCONSISTENT = "the configuration contradicts itself"


class ConfigRefusedError(ValueError):
    """A configuration change, or a stored configuration, that cannot be."""

    def __init__(self, reason: Refusal, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason


Members: TypeAlias = tuple[Configuration, ProgressMap]


def encode_change(change: ConfigChange) -> bytes:
    """The data of the change's log entry. The empty change is empty bytes, so no size limit ever refuses it."""
    if change.leaves_joint and not change.context:
        return b""
    steps = [(int(step.kind), step.node_id) for step in change.changes]
    packed: bytes = _codec.packb((int(change.transition), steps, change.context))
    return packed


def decode_change(data: bytes, entry_kind: EntryKind = EntryKind.CONFIG_V2) -> ConfigChange:
    """The inverse of `encode_change`. Raises ValueError, and nothing else, for bytes it would not have made."""
    if not data and entry_kind is EntryKind.CONFIG_V2:
        return ConfigChange()
    change = _change_from(_unpacked(data), entry_kind)
    if encode_change(change) != data:
        raise ValueError("not the canonical bytes of a configuration change")
    return change


def _unpacked(data: bytes) -> object:
    try:
        value: object = _codec.unpackb(data, use_list=False, max_array_len=STEPS_MAX)
    except Exception as error:  # msgpack has no common base for what hostile bytes can cause
        raise ValueError("not a configuration change: not msgpack") from error
    return value


def _change_from(value: object, entry_kind: EntryKind) -> ConfigChange:
    match value:
        case (int(transition), tuple(), bytes(context)):
            steps = cast("tuple[object, object, object]", value)[1]
            changes = tuple(_step_from(step) for step in cast("tuple[object, ...]", steps))
            return ConfigChange(changes, Transition(transition), context, entry_kind)
        case _:
            raise ValueError("not a configuration change: wrong shape")


def _step_from(value: object) -> ChangeStep:
    match value:
        case (int(kind), int(node_id)):
            return ChangeStep(ChangeKind(kind), node_id)
        case _:
            raise ValueError("not a configuration change: bad step")


def apply_change(members: Members, change: ConfigChange, template: ProgressTemplate) -> Members:
    """The members after `change`, by the way its transition and its number of steps demand."""
    if change.leaves_joint:
        return leave_joint(members)
    if change.enters_joint:
        return enter_joint(members, change.changes, template, auto_leave=change.leaves_by_itself)
    return simple(members, change.changes, template)


def simple(members: Members, steps: Sequence[ChangeStep], template: ProgressTemplate) -> Members:
    """Make the steps at once. Together they may change one voter at most, so that majorities overlap (§4.1)."""
    config, _ = check_members(members)
    if config.is_joint:
        raise ConfigRefusedError(Refusal.SIMPLE_IN_JOINT)
    changed = _with_steps(members, steps, template)
    before, after = config.voters.incoming, changed[0].voters.incoming
    if sum(voter not in after for voter in before) + sum(voter not in before for voter in after) > 1:
        raise ConfigRefusedError(Refusal.NEEDS_JOINT)
    return check_members(changed)


def enter_joint(
    members: Members, steps: Sequence[ChangeStep], template: ProgressTemplate, *, auto_leave: bool = False
) -> Members:
    """From `(1 2 3)` to `(steps made to 1 2 3)&&(1 2 3)`: from now on both majorities decide (§4.3)."""
    config, progress = check_members(members)
    if config.is_joint:
        raise ConfigRefusedError(Refusal.ALREADY_JOINT)
    if not config.voters.incoming:
        raise ConfigRefusedError(Refusal.NO_VOTERS_YET)
    voters = JointVoters(config.voters.incoming, config.voters.incoming)
    changed, changed_progress = _with_steps((replace(config, voters=voters), progress), steps, template)
    return check_members((replace(changed, auto_leave=auto_leave), changed_progress))


def leave_joint(members: Members) -> Members:
    """From `(1 2 3)&&(2 3 4)` to `(1 2 3)`: the waiting learners become learners, who is nothing any more goes."""
    config, progress = check_members(members)
    if not config.is_joint:
        raise ConfigRefusedError(Refusal.NOT_JOINT)
    settled = Configuration(
        JointVoters(config.voters.incoming), id_set(config.learners + config.learners_next)
    )
    kept = settled.members()
    remaining = {node_id: known for node_id, known in progress.items() if node_id in kept}
    for node_id in config.learners_next:
        remaining[node_id] = progress[node_id].with_learner(True)
    return check_members((settled, remaining))


def _with_steps(members: Members, steps: Sequence[ChangeStep], template: ProgressTemplate) -> Members:
    edit = _Edit(members, template)
    for step in steps:
        if step.node_id:
            edit.make(step)
    if not edit.voters:
        raise ConfigRefusedError(Refusal.NO_VOTERS_LEFT)
    return edit.result()


class _Edit:
    """A configuration while steps are made to it: always the incoming half, on copies."""

    def __init__(self, members: Members, template: ProgressTemplate) -> None:
        config, progress = members
        self._config = config
        self._template = template
        self.voters = list(config.voters.incoming)
        self.learners = list(config.learners)
        self.learners_next = list(config.learners_next)
        self.progress = dict(progress)

    def make(self, step: ChangeStep) -> None:
        match step.kind:
            case ChangeKind.ADD_VOTER:
                self._make_voter(step.node_id)
            case ChangeKind.ADD_LEARNER:
                self._make_learner(step.node_id)
            case ChangeKind.REMOVE:
                self._remove(step.node_id)
            case ChangeKind.UPDATE:
                pass

    def result(self) -> Members:
        voters = JointVoters(id_set(self.voters), self._config.voters.outgoing)
        learners, waiting = id_set(self.learners), id_set(self.learners_next)
        return Configuration(voters, learners, waiting, self._config.auto_leave), self.progress

    def _make_voter(self, node_id: NodeId) -> None:
        self._forget(node_id)
        self.voters.append(node_id)
        self._track(node_id, is_learner=False)

    def _make_learner(self, node_id: NodeId) -> None:
        if node_id in self.learners:
            return
        self._forget(node_id)
        waits = node_id in self._config.voters.outgoing  # it may not be voter and learner at a time
        (self.learners_next if waits else self.learners).append(node_id)
        self._track(node_id, is_learner=not waits)

    def _remove(self, node_id: NodeId) -> None:
        self._forget(node_id)
        if node_id not in self._config.voters.outgoing:
            self.progress.pop(node_id, None)

    def _forget(self, node_id: NodeId) -> None:
        for ids in (self.voters, self.learners, self.learners_next):
            if node_id in ids:
                ids.remove(node_id)

    def _track(self, node_id: NodeId, *, is_learner: bool) -> None:
        known = self.progress.get(node_id)
        if known is None:
            self.progress[node_id] = self._template.new(is_learner=is_learner)
        elif known.is_learner is not is_learner:
            self.progress[node_id] = known.with_learner(is_learner)


def restore(conf_state: ConfState, template: ProgressTemplate) -> Members:
    """The members that a snapshot names, all with fresh progress. Raises ConfigRefusedError for an impossible one."""
    config = Configuration(
        JointVoters(id_set(conf_state.voters), id_set(conf_state.voters_outgoing)),
        id_set(conf_state.learners),
        id_set(conf_state.learners_next),
        conf_state.auto_leave,
    )
    members = config.members()
    if members and not config.voters.incoming:
        raise ConfigRefusedError(Refusal.NO_VOTERS_LEFT)
    if members and members[0] <= 0:
        raise ConfigRefusedError(Refusal.INCONSISTENT, f"{members[0]} is not a node id")
    progress = {node_id: template.new(is_learner=node_id in config.learners) for node_id in members}
    return check_members((config, progress))


def to_conf_state(config: Configuration) -> ConfState:
    """The configuration as snapshots and peers carry it. `restore` is the way back."""
    return ConfState(
        voters=config.voters.incoming,
        learners=config.learners,
        voters_outgoing=config.voters.outgoing,
        learners_next=config.learners_next,
        auto_leave=config.auto_leave,
    )


def check_members(members: Members) -> Members:
    """The members, if they are consistent; ConfigRefusedError(INCONSISTENT) if not."""
    config, progress = members
    for node_id in config.members():
        known = progress.get(node_id)
        why = "has no progress" if known is None else _contradiction(config, node_id, known.is_learner)
        if why:
            raise ConfigRefusedError(Refusal.INCONSISTENT, f"{node_id} {why}")
    if not config.is_joint and config.auto_leave:
        raise ConfigRefusedError(Refusal.INCONSISTENT, "auto_leave without a joint configuration")
    return members


def _contradiction(config: Configuration, node_id: NodeId, is_learner: bool) -> str:
    if (node_id in config.learners) is not is_learner:
        return "is tracked as what it is not"
    if node_id in config.learners and node_id in config.voters:
        return "is learner and voter"
    if node_id in config.learners_next and node_id not in config.voters.outgoing:
        return "waits to be a learner without being an outgoing voter"
    return ""
