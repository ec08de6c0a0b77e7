"""Changes of the membership that a case asks for, as Raft takes them; the same for bare members and for a job store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quorker.core.raft.confchange import ChangeKind, ChangeStep, ConfigChange
from quorker.sim.cases.case import Op, OpKind


def _one(kind: ChangeKind) -> Callable[[Op], ConfigChange]:
    return lambda op: ConfigChange((ChangeStep(kind, op.node),))


def _swap(op: Op) -> ConfigChange:
    return ConfigChange((ChangeStep(ChangeKind.ADD_VOTER, op.node), ChangeStep(ChangeKind.REMOVE, op.amount)))


CHANGES: Final[dict[OpKind, Callable[[Op], ConfigChange]]] = {
    OpKind.ADD_VOTER: _one(ChangeKind.ADD_VOTER),
    OpKind.ADD_LEARNER: _one(ChangeKind.ADD_LEARNER),
    OpKind.REMOVE: _one(ChangeKind.REMOVE),
    OpKind.SWAP: _swap,
}
"""What is asked of the leader, by the kind of the operation."""
