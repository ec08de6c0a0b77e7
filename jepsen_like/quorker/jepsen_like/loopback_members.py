"""Members that agree because they share one store in this process: what a client talks to in tests of the client.

Each has a real listener on loopback, can be stopped, and can misbehave on purpose.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import trio

from quorker.core.jobs.commands import JobGrant
from quorker.core.jobs.dispatch import held_grants
from quorker.core.jobs.new_job import grant_to_wire
from quorker.core.jobs.outcome import Outcome
from quorker.core.jobs.store import JobStore
from quorker.core.wire import requests
from quorker.core.wire.frames import WireLimits
from quorker.core.wire.records import pack, unpack
from quorker.core.wire.requests import (
    Answer,
    Attach,
    Cancel,
    ClientRequest,
    Notice,
    ProposeRefused,
    Query,
    Reply,
    StatusRequest,
    Submit,
    Wait,
)
from quorker.core.wire.roster import Roster
from quorker.jepsen_like.loopback import CLUSTER, Recorder, host_of_node, party_of
from quorker.transport.endpoint import Endpoint
from quorker.transport.greeting import Credentials
from quorker.transport.hosting import group_names
from quorker.transport.listener import ClientLink, Listener
from quorker.transport.sockets import open_tcp

RETRY_MS = 5


class Mood(Enum):
    """What a member does with a group of commands."""

    SERVE = "apply it and answer"
    MUTE = "apply it and say nothing"
    REFUSE = "refuse it: no leader"
    DEAF = "do nothing"


class Members:
    """`count` members over one store. `hosts`: which connection speaks for a session."""

    def __init__(self, count: int, *secrets: bytes) -> None:
        self.store = JobStore()
        self.hosts: dict[int, ClientLink] = {}
        self.all = [Member(self, node, secrets) for node in range(1, count + 1)]

    async def start(self, nursery: trio.Nursery) -> None:
        for member in self.all:
            await member.start(nursery)

    @property
    def addresses(self) -> list[str]:
        return [str(member.endpoint) for member in self.all]

    def apply(self, group: bytes, later_ms: int = 0) -> Outcome:
        """One more entry of the log, which all have at once."""
        store = self.store
        entry = pack((store.lt + 1 + later_ms, store.wt + 1 + later_ms, [group]))
        return store.apply(store.applied_index + 1, entry)

    def pass_time(self, later_ms: int) -> None:
        """Whatever is due then happens, and everybody concerned hears of it."""
        nothing: list[object] = []
        self.apply(pack((0, 0, nothing)), later_ms)
        while due := self.store.due(self.store.lt, self.store.wt):
            self.tell(self.apply(pack((0, 0, [(0, command) for command in due]))))

    def tell(self, outcome: Outcome, opener: ClientLink | None = None) -> None:
        for session, seq, reply in outcome.replies:
            host = self.hosts.get(session) if session else opener
            if not session and opener is not None and reply[0] == 0:
                self.hosts[reply[1]] = opener
            if host is not None:
                host.send(Reply(self.store.applied_index, requests.pack_replies([(session, seq, reply)])))
        for notice in outcome.notices:
            if notice.session in self.hosts:
                payload: Any = notice.payload
                packed = pack(grant_to_wire(payload) if isinstance(payload, JobGrant) else payload)
                self.hosts[notice.session].send(Notice(notice.session, notice.kind, packed))


class Member(Recorder):
    """One of them, as the handler of its own listener."""

    def __init__(self, members: Members, node: int, secrets: tuple[bytes, ...]) -> None:
        super().__init__()
        self.mood = Mood.SERVE
        self.node = node
        self.endpoint = Endpoint("127.0.0.1", 0)
        self.waits: list[tuple[ClientLink, Wait]] = []
        self._members = members
        credentials = Credentials(secrets, None, WireLimits())
        roster = Roster(party_of(node), None)
        self._listener = Listener(party_of(node), credentials, roster, self, host_of_node)
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()

    async def start(self, nursery: trio.Nursery, *listeners: trio.abc.Listener[Any]) -> None:
        """Listen; after a stop on the same port again. On these listeners, if given."""
        opened: tuple[trio.abc.Listener[Any], ...] = listeners
        if not opened:
            self.endpoint, found = await open_tcp(self.endpoint)
            opened = tuple(found)
        self._scope, self._stopped = trio.CancelScope(), trio.Event()

        async def serve(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            with self._scope:
                await self._listener.serve(opened, private=bool(listeners), task_status=task_status)
            self._stopped.set()

        await nursery.start(serve)

    async def stop(self) -> None:
        self._scope.cancel()
        await self._stopped.wait()

    def on_client_requests(self, client: ClientLink, requests: list[ClientRequest]) -> None:
        super().on_client_requests(client, requests)
        for request in requests:
            self._on_request(client, request)

    def _on_request(self, client: ClientLink, request: ClientRequest) -> None:
        members = self._members
        match request:
            case Submit(_, group):
                self._on_submit(client, group)
            case Attach(session, _):
                members.hosts[session] = client
                self._repeat(client, session)
            case Query(number, name, args, _, _, _) if self.mood is not Mood.DEAF:
                value = members.store.query(name, unpack(args))
                client.send(Answer(number, members.store.applied_index, 7, pack(value)))
            case StatusRequest(number) if self.mood is not Mood.DEAF:
                client.send(Answer(number, members.store.applied_index, 0, pack(self.status())))
            case Wait():
                self.waits.append((client, request))
            case Query() | StatusRequest() | Cancel():
                pass

    def _on_submit(self, client: ClientLink, group: bytes) -> None:
        session, seqs = group_names(group)
        if session:
            self._members.hosts[session] = client
        if self.mood is Mood.REFUSE:
            client.send(ProposeRefused(session, seqs, "NO_LEADER", 0, RETRY_MS))
        elif self.mood is not Mood.DEAF:
            outcome = self._members.apply(group)
            if self.mood is Mood.SERVE:
                self._members.tell(outcome, client)

    def _repeat(self, client: ClientLink, number: int) -> None:
        store = self._members.store
        session = store.sessions.get(number)
        if session is None:
            client.send(Notice(number, "session_closed", pack("it has ended")))
            return
        for grant in held_grants(store, session):
            client.send(Notice(number, "job", pack(grant_to_wire(grant))))

    def finish_waits(self) -> None:
        """Every job that somebody waits for here has ended."""
        for client, wait in self.waits:
            client.send(Answer(wait.request, self._members.store.applied_index, 0, pack(None)))
        self.waits.clear()

    def status(self) -> dict[str, Any]:
        index = self._members.store.applied_index
        return {
            "node_id": self.node,
            "cluster_id": CLUSTER.hex(),
            "role": "leader",
            "term": 1,
            "leader": 1,
            "members": [1, 2, 3],
            "commit_index": index,
            "applied_index": index,
            "last_index": index,
            "lag": 0,
            "leader_contact_age_ms": None,
            "faulted": "",
            "something of a later version": True,
        }
