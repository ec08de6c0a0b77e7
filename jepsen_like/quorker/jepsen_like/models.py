"""What single objects would do if everybody asked them one after another: the specifications that histories are held against.

A state is hashable. `step` gives the state after an operation, or None where it cannot have been answered like that.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

from quorker.jepsen_like.history import Kind, Operation


class Model(Protocol):
    """`keyed`: operations on different keys have nothing to do with each other."""

    keyed: bool

    def start(self) -> Hashable: ...

    def step(self, state: Any, operation: Operation) -> Hashable | None: ...


class Register:
    """One value: `read`, `write(value)`, `cas((old, new))`. A `cas` that failed found another value than its old one.

    The state is a tuple, because None is a value.
    """

    keyed = False

    def start(self) -> Hashable:
        return (None,)

    def step(self, state: Any, operation: Operation) -> Hashable | None:
        known = operation.returned is not None
        match operation.function:
            case "read":
                return state if not known or state == (operation.result,) else None
            case "write":
                return (operation.argument,)
            case "cas":
                return self._compare_and_set(state, operation, known)
            case other:
                raise ValueError(f"a register has read, write and cas, not {other!r}")

    def _compare_and_set(self, state: Any, operation: Operation, known: bool) -> Hashable | None:
        old, new = operation.argument
        matches = state == (old,)
        if known and matches is (operation.result is Kind.FAIL):
            return None
        return (new,) if matches else state


class TextMap:
    """Texts by key, "" at first: `get`, `put(text)`, `append(text)`."""

    keyed = True

    def start(self) -> Hashable:
        return ""

    def step(self, state: Any, operation: Operation) -> Hashable | None:
        match operation.function:
            case "get":
                return state if operation.returned is None or state == operation.result else None
            case "put":
                return str(operation.argument)
            case "append":
                return f"{state}{operation.argument}"
            case other:
                raise ValueError(f"a map of texts has get, put and append, not {other!r}")


class FencedLock:
    """A lock by name: `acquire` -> a token larger than every one before, or None when it is held; `release(token)` -> bool.

    The state is (the holder's token or 0, the largest token ever given). Nothing expires here: histories of locks whose
    holders may lose them belong to the rule of tokens over time instead.
    """

    keyed = True

    def start(self) -> Hashable:
        return (0, 0)

    def step(self, state: Any, operation: Operation) -> Hashable | None:
        holder, largest = state
        match operation.function:
            case "acquire":
                return self._acquire(holder, largest, operation)
            case "release":
                freed = holder == operation.argument
                if operation.returned is not None and operation.result is not freed:
                    return None
                return (0, largest) if freed else state
            case other:
                raise ValueError(f"a lock has acquire and release, not {other!r}")

    def _acquire(self, holder: int, largest: int, operation: Operation) -> Hashable | None:
        if operation.returned is None:
            return None  # a lock in unknown hands could never be given back: leave it out, which is always possible
        if operation.result is None:
            return (holder, largest) if holder else None
        token: int = operation.result
        return (token, token) if not holder and token > largest else None


class JobQueue:
    """Jobs without order: `enqueue(job)`, `fetch` -> a job that waits or None, `acknowledge(job)` -> bool, `requeue(job)` -> bool.

    The state is (jobs that wait, jobs in hand), both frozen sets.
    """

    keyed = False

    def start(self) -> Hashable:
        return (frozenset[Any](), frozenset[Any]())

    def step(self, state: Any, operation: Operation) -> Hashable | None:
        waiting, held = state
        job = operation.argument
        match operation.function:
            case "enqueue":
                return (waiting | {job}, held)
            case "fetch":
                return self._fetch(waiting, held, operation)
            case "acknowledge":
                return self._give_up(state, operation, (waiting, held - {job}))
            case "requeue":
                return self._give_up(state, operation, (waiting | {job}, held - {job}))
            case other:
                raise ValueError(f"a queue has enqueue, fetch, acknowledge and requeue, not {other!r}")

    def _fetch(self, waiting: frozenset[Any], held: frozenset[Any], operation: Operation) -> Hashable | None:
        job = operation.result
        if operation.returned is None:
            return None  # as with locks: what nobody knows to hold was not taken
        if job is None:
            return (waiting, held) if not waiting else None
        return (waiting - {job}, held | {job}) if job in waiting else None

    def _give_up(self, state: Any, operation: Operation, after: Hashable) -> Hashable | None:
        holds = operation.argument in state[1]
        if operation.returned is not None and operation.result is not holds:
            return None
        return after if holds else state
