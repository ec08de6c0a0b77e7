"""The states of a job and the legal transitions between them, as one table; what each state means for the store.

The table is the law for compound operations and for the picture in the docs. Contract operations may set any state,
also ones not named here: they are the building blocks of someone else's lifecycle. No transition is carried out here.
"""

from __future__ import annotations

from typing import Final

ENQUEUED: Final = "Enqueued"
SCHEDULED: Final = "Scheduled"
PROCESSING: Final = "Processing"
SUCCEEDED: Final = "Succeeded"
FAILED: Final = "Failed"
DELETED: Final = "Deleted"
AWAITING: Final = "Awaiting"
QUARANTINED: Final = "Quarantined"
UNBORN: Final = ""

STATES: Final = (ENQUEUED, SCHEDULED, PROCESSING, SUCCEEDED, FAILED, DELETED, AWAITING, QUARANTINED)

FINAL: Final = frozenset({SUCCEEDED, DELETED})
"""No way out but by hand; such a job expires."""

ENDED: Final = frozenset({SUCCEEDED, DELETED, FAILED, QUARANTINED})
"""Nothing more happens by itself. Failed and quarantined jobs may be tried again by hand, so what waits for their
success goes on waiting."""

UNFINISHED: Final = tuple(state for state in STATES if state not in ENDED)
"""Something is still to happen by itself."""

TAKEABLE: Final = frozenset({ENQUEUED, SCHEDULED, PROCESSING})
"""A queue entry of a job in another state leads nowhere and is dropped when it is reached by dispatch."""

TRANSITIONS: Final[dict[tuple[str, str], str]] = {
    (UNBORN, ENQUEUED): "enqueued",
    (UNBORN, SCHEDULED): "enqueued with a delay",
    (UNBORN, AWAITING): "enqueued as a continuation",
    (ENQUEUED, PROCESSING): "granted",
    (ENQUEUED, ENQUEUED): "requeued by hand when no queue had it",
    (ENQUEUED, SCHEDULED): "rescheduled by hand",
    (ENQUEUED, DELETED): "deleted",
    (SCHEDULED, ENQUEUED): "due",
    (SCHEDULED, PROCESSING): "granted out of a queue it was also in",
    (SCHEDULED, SCHEDULED): "rescheduled by hand",
    (SCHEDULED, DELETED): "deleted",
    (PROCESSING, SUCCEEDED): "completed",
    (PROCESSING, SCHEDULED): "failed, to be retried; or rescheduled by hand",
    (PROCESSING, ENQUEUED): "released, lost with its worker, or retried at once",
    (PROCESSING, PROCESSING): "granted out of a queue it was also in",
    (PROCESSING, FAILED): "failed for good",
    (PROCESSING, DELETED): "deleted, or failed for good where the policy deletes",
    (PROCESSING, QUARANTINED): "lost its worker too often",
    (ENQUEUED, QUARANTINED): "fetched by contract, lost its worker too often",
    (SCHEDULED, QUARANTINED): "fetched by contract, lost its worker too often",
    (AWAITING, QUARANTINED): "fetched by contract, lost its worker too often",
    (UNBORN, QUARANTINED): "fetched by contract, lost its worker too often",
    (UNBORN, DELETED): "created by contract, deleted",
    (SUCCEEDED, ENQUEUED): "requeued by hand",
    (SUCCEEDED, SCHEDULED): "rescheduled by hand",
    (SUCCEEDED, DELETED): "deleted",
    (FAILED, ENQUEUED): "requeued by hand",
    (FAILED, SCHEDULED): "rescheduled by hand",
    (FAILED, DELETED): "deleted",
    (DELETED, ENQUEUED): "requeued by hand",
    (DELETED, SCHEDULED): "rescheduled by hand",
    (AWAITING, ENQUEUED): "its condition was met, or requeued by hand",
    (AWAITING, SCHEDULED): "its condition was met and it has a delay, or rescheduled by hand",
    (AWAITING, DELETED): "its condition cannot be met any more, or deleted",
    (QUARANTINED, ENQUEUED): "requeued by hand",
    (QUARANTINED, SCHEDULED): "rescheduled by hand",
    (QUARANTINED, DELETED): "deleted",
}
"""(from, to) -> what happened."""

_KNOWN: Final = frozenset({UNBORN, *STATES})

CONDITIONS: Final[dict[str, frozenset[str]]] = {
    "success": frozenset({SUCCEEDED}),
    "failure": frozenset({FAILED, QUARANTINED}),
    "deleted": frozenset({DELETED}),
    "any": ENDED,
}
"""Which states of its parent release a continuation."""


def is_legal(current: str, target: str) -> bool:
    """May a compound operation take a job there? A state that a contract operation invented may be left for any."""
    return (current, target) in TRANSITIONS or current not in _KNOWN


def is_met(on: str, parent_state: str) -> bool:
    """Is the condition of a continuation met by its parent's state."""
    return parent_state in CONDITIONS[on]


def is_hopeless(on: str, parent_state: str) -> bool:
    """Can the condition not be met any more, unless someone revives the parent from a final state."""
    return parent_state in FINAL and parent_state not in CONDITIONS[on]
