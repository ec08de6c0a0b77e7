"""Where we behave otherwise than etcd on purpose: the one table, by the name of etcd's transcript.

Every entry gives its reason, and the transcript of our own (in `tests/raft/transcripts`) that shows what we do
instead. A file that stands here and yet runs as etcd wrote it fails the tests, as does one that differs by more, or
that differs still when the setting `early_vote_requests` makes us ask for votes when etcd does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

VOTE_REQUESTS_WAIT: Final = (
    "A candidate's requests for votes wait until its own vote is durable; etcd sends them at once when storage is "
    "asynchronous. Else a candidate could ask on the strength of entries it has not written, crash, come back "
    "without them, stand in the same term again, and be elected by a vote that was meant for the longer log."
)


@dataclass(frozen=True, slots=True)
class Deviation:
    """`differing`: how many directives of etcd's file may print something else. The first of them shows `first`."""

    reason: str
    equivalent: str
    differing: int
    first: str


DEVIATIONS: Final[Mapping[str, Deviation]] = {
    "async_storage_writes.txt": Deviation(
        VOTE_REQUESTS_WAIT, "async_storage_pipeline.txt", differing=1, first="MsgVote"
    ),
    "async_storage_writes_append_aba_race.txt": Deviation(
        VOTE_REQUESTS_WAIT, "async_overwritten_writes.txt", differing=31, first="MsgVote"
    ),
}
