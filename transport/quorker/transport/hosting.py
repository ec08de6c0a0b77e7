"""Which session is served by whom on this node: outcomes of applied batches find their way from here.

A session is hosted by the node's own driver or by the connection of a client. Sessions of other members are in every
outcome too, and pass by. No I/O here.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from quorker.core.errors import ProtocolError
from quorker.core.jobs.outcome import Notice, Outcome
from quorker.core.wire.records import list_of, unpack

GROUP_ELEMENTS_MAX: Final = 1 << 20  # its bytes are bounded by the frame


class Host(Protocol):
    """Whoever speaks for sessions on this node."""

    def on_opened(self, nonce: int, session_id: int) -> None: ...

    def on_reply(self, session_id: int, seq: int, reply: Any) -> None: ...

    def on_notice(self, notice: Notice) -> None: ...

    def on_refused(self, session_id: int, seqs: tuple[int, ...], reason: str, retry_after_ms: int) -> None:
        """These commands (session 0: the nonce of an opening) were not appended and will not be."""
        ...

    def on_lost(self, session_id: int, reason: str) -> None: ...

    def on_route_changed(self) -> None:
        """Whatever is unanswered may be lost: send it again."""
        ...


class SessionHosts:
    """Session and nonce to host."""

    def __init__(self) -> None:
        self._by_session: dict[int, Host] = {}
        self._by_nonce: dict[int, Host] = {}

    def opening(self, nonce: int, host: Host) -> None:
        self._by_nonce[nonce] = host

    def attach(self, session_id: int, host: Host) -> None:
        """From now on `host` speaks for this session; an earlier connection of the same client is forgotten."""
        self._by_session[session_id] = host

    def detach(self, host: Host) -> None:
        self._by_session = {key: value for key, value in self._by_session.items() if value is not host}
        self._by_nonce = {key: value for key, value in self._by_nonce.items() if value is not host}

    def hosted(self) -> dict[int, Host]:
        return dict(self._by_session)

    def on_outcome(self, outcome: Outcome) -> None:
        by_session = self._by_session
        for session_id, seq, reply in outcome.replies:
            if session_id:
                host = by_session.get(session_id)
                if host is not None:
                    host.on_reply(session_id, seq, reply)
            elif seq in self._by_nonce:
                self._on_opening_reply(seq, reply)
        for notice in outcome.notices:
            host = by_session.get(notice.session)
            if host is not None:
                host.on_notice(notice)

    def _on_opening_reply(self, nonce: int, reply: Any) -> None:
        host = self._by_nonce.pop(nonce)
        if reply[0] == 0:
            self._by_session[reply[1]] = host
            host.on_opened(nonce, reply[1])
        else:
            host.on_reply(0, nonce, reply)

    def on_refused(self, session_id: int, seqs: tuple[int, ...], reason: str, retry_after_ms: int) -> None:
        if session_id:
            hosts = [self._by_session[session_id]] if session_id in self._by_session else []
        else:
            hosts = [self._by_nonce[nonce] for nonce in seqs if nonce in self._by_nonce]
        for host in hosts:
            host.on_refused(session_id, seqs, reason, retry_after_ms)

    def on_route_changed(self) -> None:
        for host in {
            id(host): host for host in (*self._by_session.values(), *self._by_nonce.values())
        }.values():
            host.on_route_changed()


def group_names(group: bytes) -> tuple[int, tuple[int, ...]]:
    """(session, sequences) of a group of commands; (0, ()) when the bytes are no group."""
    try:
        session_id, _, commands = list_of(unpack(group, elements_max=GROUP_ELEMENTS_MAX, finite=False), 3)
        return int(session_id), tuple(int(command[0]) for command in list_of(commands))
    except (ProtocolError, ValueError, TypeError, IndexError):
        return 0, ()
