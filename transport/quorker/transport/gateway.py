"""What a node does for clients: their groups go to the leader, replies and notices come back, reads are served here.

One `ClientHost` per connection speaks for the sessions that the client opened or attached. Limits of connections and
frames are the listener's; what a command may be is the state machine's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from quorker.core.errors import InvalidInput, NotApplied, OperationError, Rejected
from quorker.core.freshness import UNKNOWN
from quorker.core.jobs.new_job import JobGrant, grant_to_wire
from quorker.core.jobs.outcome import Notice
from quorker.core.raft.messages import NOBODY
from quorker.core.wire import requests
from quorker.core.wire.records import pack, unpack
from quorker.core.wire.requests import (
    AGE_UNKNOWN,
    Answer,
    Attach,
    Cancel,
    ClientRequest,
    Failed,
    Failure,
    ProposeRefused,
    Query,
    StatusRequest,
    Submit,
    Wait,
)
from quorker.transport.hosting import group_names
from quorker.transport.listener import ClientLink
from quorker.transport.node import Node

ROUTE_CHANGED: Final = "LEADER_CHANGED"
UNANSWERED_MAX: Final = 1024  # queries and waits of one connection

Start = Callable[[Callable[[], Awaitable[None]]], None]


class ClientHost:
    """A `Host` whose client is on the other end of a connection."""

    def __init__(self, node: Node, link: ClientLink, start: Start) -> None:
        self._node = node
        self._link = link
        self._start = start
        self._requests: dict[int, trio.CancelScope] = {}
        self._submits: dict[int, int] = {}  # request by session, of the group that was sent last
        self._replies: list[tuple[int, int, Any]] = []
        self._ahead: dict[
            int, int
        ] = {}  # by session, what its client has seen and this member is still to apply

    # ------------------------------------------------------------------ requests

    def on_request(self, request: ClientRequest) -> None:
        match request:
            case Submit():
                self._submit(request)
            case Attach(session, seen_index):
                self._attach(session, seen_index)
            case Query():
                self._begin(request.request, lambda: self._query(request))
            case StatusRequest(number):
                self._begin(number, lambda: self._status(number))
            case Wait():
                self._begin(request.request, lambda: self._wait(request))
            case Cancel(number):
                if number in self._requests:
                    self._requests[number].cancel()

    def _submit(self, submit: Submit) -> None:
        session_id, seqs = group_names(submit.group)
        if session_id:
            self._node.hosts.attach(session_id, self)
        else:
            for nonce in seqs:
                self._node.hosts.opening(nonce, self)
        self._submits[session_id] = submit.request
        self._node.submit_group(submit.group)

    def _attach(self, session_id: int, seen_index: int) -> None:
        """A member that has just started, or lags, may not know the session yet: that is no proof that it has ended."""
        self._node.hosts.attach(session_id, self)
        if self._node.replica.store_index >= seen_index:
            self._repeat_missed(session_id)
            return
        is_waiting = session_id in self._ahead
        self._ahead[session_id] = seen_index
        if not is_waiting:
            self._start(lambda: self._repeat_when_caught_up(session_id))

    async def _repeat_when_caught_up(self, session_id: int) -> None:
        while self._node.replica.store_index < self._ahead[session_id]:
            await self._node.wait_applied(self._ahead[session_id])
        del self._ahead[session_id]
        if self._node.hosts.hosted().get(session_id) is self:
            self._repeat_missed(session_id)

    def _repeat_missed(self, session_id: int) -> None:
        self._node.repeat_missed(session_id, self)
        self.flush()

    def _begin(self, number: int, work: Callable[[], Awaitable[Answer]]) -> None:
        if len(self._requests) >= UNANSWERED_MAX:
            detail = f"at most {UNANSWERED_MAX} requests of one connection wait at once"
            self._link.send(Failed(number, Failure.BUSY, "too_many_requests", detail, 100, 0))
            return
        self._requests[number] = trio.CancelScope()
        self._start(lambda: self._finish(number, work))

    async def _finish(self, number: int, work: Callable[[], Awaitable[Answer]]) -> None:
        try:
            with self._requests[number]:
                self._link.send(await work())
        except Rejected as error:
            self._link.send(Failed(number, Failure.REJECTED, error.reason, error.detail, 0, 0))
        except InvalidInput as error:
            self._link.send(Failed(number, Failure.REJECTED, "invalid_input", str(error), 0, 0))
        except NotApplied as error:
            self._link.send(
                Failed(
                    number, Failure.NOT_APPLIED, "no_leader", str(error), 0, self._node.replica.raft.leader
                )
            )
        except (OperationError, trio.TooSlowError) as error:
            self._link.send(Failed(number, Failure.UNKNOWN, "timeout", str(error), 0, 0))
        finally:
            del self._requests[number]

    async def _query(self, query: Query) -> Answer:
        with trio.move_on_after(query.timeout_ms / 1000) as scope:
            if query.linearizable:
                await self._node.wait_linearizable()
            await self._node.wait_applied(query.min_index)
        if scope.cancelled_caught:
            raise NotApplied(self._why_late(query))
        answer = self._node.query_now(query.name, unpack(query.args))
        age_ms = AGE_UNKNOWN if answer.age_ms == UNKNOWN else answer.age_ms
        return Answer(query.request, answer.applied_index, age_ms, pack(answer.value))

    def _why_late(self, query: Query) -> str:
        node, within = self._node, f"within {query.timeout_ms / 1000:g} s"
        if node.replica.raft.leader == NOBODY:
            return f"node {node.node_id} found no leader with a majority behind it {within}"
        return f"node {node.node_id} did not catch up with what this client has seen {within}"

    async def _status(self, number: int) -> Answer:
        status = self._node.status_now()
        fields = {name: getattr(status, name) for name in status.__slots__}
        return Answer(number, status.applied_index, 0, pack(fields))

    async def _wait(self, wait: Wait) -> Answer:
        with trio.fail_after(wait.timeout_ms / 1000):
            await self._node.wait_ended(wait.job_id)
        return Answer(wait.request, self._node.replica.store_index, 0, pack(None))

    # ------------------------------------------------------------------ Host

    def on_opened(self, nonce: int, session_id: int) -> None:
        self._replies.append((0, nonce, (0, session_id)))
        self._node.dirty_hosts[id(self)] = self

    def on_reply(self, session_id: int, seq: int, reply: Any) -> None:
        self._replies.append((session_id, seq, reply))
        self._node.dirty_hosts[id(self)] = self

    def flush(self) -> None:
        """Everything that one pump brought leaves in one frame."""
        if self._replies:
            replies, self._replies = self._replies, []
            self._link.send(requests.Reply(self._node.replica.store_index, requests.pack_replies(replies)))

    def on_notice(self, notice: Notice) -> None:
        payload: Any = notice.payload
        if isinstance(payload, JobGrant):
            payload = grant_to_wire(payload)
        self.flush()
        self._link.send(requests.Notice(notice.session, notice.kind, pack(payload)))

    def on_lost(self, session_id: int, reason: str) -> None:
        if session_id in self._ahead:
            return  # a state from before the session: it is looked for again when this member has caught up
        self._link.send(requests.Notice(session_id, "session_closed", pack(reason)))

    def on_refused(self, session_id: int, seqs: tuple[int, ...], reason: str, retry_after_ms: int) -> None:
        leader = self._node.replica.raft.leader
        self._link.send(ProposeRefused(session_id, seqs, reason, leader, retry_after_ms))

    def on_route_changed(self) -> None:
        leader = self._node.replica.raft.leader
        for request in self._submits.values():
            self._link.send(Failed(request, Failure.UNKNOWN, ROUTE_CHANGED, "", 0, leader))

    def close(self) -> None:
        self._node.hosts.detach(self)
        for scope in self._requests.values():
            scope.cancel()
