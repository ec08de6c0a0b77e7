"""Is there an order, within what clients saw of time, in which one object alone could have given all these answers?

The search of Wing and Gong with Lowe's memory: take any operation that no unplaced one precedes, go on, and come back when
stuck; a set of placed operations with a state that has been seen before leads nowhere new. Histories of independent keys
are judged key by key (Horn and Kroening). Sets of operations are bits of an integer.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from quorker.jepsen_like.history import Operation
from quorker.jepsen_like.models import Model

STEPS_MAX: Final = 3_000_000
END: Final = -1


class Verdict(StrEnum):
    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNKNOWN = "unknown"  # the search was given up: never to be read as good


@dataclass(frozen=True, slots=True)
class Judgement:
    """`placed`: the longest order found; `stuck` what could not be placed next, when the verdict is bad. Of one key."""

    verdict: Verdict
    steps: int
    key: Hashable = None
    placed: tuple[Operation, ...] = ()
    stuck: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        if self.verdict is not Verdict.NOT_LINEARIZABLE:
            return str(self.verdict)
        of = "" if self.key is None else f" for key {self.key!r}"
        last = f"after {self.placed[-1]}, " if self.placed else "at the beginning, "
        return f"not linearizable{of}: {last}none of these fits: {'; '.join(map(str, self.stuck))}"


def judge(history: Sequence[Operation], model: Model, *, steps_max: int = STEPS_MAX) -> Judgement:
    """The worst judgement over all keys; the first bad key ends the search. `steps_max` bounds each key's search."""
    worst, steps = Judgement(Verdict.LINEARIZABLE, 0), 0
    for key, part in _parts(history, model).items():
        found = _Search(part, model, steps_max).run(key)
        steps += found.steps
        if found.verdict is Verdict.NOT_LINEARIZABLE:
            return Judgement(found.verdict, steps, key, found.placed, found.stuck)
        if found.verdict is Verdict.UNKNOWN:
            worst = found
    return Judgement(worst.verdict, steps, worst.key)


def _parts(history: Sequence[Operation], model: Model) -> dict[Hashable, list[Operation]]:
    parts: dict[Hashable, list[Operation]] = {}
    for operation in history:
        parts.setdefault(operation.key if model.keyed else None, []).append(operation)
    return parts


class _Search:
    """One key's search. Events are calls and returns in order of time, in a doubly linked list over arrays.

    Event 0 is before the first. An operation without a return has only its call: it need not be placed at all.
    """

    def __init__(self, operations: list[Operation], model: Model, steps_max: int) -> None:
        self._model = model
        self._operations = operations
        self._steps_max = steps_max
        events = sorted(
            [(operation.called, 0, number) for number, operation in enumerate(operations)]
            + [
                (operation.returned, 1, number)
                for number, operation in enumerate(operations)
                if operation.returned is not None
            ]
        )
        self._number = [END, *(number for _, _, number in events)]
        self._is_return = [False, *(bool(kind) for _, kind, _ in events)]
        self._next = [*range(1, len(events) + 1), END]
        self._previous = [END, *range(len(events))]
        self._call_of = {number: at for at, (_, kind, number) in enumerate(events, 1) if not kind}
        self._return_of = {number: at for at, (_, kind, number) in enumerate(events, 1) if kind}
        self._unreturned = len(self._return_of)
        self._twins = self._twins_before()

    def run(self, key: Hashable) -> Judgement:
        step, operations = self._model.step, self._operations
        following, number_of, is_return = self._next, self._number, self._is_return
        state, placed, steps = self._model.start(), 0, 0
        seen: set[tuple[int, Hashable]] = {(0, state)}
        path: list[tuple[int, Hashable]] = []
        longest: tuple[list[int], int] = ([], following[0])
        at = following[0]
        while self._unreturned:
            if is_return[at]:  # nothing before this return could be placed: go back
                if len(path) >= len(longest[0]):
                    longest = ([number for number, _ in path], at)
                if not path:
                    return self._bad(key, steps, longest)
                number, state = path.pop()
                placed ^= 1 << number
                self._put_back(number)
                at = following[self._call_of[number]]
                continue
            steps += 1
            if steps > self._steps_max:
                return Judgement(Verdict.UNKNOWN, steps, key)
            number = number_of[at]
            after = step(state, operations[number])
            twins = self._twins.get(number)
            if twins is not None and (after == state or placed & twins != twins):
                after = None
            if after is not None and (entry := (placed | 1 << number, after)) not in seen:
                seen.add(entry)
                path.append((number, state))
                placed, state = entry
                self._take_out(number)
                at = following[0]
            else:
                at = following[at]
        return Judgement(Verdict.LINEARIZABLE, steps, key)

    def _twins_before(self) -> dict[int, int]:
        """Of each operation with an unknown outcome: the equal ones that were called before it.

        They need not be placed where they change nothing, and of equal ones the first may always be the first.
        """
        twins: dict[int, int] = {}
        alike: dict[tuple[str, Hashable], int] = {}
        for number, operation in enumerate(self._operations):
            if operation.returned is None:
                what = (operation.function, operation.argument)
                twins[number] = alike.get(what, 0)
                alike[what] = twins[number] | 1 << number
        return twins

    def _bad(self, key: Hashable, steps: int, longest: tuple[list[int], int]) -> Judgement:
        """What could be placed, and what was open where nothing went on: called, and not placed, before the return."""
        numbers, at = longest
        placed = tuple(self._operations[number] for number in numbers)
        open_ones = [
            operation
            for number, operation in enumerate(self._operations)
            if number not in set(numbers) and self._call_of[number] < at
        ]
        return Judgement(Verdict.NOT_LINEARIZABLE, steps, key, placed, tuple(open_ones))

    def _take_out(self, number: int) -> None:
        self._unlink(self._call_of[number])
        returned = self._return_of.get(number)
        if returned is not None:
            self._unlink(returned)
            self._unreturned -= 1

    def _put_back(self, number: int) -> None:
        returned = self._return_of.get(number)
        if returned is not None:
            self._unreturned += 1
            self._link(returned)
        self._link(self._call_of[number])

    def _unlink(self, at: int) -> None:
        before, after = self._previous[at], self._next[at]
        self._next[before] = after
        if after != END:
            self._previous[after] = before

    def _link(self, at: int) -> None:
        before, after = self._previous[at], self._next[at]
        self._next[before] = at
        if after != END:
            self._previous[after] = at
