"""A client's thinking half: numbers commands, keeps each until it is answered, and keeps the session alive.

It owns no socket and no clock. Its driver gives it the time, moves its groups of commands to the leader and brings
the replies back; the simulator and the real node run this very class. What a command means is `quorker.core.jobs`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core.errors import Busy, InvalidInput, NotApplied, OutOfSpace, QuorkerError, Rejected, Unknown
from quorker.core.jobs.commands import CloseSession, Command, KeepAlive, OpenSession, ReplaceSessions, encode
from quorker.core.jobs.urgency import may_overtake, needs_no_space
from quorker.core.raft.effects import DropReason
from quorker.core.raft.messages import NOBODY, NodeId

_codec: Any = msgpack
WINDOW: Final = 4096  # commands under way at once; the replicas keep that many replies per session
LEASE_SHARE: Final = 0.8  # of the ttl, counted from sending: the holder stops there (guarantee T3)
RENEW_SHARE: Final = 1 / 3
GROUP_COMMANDS_MAX: Final = 512
GROUP_BYTES_MAX: Final = 768 * 1024
OVERTAKING_MAX: Final = 64  # commands in a group that outranks new work: their results may be large
OVER_LIMITS: Final = DropReason.TOO_MUCH_UNCOMMITTED.name
DISK_FULL: Final = DropReason.DISK_FULL.name

Resolve: TypeAlias = Callable[[Any, QuorkerError | None], None]
"""Called once with (value, None) or (None, error)."""


class SessionState(Enum):
    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"
    LOST = "lost"  # expired or refused; `reopen` starts a new one


@dataclass(slots=True, eq=False)
class Pending:
    """One command that waits for its reply. `unsure`: how often it was sent and was neither answered nor refused."""

    seq: int
    body: bytes  # packed [seq, command]
    deadline_ms: int
    resolve: Resolve | None
    first_sent_ms: int = -1
    last_sent_ms: int = -1
    unsure: int = 0
    overtakes: bool = False
    needs_no_space: bool = False
    refused: str = ""  # why it was, the last time
    refused_by: NodeId = NOBODY  # the leader then, as far as it is known


@dataclass(slots=True)
class SessionConfig:
    """`ttl_ms`: how long the replicas wait for a sign of life. `retransmit_ms`: unanswered groups go out again.
    `replaces`: the name is this process's alone, so older sessions of that name are dead."""

    name: str
    ttl_ms: int = 10_000
    retransmit_ms: int = 2_000
    replaces: bool = True


@dataclass(slots=True)
class ClientSession:
    """One session of one process. `nonce` (62 random bits) makes opening it safe to repeat."""

    config: SessionConfig
    nonce: int
    now_ms: int = 0
    state: SessionState = SessionState.CLOSED
    session_id: int = 0
    lost_reason: str = ""
    _next_seq: int = 1
    _answered_below: int = 1
    _outstanding: dict[int, Pending] = field(default_factory=dict[int, Pending])
    _unsent: deque[Pending] = field(default_factory=deque[Pending])
    _opened_sent_ms: int = -1
    _open_first_sent_ms: int = -1
    _renewed_ms: int = 0
    _retry_at_ms: int = 0
    _overtaking_retry_at_ms: int = 0
    _refused: str = ""  # why a group was, the last time
    _packer: Any = field(default_factory=_codec.Packer)

    # ------------------------------------------------------------------ what callers do

    def open(self, now_ms: int, nonce: int | None = None) -> None:
        """Start opening a (new) session. Commands that were never sent are kept for it; others must be settled first."""
        self.now_ms = now_ms
        self.nonce = self.nonce if nonce is None else nonce
        self.state, self.session_id = SessionState.OPENING, 0
        self._opened_sent_ms = self._open_first_sent_ms = -1

    def submit(self, command: Command, now_ms: int, deadline_ms: int, resolve: Resolve | None) -> int:
        """Queue a command; returns its sequence number. `resolve` is called when its outcome is known or given up.

        Raises `InvalidInput` when no group can hold it.
        """
        self.now_ms = now_ms
        seq = self._next_seq
        body = self._packer.pack((seq, encode(command)))
        check_size(command, len(body))
        pending = Pending(
            seq,
            body,
            deadline_ms,
            resolve,
            overtakes=may_overtake(command),
            needs_no_space=needs_no_space(command),
        )
        self._next_seq = seq + 1
        self._outstanding[seq] = pending
        self._unsent.append(pending)
        return seq

    def abandon(self, seq: int) -> None:
        """Nobody waits for this command any more. It is still sent, repeated and applied once."""
        pending = self._outstanding.get(seq)
        if pending is not None:
            pending.resolve = None

    def close(self, now_ms: int) -> None:
        """Give everything back: leases return to their queues, locks go to the next waiter."""
        if self.state is SessionState.OPEN:
            self.submit(CloseSession(), now_ms, now_ms + self.config.ttl_ms, None)

    @property
    def unanswered(self) -> int:
        return len(self._outstanding)

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent) or (self.state is SessionState.OPENING and self._opened_sent_ms < 0)

    @property
    def lease_deadline_ms(self) -> int:
        """When this process must have stopped whatever it holds, on its own monotonic clock."""
        return self._renewed_ms + int(self.config.ttl_ms * LEASE_SHARE)

    # ------------------------------------------------------------------ towards the leader

    def take_group(self) -> bytes | None:
        """The commands that wait to be sent, as one group for the log, or None. They count as sent from now on.

        While new work is refused, what outranks it goes alone.
        """
        if self.now_ms < self._retry_at_ms:
            return self._take_overtaking()
        if self.state is SessionState.OPENING:
            return self._take_opening()
        if self.state is not SessionState.OPEN or not self._unsent:
            return None
        bodies: list[bytes] = []
        unsent, outstanding = self._unsent, self._outstanding
        size, ceiling = 0, self._answered_below + WINDOW
        while unsent and len(bodies) < GROUP_COMMANDS_MAX:
            pending = unsent[0]
            if pending.seq >= ceiling or (bodies and size + len(pending.body) > GROUP_BYTES_MAX):
                break
            unsent.popleft()
            if pending.seq in outstanding:
                size += len(pending.body)
                bodies.append(self._sent(pending))
        return self._pack_group(bodies) if bodies else None

    def _take_overtaking(self) -> bytes | None:
        if self.state is not SessionState.OPEN or self.now_ms < self._overtaking_retry_at_ms:
            return None
        ceiling = self._answered_below + WINDOW
        waiting = [pending for pending in self._unsent if self._outranks(pending) and pending.seq < ceiling]
        chosen = {pending.seq: pending for pending in waiting[:OVERTAKING_MAX]}
        if not chosen:
            return None
        self._unsent = deque(pending for pending in self._unsent if pending.seq not in chosen)
        known = [pending for seq, pending in chosen.items() if seq in self._outstanding]
        return self._pack_group([self._sent(pending) for pending in known]) if known else None

    def _outranks(self, pending: Pending) -> bool:
        """Whether it may be sent while new work is refused for the reason that was heard last."""
        return pending.overtakes or (pending.needs_no_space and self._refused == DISK_FULL)

    def _sent(self, pending: Pending) -> bytes:
        pending.last_sent_ms = self.now_ms
        pending.unsure += 1
        if pending.first_sent_ms < 0:
            pending.first_sent_ms = self.now_ms
        return pending.body

    def _pack_group(self, bodies: list[bytes]) -> bytes:
        pack, array = self._packer.pack, self._packer.pack_array_header
        head = array(3) + pack(self.session_id) + pack(self._answered_below) + array(len(bodies))
        return b"".join((head, *bodies))

    def _take_opening(self) -> bytes | None:
        if self._opened_sent_ms >= 0:
            return None
        self._opened_sent_ms = self.now_ms
        if self._open_first_sent_ms < 0:
            self._open_first_sent_ms = self.now_ms
        command = OpenSession(self.config.name, self.config.ttl_ms)
        return bytes(self._packer.pack([0, 0, [[self.nonce, encode(command)]]]))

    def on_route_changed(self) -> None:
        """Whatever was under way may be lost (new leader, broken connection): send it again. Repeats apply once."""
        self._opened_sent_ms = -1
        self._send_again(self._outstanding)

    def on_refused(
        self, seqs: Iterable[int], retry_after_ms: int, reason: str = "", leader: NodeId = NOBODY
    ) -> None:
        """These were, once, definitely not appended: send them again after a while. `reason`: of a `DropReason`."""
        self._retry_at_ms, self._refused = self.now_ms + retry_after_ms, reason
        refused = [self._outstanding[seq] for seq in seqs if seq in self._outstanding]
        if all(self._outranks(pending) for pending in refused):
            self._overtaking_retry_at_ms = self._retry_at_ms
        for pending in refused:
            pending.unsure = max(0, pending.unsure - 1)
            pending.refused, pending.refused_by = reason, leader
        if self.state is SessionState.OPENING:
            self._opened_sent_ms = -1
        self._send_again(seqs)

    def _send_again(self, seqs: Iterable[int]) -> None:
        waiting = {pending.seq for pending in self._unsent}
        again = [self._outstanding[seq] for seq in seqs if seq in self._outstanding and seq not in waiting]
        self._unsent.extendleft(reversed(again))

    # ------------------------------------------------------------------ from the replicas

    def on_opened(self, session_id: int) -> None:
        if self.state is SessionState.OPENING:
            self.state, self.session_id = SessionState.OPEN, session_id
            self._renewed_ms = self._open_first_sent_ms
            if self.config.replaces:  # those that are not ended by it expire within the ttl themselves
                self.submit(ReplaceSessions(), self.now_ms, self.now_ms + self.config.ttl_ms, None)

    def on_reply(self, seq: int, reply: Any) -> None:
        """`reply` is (0, value), or (1, reason, detail). Repeated and late replies are ignored."""
        pending = self._outstanding.get(seq)
        if pending is None:
            return
        if reply[0] and reply[1] == "session_expired":
            self.on_lost(reply[2] or "the session expired")
            return
        self._renewed_ms = max(self._renewed_ms, pending.first_sent_ms)
        self._forget(seq)
        if pending.resolve is None:
            return
        if reply[0] == 0:
            pending.resolve(reply[1], None)
        else:
            pending.resolve(None, Rejected(reply[1], reply[2]))

    def on_lost(self, reason: str) -> None:
        """The replicas know this session no more. What was neither answered nor refused stays unknown for good."""
        if self.state is SessionState.LOST:
            return
        self.state, self.lost_reason = SessionState.LOST, reason
        for pending in [pending for pending in self._outstanding.values() if pending.unsure]:
            self._settle(pending, Unknown(f"the session ended before the reply arrived: {reason}"))

    # ------------------------------------------------------------------ time

    def tick(self, now_ms: int) -> None:
        """Give up what is past its deadline, resend what got no answer, renew the session when it is due."""
        self.now_ms = now_ms
        for pending in [pending for pending in self._outstanding.values() if pending.deadline_ms <= now_ms]:
            self._settle(pending, _gave_up(pending))
        if self.state is SessionState.OPENING:
            if 0 <= self._opened_sent_ms <= now_ms - self.config.retransmit_ms:
                self._opened_sent_ms = -1
            return
        if self.state is not SessionState.OPEN:
            return
        oldest = next(iter(self._outstanding.values()), None)
        if oldest is not None and 0 <= oldest.last_sent_ms <= now_ms - self.config.retransmit_ms:
            self.on_route_changed()
        if now_ms >= self._renewed_ms + self.config.ttl_ms * RENEW_SHARE and not self._will_renew():
            self.submit(KeepAlive(), now_ms, now_ms + self.config.ttl_ms, None)

    def _will_renew(self) -> bool:
        """Whether the reply to something under way renews the session; what was refused lately may not get one in time."""
        if self._retry_at_ms > 0 and self.now_ms < self._retry_at_ms + self.config.ttl_ms:
            return any(pending.overtakes for pending in self._outstanding.values())
        return bool(self._outstanding)

    def next_deadline(self) -> int:
        """Absolute ms at which `tick` has something to do. Never far away: callers may simply ask often."""
        renew = self._renewed_ms + int(self.config.ttl_ms * RENEW_SHARE)
        if not self._outstanding:
            return renew if self.state is SessionState.OPEN else self.now_ms + self.config.retransmit_ms
        oldest = next(iter(self._outstanding.values()))
        resend = max(oldest.last_sent_ms, self._retry_at_ms, 0) + self.config.retransmit_ms
        return min(oldest.deadline_ms, resend)

    # ------------------------------------------------------------------ bookkeeping

    def _settle(self, pending: Pending, error: QuorkerError) -> None:
        self._forget(pending.seq)
        if pending.resolve is not None:
            pending.resolve(None, error)

    def _forget(self, seq: int) -> None:
        outstanding, below = self._outstanding, self._answered_below
        del outstanding[seq]
        if seq == below:
            while below < self._next_seq and below not in outstanding:
                below += 1
            self._answered_below = below


def check_size(command: Command, size: int) -> None:
    """Raises `InvalidInput` for more bytes than a group may have: no leader would ever take them."""
    if size > GROUP_BYTES_MAX:
        raise InvalidInput(
            f"the command {type(command).__name__} has {size} bytes: one command has at most {GROUP_BYTES_MAX}; "
            "split it, or store large values elsewhere and pass their keys"
        )


def _gave_up(pending: Pending) -> QuorkerError:
    if pending.first_sent_ms < 0:
        return NotApplied("no leader was reached before the deadline: the command was never sent")
    if not pending.unsure and pending.refused == DISK_FULL:
        whose = f"node {pending.refused_by} (the leader)" if pending.refused_by else "the leader"
        return OutOfSpace(
            f"the disk of {whose} is nearly full: no new work is taken until there is space. Free some on that disk, "
            "or delete jobs"
        )
    if not pending.unsure and pending.refused == OVER_LIMITS:
        return Busy("the cluster is over its limits and refused the command each time: try again later")
    if not pending.unsure:
        return NotApplied("no leader took the command before the deadline: it was refused each time")
    return Unknown("no reply before the deadline: the command may or may not have been applied")
