"""Bugs of a client: what it repeats, what it tells its caller, and how long it believes to hold something."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # no stubs are published

from quorker.core import session as client_session
from quorker.core.errors import NotApplied, QuorkerError
from quorker.core.jobs.commands import Command, EnqueueJobs, JobGrant
from quorker.core.session import ClientSession, Pending, SessionState
from quorker.core.worker import Worker
from quorker.sim.clients.client import SimClient
from quorker.sim.mutants.cases import busy, cut_off, lagging, napping
from quorker.sim.mutants.mutant import Mutant, Patch, always, bug, defined_in
from quorker.sim.world.wire import ForwardRefused

_codec: Any = msgpack
OVERLAP: Final = ("no overlap [T3]",)
DISHONEST: Final = ("honest refusal [C3]",)
ONCE: Final = ("applied once [C2]",)


@bug(
    "A holder goes on after its lease may have ended.",
    known="Hangfire.Raft: lost locks are not reported to the holder",
    oracles=OVERLAP,
    budget=40,
    case=cut_off,
)
def holders_do_not_stop(patch: Patch) -> None:
    patch.replace(client_session, "LEASE_SHARE", 3.0)


@bug(
    "What is left when the session is lost goes on running.",
    oracles=OVERLAP,
    budget=20,
    case=cut_off,
)
def jobs_outlive_their_session(patch: Patch) -> None:
    patch.replace(Worker, "give_up", always([]))


@bug(
    "A member that catches up starts jobs that others hold by now.",
    known="this client, before it compared grants with its lease",
    oracles=OVERLAP,
    budget=150,
    case=cut_off,
)
def old_grants_are_started(patch: Patch) -> None:
    patch.replace(SimClient, "is_news_too_old", property(always(False)))


@bug(
    "A lease counts from the moment of the answer, not from that of the request.",
    known="etcd clients, Redlock",
    oracles=OVERLAP,
    budget=20,
    case=napping,
)
def leases_count_from_the_answer(patch: Patch) -> None:
    def on_reply(self: ClientSession, seq: int, reply: Any) -> None:
        unanswered = self.unanswered
        take(self, seq, reply)
        if self.unanswered < unanswered and self.state is SessionState.OPEN:
            self._renewed_ms = self.now_ms  # pyright: ignore[reportPrivateUsage]  # the bug

    take = patch.replace(ClientSession, "on_reply", on_reply)


@bug(
    "A lease counts from the last repetition of a request, although the answer may be to the first.",
    known="this session, before it remembered when it had first asked",
    oracles=OVERLAP,
    budget=450,
    case=cut_off,
)
def leases_count_from_the_last_repeat(patch: Patch) -> None:
    def on_reply(self: Any, seq: int, reply: Any) -> None:
        pending = self._outstanding.get(seq)
        if pending is not None:
            pending.first_sent_ms = pending.last_sent_ms
        take(self, seq, reply)

    take = patch.replace(ClientSession, "on_reply", on_reply)


@bug(
    "A grant that arrives twice is started twice.",
    known="at-least-once delivery without a memory",
    oracles=("started once",),
    budget=20,
    case=busy,
)
def grants_are_started_twice(patch: Patch) -> None:
    def on_granted(self: Worker, grants: Iterable[JobGrant]) -> list[JobGrant]:
        started = list(grants)
        self.running.update((grant.token, grant) for grant in started)
        return started

    patch.replace(Worker, "on_granted", on_granted)


@bug(
    "A grant that comes after a newer one is taken for one that was seen before.",
    known="this worker: what a snapshot had skipped was told last, and never begun",
    oracles=("liveness",),
    budget=150,
    case=lagging,
)
def late_grants_are_dropped(patch: Patch) -> None:
    def on_granted(self: Any, grants: Iterable[JobGrant]) -> Any:
        return begin(self, [grant for grant in grants if grant.token > max(self._seen, default=0)])

    begin = patch.replace(Worker, "on_granted", on_granted)


@bug(
    "A request without an answer is said not to have been applied.",
    known="a timeout taken for a failure",
    oracles=DISHONEST,
    budget=40,
    case=busy,
)
def unknown_outcomes_are_called_failures(patch: Patch) -> None:
    def gave_up(_: Pending) -> QuorkerError:
        return NotApplied("it was too slow, so it cannot have happened")

    patch.replace(client_session, "_gave_up", gave_up)


@bug(
    "One refusal speaks for all copies of a request.",
    known="this session, before it counted what it had sent",
    oracles=DISHONEST,
    budget=40,
    case=busy,
)
def one_refusal_speaks_for_all_copies(patch: Patch) -> None:
    def on_refused(self: Any, seqs: Iterable[int], retry_after_ms: int, reason: str, leader: int) -> None:
        seqs = list(seqs)
        for pending in [self._outstanding[seq] for seq in seqs if seq in self._outstanding]:
            pending.unsure = 1
        refuse(self, seqs, retry_after_ms, reason, leader)

    refuse = patch.replace(ClientSession, "on_refused", on_refused)


@bug(
    "What was under way when the session ended is said not to have been applied.",
    known="Hangfire.Raft during a loss of quorum",
    oracles=DISHONEST,
    budget=40,
    case=cut_off,
)
def lost_sessions_deny_everything(patch: Patch) -> None:
    def unknown(reason: str) -> QuorkerError:
        return NotApplied(reason)

    patch.replace(client_session, "Unknown", unknown)


@bug(
    "A request is repeated as a new one.",
    known="Hangfire.Raft: a retry has a command id of its own",
    oracles=(*ONCE, "answers have a place [C1]"),
    budget=40,
    case=busy,
)
def repeats_are_new_commands(patch: Patch) -> None:
    def send_again(self: Any, seqs: Iterable[int]) -> None:
        for pending in [self._outstanding[seq] for seq in list(seqs) if seq in self._outstanding]:
            if pending.first_sent_ms >= 0 and pending not in self._unsent:
                _, command = _codec.unpackb(pending.body)
                del self._outstanding[pending.seq]
                pending.seq = self._next_seq
                pending.body = _codec.packb((pending.seq, command))
                self._next_seq += 1
                self._outstanding[pending.seq] = pending
                self._unsent.append(pending)

    patch.replace(ClientSession, "_send_again", send_again)


@bug(
    "What was under way when a session ended is asked for again in the next one.",
    known="Kafka producers before transactions",
    oracles=ONCE,
    budget=150,
    case=cut_off,
)
def new_sessions_repeat_what_is_unknown(patch: Patch) -> None:
    def on_lost(self: Any, reason: str) -> None:
        if self.state is not SessionState.LOST:
            self.state, self.lost_reason = SessionState.LOST, reason
            self._send_again(list(self._outstanding))

    patch.replace(ClientSession, "on_lost", on_lost)


@bug(
    "The client says that it has seen all answers, also those that are still under way.",
    oracles=(*DISHONEST, *ONCE, "liveness"),
    budget=200,
    case=busy,
)
def unseen_answers_are_acknowledged(patch: Patch) -> None:
    def forget(self: Any, seq: int) -> None:
        settle(self, seq)
        self._answered_below = max([self._answered_below, *(each for each in self._outstanding)])

    settle = patch.replace(ClientSession, "_forget", forget)


@bug(
    "A client that is refused asks again at once, and again.",
    known="unbounded retry storms",
    oracles=("event budget",),
    budget=20,
    case=busy,
)
def refusals_are_not_waited_out(patch: Patch) -> None:
    def on_refused(self: Any, refused: ForwardRefused, leader: int) -> None:
        take(self, replace(refused, retry_after_ms=-1), leader)
        self._flush()

    take = patch.replace(SimClient, "on_refused", on_refused)


@bug(
    "Arguments are sent without their last byte.",
    known="an offset by one in a hand-made encoding",
    oracles=("no job from nowhere [J2]",),
    budget=10,
    case=busy,
)
def arguments_are_cut_short(patch: Patch) -> None:
    def encode_shortened(command: Command) -> Any:
        if isinstance(command, EnqueueJobs):
            shortened = tuple(job._replace(args=job.args[:-1]) for job in command.jobs)
            command = replace(command, jobs=shortened)
        return encode(command)

    encode = patch.replace(client_session, "encode", encode_shortened)


@bug(
    "The number of a command that was given up is given to the next one, which gets the answer to the former.",
    known="HTTP clients that reuse a connection after a timeout; correlation ids that are used again",
    oracles=("real time [C1]",),
    budget=100,
    case=busy,
)
def numbers_are_used_again(patch: Patch) -> None:
    def settle_and_go_back(self: Any, pending: Pending, error: QuorkerError) -> None:
        settle(self, pending, error)
        if self.state is SessionState.OPEN and pending.seq == self._next_seq - 1:
            self._next_seq = pending.seq
            self._answered_below = min(self._answered_below, pending.seq)

    settle = patch.replace(ClientSession, "_settle", settle_and_go_back)


MUTANTS: Final[tuple[Mutant, ...]] = defined_in(globals())
