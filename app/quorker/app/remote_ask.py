"""What a task in a worker process asks of the store, as data on its pipe, and the answers to it. What must not live here:
the pipe itself (`child.py`, `children.py`)."""

from __future__ import annotations

from typing import Any, Final

from quorker.app.errors import JobPending, LockTimeout
from quorker.app.gateway import Ask, AskStatus, Gateway, HoldLock, Query, Submit, TakeLock, WaitFinished
from quorker.app.lock_line import LockWish
from quorker.core.errors import Busy, InvalidInput, NotApplied, ProtocolError, QuorkerError, Rejected, Unknown
from quorker.core.jobs.commands import decode, encode
from quorker.core.wire.records import list_of

_ERRORS: Final[dict[str, type[QuorkerError]]] = {
    kind.__name__: kind for kind in (Busy, NotApplied, Unknown, Rejected, JobPending, LockTimeout)
}


def ask_to_wire(ask: Ask) -> list[Any]:
    match ask:
        case Submit(command, timeout):
            return ["submit", encode(command), timeout]
        case Query(name, args, consistency):
            return ["query", name, args, consistency]
        case WaitFinished(job_id, timeout):
            return ["wait", job_id, timeout]
        case TakeLock(wish):
            return _lock_to_wire(wish)
        case AskStatus() | HoldLock():
            raise ProtocolError(f"a worker process cannot ask for {type(ask).__name__}: ask on the node")


def _lock_to_wire(wish: LockWish) -> list[Any]:
    if not wish.ttl_ms:
        raise InvalidInput(
            f"a worker process may be killed while it holds {wish.resource}: give a ttl, after which the "
            f"lock is free whatever happens: app.lock({wish.resource!r}, ttl=60)"
        )
    return ["lock", *wish]


def ask_from_wire(wire: Any) -> Ask:
    """Raises `ProtocolError` or `BadCommand` for what `ask_to_wire` cannot have made."""
    match wire:
        case ["submit", command, timeout]:
            return Submit(decode(command), timeout)
        case ["query", str(name), args, "local" | "linearizable" as consistency]:
            return Query(name, args, consistency)
        case ["wait", str(job_id), timeout]:
            return WaitFinished(job_id, timeout)
        case ["lock", str(resource), int(ttl_ms), timeout] if ttl_ms > 0:
            return TakeLock(LockWish(resource, ttl_ms, timeout))
        case _:
            raise ProtocolError("a worker process asked for something unknown")


async def answer_ask(gateway: Gateway, wire: Any) -> list[Any]:
    """Carry out an ask: `["value", value]` or `["error", kind, arguments]`."""
    try:
        return ["value", await gateway.request(ask_from_wire(wire))]
    except Exception as error:  # noqa: BLE001  # raised again in the worker process
        known = type(error).__name__ in _ERRORS
        return ["error", *((type(error).__name__, list(error.args)) if known else ("", [str(error)]))]


def settle_answer(answer: Any) -> Any:
    """The value of an answer, or its error raised here."""
    match answer:
        case ["value", value]:
            return value
        case ["error", str(kind), arguments]:
            raise _ERRORS.get(kind, QuorkerError)(*list_of(arguments))
        case _:
            raise ProtocolError("the node gave a worker process no proper answer")
