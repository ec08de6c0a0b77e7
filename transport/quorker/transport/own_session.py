"""The node's own session: the callers and the worker of this very process, answered by the replica beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quorker.core.jobs.new_job import JobGrant
from quorker.core.jobs.outcome import Cancelled, Notice
from quorker.core.raft.messages import NodeId
from quorker.core.session import SessionState
from quorker.transport.hosting import SessionHosts
from quorker.transport.session_driver import SessionDriver


class OwnSession:
    """A `Host` whose client lives in this process. `submit(group)` hands a group to the replica,
    `leader()` is the leader it knows."""

    def __init__(
        self,
        driver: SessionDriver,
        hosts: SessionHosts,
        submit: Callable[[bytes], None],
        leader: Callable[[], NodeId],
    ) -> None:
        self.driver = driver
        self.answered = False
        self._hosts = hosts
        self._submit = submit
        self._leader = leader

    def flush(self) -> None:
        """Everything that waits to be sent goes to the replica, as one group at a time."""
        session = self.driver.session
        while group := session.take_group():
            if session.state is SessionState.OPENING:
                self._hosts.opening(session.nonce, self)
            self._submit(group)

    # ------------------------------------------------------------------ Host

    def on_opened(self, nonce: int, session_id: int) -> None:
        if nonce == self.driver.session.nonce:
            self.driver.on_opened(session_id)

    def on_reply(self, session_id: int, seq: int, reply: Any) -> None:
        if session_id == self.driver.session.session_id:
            self.answered = True
            self.driver.on_reply(seq, reply)

    def on_notice(self, notice: Notice) -> None:
        if notice.session != self.driver.session.session_id:
            return
        match notice.payload:
            case JobGrant() as grant:
                self.driver.on_grants((grant,))
            case Cancelled(token, _, reason):
                self.driver.on_cancel(token, reason)
            case str() as reason:
                self.driver.on_lost(reason)
            case _:
                pass  # a granted lock: `quorker.app` asks for it by the ticket of its waiting command

    def on_refused(self, session_id: int, seqs: tuple[int, ...], reason: str, retry_after_ms: int) -> None:
        self.driver.session.on_refused(seqs, retry_after_ms, reason, self._leader())

    def on_lost(self, session_id: int, reason: str) -> None:
        if session_id == self.driver.session.session_id:
            self.driver.on_lost(reason)

    def on_route_changed(self) -> None:
        self.driver.session.on_route_changed()
