"""A process that is no member, as a `Connection`: its own session, over one connection to any member.

What is unanswered when the connection ends is asked again at the next member: commands under the same session and
sequence number, which apply once; reads as they are, never behind what this client has seen. Which member it is
connected to does not matter, each of them forwards to the leader.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Final

import trio

from quorker.core.errors import InvalidInput, NotApplied, OperationError, ProtocolError, Rejected
from quorker.core.freshness import UNKNOWN
from quorker.core.jobs.bounds import BadCommand
from quorker.core.jobs.commands import CloseSession, Command, JobGrant
from quorker.core.jobs.new_job import grant_from_wire
from quorker.core.session import Resolve, SessionConfig, SessionState
from quorker.core.wire import requests
from quorker.core.wire.handshake import Party, check_secrets, cluster_id_of
from quorker.core.wire.records import list_of, pack, unpack
from quorker.core.wire.requests import (
    AGE_UNKNOWN,
    Attach,
    Cancel,
    ClientRequest,
    Failed,
    Failure,
    Notice,
    ProposeRefused,
    Query,
    Reply,
    Role,
    Speech,
    StatusRequest,
    Submit,
    Wait,
)
from quorker.transport.clock import monotonic_ms
from quorker.transport.connection import Answer, Consistency, Status
from quorker.transport.endpoint import parse_address
from quorker.transport.greeting import Credentials
from quorker.transport.route import Route
from quorker.transport.session_driver import JobReceiver, SessionDriver
from quorker.transport.tls import Tls, TlsPaths

log = logging.getLogger("quorker.transport.client")

GOODBYE_SECONDS: Final = 1.0
MEMBER_SHARE_MS: Final = 900  # of each second: a member gives up sooner than its client, and says why
STUCK_MS: Final = 3_000  # without an answer from this member while something is asked: try another one
TICK_MS_MIN: Final = 5
TICK_MS_MAX: Final = 250
RETRY_TICK_MS: Final = 20
VALUE_ELEMENTS_MAX: Final = requests.REPLY_ELEMENTS_MAX


@dataclass(slots=True, eq=False)
class _Asked:
    """A read under way: asked again at each member until there is a result."""

    record: ClientRequest
    done: trio.Event = field(default_factory=trio.Event)
    result: requests.Answer | Failed | None = None


class Client:
    """Made by `open_client`; satisfies `Connection`."""

    def __init__(self, name: str, default_timeout: float, ttl_ms: int) -> None:
        self.default_timeout = default_timeout
        self.driver = SessionDriver(SessionConfig(name, ttl_ms), self._wake, default_timeout)
        self.route: Route
        self.seen_index = 0  # the newest state of the store that this client has seen anything of
        self._woken = trio.Event()
        self._rearmed = trio.Event()  # there is something to do by the clock, sooner than the timer thought
        self._next_request = 1
        self._asked: dict[int, _Asked] = {}
        self._heard_ms = 0

    # ------------------------------------------------------------------ Connection

    @property
    def session_id(self) -> int:
        """0 until the session is open (and for an observer)."""
        return self.driver.session.session_id

    async def submit(self, command: Command, *, timeout: float | None = None) -> Any:
        if self.driver.session.state is SessionState.CLOSED:
            raise InvalidInput(
                "this connection only observes: open one without observer=True to submit commands"
            )
        return await self.driver.submit(command, timeout)

    def submit_nowait(self, command: Command, resolve: Resolve) -> None:
        self.driver.submit_nowait(command, resolve)

    @property
    def lease_seconds(self) -> float:
        return self.driver.lease_seconds

    async def query(self, name: str, args: dict[str, Any], *, consistency: Consistency = "local") -> Answer:
        packed, linearizable = pack(args), consistency == "linearizable"
        seconds = self.default_timeout

        def query(number: int) -> Query:
            return Query(number, name, packed, linearizable, self.seen_index, int(seconds * MEMBER_SHARE_MS))

        answer = await self._ask(query, seconds)
        value = unpack(answer.value, elements_max=VALUE_ELEMENTS_MAX, finite=False)
        age_ms = UNKNOWN if answer.age_ms == AGE_UNKNOWN else answer.age_ms
        return Answer(value, answer.applied_index, age_ms)

    async def status(self) -> Status:
        """Of the member that this client is connected to."""
        return _status(await self._ask(StatusRequest, self.default_timeout))

    async def wait_finished(self, job_id: str, timeout: float) -> None:
        def wait(number: int) -> Wait:
            return Wait(number, job_id, int(timeout * 1000), self.seen_index)

        with trio.fail_after(timeout):
            await self._ask(wait, timeout + self.default_timeout)

    def worker(
        self, queues: Sequence[str], slots: int, on_cancel: Callable[[int, str], None]
    ) -> AbstractAsyncContextManager[JobReceiver]:
        return self.driver.work(queues, slots, on_cancel)

    # ------------------------------------------------------------------ reads

    async def _ask(self, make: Callable[[int], ClientRequest], seconds: float) -> requests.Answer:
        number = self._next_request
        self._next_request += 1
        asked = self._asked[number] = _Asked(make(number))
        self._note_asking()
        self.route.send(asked.record)
        try:
            with trio.move_on_after(seconds):
                await asked.done.wait()
        finally:
            del self._asked[number]
            if asked.result is None:
                self.route.send(Cancel(number))
        if isinstance(asked.result, requests.Answer):
            return asked.result
        raise _read_error(asked.result, seconds)

    def _note_asking(self) -> None:
        """From here on silence counts."""
        if not self._is_waiting:
            self._heard_ms = monotonic_ms()

    @property
    def _is_waiting(self) -> bool:
        """An answer is due. A wait for a job may rightly take long."""
        session = self.driver.session
        reads = any(not isinstance(asked.record, Wait) for asked in self._asked.values())
        return reads or session.unanswered > 0 or session.state is SessionState.OPENING

    # ------------------------------------------------------------------ tasks

    async def run(self, nursery: trio.Nursery) -> None:
        """Start what keeps this client going; it goes with the nursery."""
        nursery.start_soon(self.route.run)
        nursery.start_soon(self._run_pump)
        nursery.start_soon(self._run_timer)
        await self.route.wait_up(self.default_timeout)

    async def close(self) -> None:
        """Say goodbye, so that leases and locks go back at once instead of when the session expires."""
        if self.driver.session.state is not SessionState.OPEN or not self.route.is_up:
            return
        with trio.move_on_after(GOODBYE_SECONDS, shield=True):
            try:
                await self.driver.submit(CloseSession(), GOODBYE_SECONDS)
            except OperationError as error:
                log.info("the session could not be closed, it will expire: %s", error)

    def _wake(self) -> None:
        self._note_asking()
        self._woken.set()

    async def _run_pump(self) -> None:
        """Whatever was queued in one turn of the loop leaves as one group."""
        while True:
            await self._woken.wait()
            self._woken = trio.Event()
            self._flush()

    def _flush(self) -> None:
        session = self.driver.session
        while self.route.is_up and (group := session.take_group()):
            self.route.send(Submit(self._next_request, group))
            self._next_request += 1

    async def _run_timer(self) -> None:
        session = self.driver.session
        while True:
            wait_ms = min(max(session.next_deadline() - monotonic_ms(), TICK_MS_MIN), TICK_MS_MAX)
            with trio.move_on_after((min(wait_ms, RETRY_TICK_MS) if session.has_unsent else wait_ms) / 1000):
                await self._rearmed.wait()
                self._rearmed = trio.Event()
                await trio.sleep(TICK_MS_MIN / 1000)
            now = monotonic_ms()
            self.driver.tick(now)
            self._flush()
            if self._is_waiting and now - self._heard_ms >= STUCK_MS:
                self._heard_ms = now
                self.route.give_up()

    # ------------------------------------------------------------------ from the route

    def on_up(self) -> None:
        """A new connection: whatever is unanswered may be lost."""
        session = self.driver.session
        self._heard_ms = monotonic_ms()
        session.now_ms = self._heard_ms
        session.on_route_changed()
        if session.state is SessionState.OPEN:
            self.route.send(Attach(session.session_id, self.seen_index))
        for asked in self._asked.values():
            self.route.send(asked.record)
        self._flush()

    def on_records(self, records: list[Speech]) -> None:
        self.driver.session.now_ms = monotonic_ms()
        grants: list[JobGrant] = []
        for record in records:
            match record:
                case Reply():
                    self._on_reply(record)
                case requests.Answer():
                    self._on_result(record)
                    self._saw(record.applied_index)
                case Failed():
                    self._on_failed(record)
                case ProposeRefused():
                    self._on_refused(record)
                case Notice():
                    grants += self._on_notice(record)
                case _:
                    raise ProtocolError(f"a member sent {type(record).__name__}, which answers nothing")
        if grants:
            self.driver.on_grants(grants)

    def _saw(self, index: int) -> None:
        self.seen_index = max(self.seen_index, index)
        self._heard_ms = monotonic_ms()

    def _on_reply(self, reply: Reply) -> None:
        self._saw(reply.applied_index)
        for session_id, seq, value in requests.unpack_replies(reply.replies):
            session = self.driver.session
            if session_id:
                if session_id == session.session_id:
                    self.driver.on_reply(seq, value)
            elif seq == session.nonce:
                self._on_opening_reply(value)
        self._wake()

    def _on_opening_reply(self, reply: list[Any]) -> None:
        if reply[0] != 0:
            log.warning("no session could be opened: %s: %s", reply[1], reply[2])  # asked again after a while
        elif type(reply[1]) is not int or reply[1] <= 0:
            raise ProtocolError("a session was opened without a number")
        else:
            self.driver.on_opened(reply[1])

    def _on_result(self, result: requests.Answer | Failed) -> None:
        asked = self._asked.get(result.request)
        if asked is not None:
            asked.result = result
            asked.done.set()

    def _on_failed(self, failed: Failed) -> None:
        """A read that failed, or a group: that one is sent again, at once or as soon as the member wants it."""
        if failed.request in self._asked:
            self._on_result(failed)
            return
        session = self.driver.session
        if failed.failure in (Failure.NOT_APPLIED, Failure.BUSY):
            session.on_refused((), failed.retry_after_ms)
        session.on_route_changed()
        self._woken.set()
        self._rearmed.set()

    def _on_refused(self, refused: ProposeRefused) -> None:
        session = self.driver.session
        if refused.session == session.session_id or session.nonce in refused.seqs:
            session.on_refused(refused.seqs, refused.retry_after_ms, refused.reason, refused.leader)
            self._rearmed.set()

    def _on_notice(self, notice: Notice) -> list[JobGrant]:
        """Grants are collected, so that a worker hears of all that one wake brought together."""
        if notice.session != self.session_id:
            return []
        payload: Any = unpack(notice.payload)
        match notice.kind:
            case "job":
                return [_grant(payload)]
            case "cancel":
                token, _, reason = list_of(payload, 3)
                if type(token) is not int:
                    raise ProtocolError("a token is not a number")
                self.driver.on_cancel(token, str(reason))
            case "session_closed":
                self.driver.on_lost(str(payload))
            case _:
                pass  # a granted lock is asked for by the ticket of its waiting command
        return []


def _grant(payload: Any) -> JobGrant:
    try:
        return grant_from_wire(payload)
    except BadCommand as error:
        raise ProtocolError(f"a grant cannot be read: {error}") from error


def _read_error(failed: Failed | None, seconds: float) -> OperationError:
    """Reads change nothing, so whatever went wrong, nothing was applied."""
    if failed is None:
        return NotApplied(f"no member answered within {seconds} s")
    error = failed.to_error()
    return error if isinstance(error, NotApplied | Rejected) else NotApplied(str(error))


def _status(answer: requests.Answer) -> Status:
    """Fields that a newer member adds are ignored."""
    values: Any = unpack(answer.value)
    names = [each.name for each in fields(Status)]
    if not isinstance(values, dict):
        raise ProtocolError("a status is not a map")
    known: dict[str, Any] = {name: values[name] for name in names if name in values}
    try:
        known["members"] = tuple(list_of(known["members"]))
        known["learners"] = tuple(list_of(known.get("learners", [])))
        known["followers"] = tuple(tuple(list_of(pair, 2)) for pair in list_of(known.get("followers", [])))
        return Status(**known)
    except (KeyError, TypeError) as error:
        raise ProtocolError(f"a status is incomplete: {error}") from error


@asynccontextmanager
async def open_client(
    addresses: Sequence[str],
    *,
    secret: bytes | None = None,
    tls: TlsPaths | None = None,
    cluster: str | None = None,
    name: str = "client",
    default_timeout: float = 30.0,
    session_ttl: float = 10.0,
    observer: bool = False,
) -> AsyncGenerator[Client]:
    """A client of the members at these addresses: "host:port", or "unix:/path" for a member on this machine.

    `cluster` guards against reaching another one. `session_ttl` in seconds: what this client holds is given to others
    that long after its last sign of life. `observer`: reads only, opens no session, needs no leader. Enters once a member
    has welcomed us. Raises `InvalidInput` or `ConfigurationError` for what cannot work, the reason named by the members
    if all of them refuse, and `NotApplied` when none answers within `default_timeout` seconds.
    """
    if not addresses:
        raise InvalidInput("no address is given: name at least one member")
    parsed = [parse_address(address) for address in addresses]
    secrets = check_secrets(() if secret is None else (secret,))
    credentials = Credentials(secrets, None if tls is None else Tls(tls))
    party = Party(cluster_id=b"" if cluster is None else cluster_id_of(cluster))
    client = Client(name, default_timeout, int(session_ttl * 1000))
    role = Role.OBSERVER if observer else Role.CLIENT
    client.route = Route(parsed, credentials, role, party, name, client.on_records, client.on_up)
    if not observer:
        client.driver.open()
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            await client.run(nursery)
            yield client
            await client.close()
        except Exception as error:  # noqa: BLE001  # raised again below, without the nursery's wrapping
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
