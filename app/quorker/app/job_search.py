"""Looking for jobs by several properties, arguments among them. What must not live here: how rows are shown.

The store looks at a bounded number of jobs per read and says where the next read goes on; a plan here goes on until a page
is full or everything has been looked at. The store compares arguments as bytes; here they are decoded and compared as values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from quorker.app.errors import BadPayload
from quorker.app.gateway import Query
from quorker.app.job_plans import Plan
from quorker.app.payload import DEPTH_MAX, decode_call, encode_result
from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.queries_search import CHANGED, CREATED, NEEDLE_BYTES_MAX, NEEDLES_MAX, ROWS_MAX

TASK_PATTERN: Final = bounds.matching("task", "[A-Za-z0-9_.:*?-]", bounds.TASK_CHARS_MAX)
"""Of a name, or a pattern in which `*` stands for any text and `?` for any one character."""

Row: TypeAlias = dict[str, Any]
Step: TypeAlias = str | int
Names: TypeAlias = Callable[[str], Sequence[str]]
"""The names of a task's positional parameters; () when the task is not known here."""

_PATH: Final = re.compile(r"([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*|\[\d{1,9}\])*)")
_STEP: Final = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+)\]")
_CURSOR: Final = re.compile(rf"({CREATED}|{CHANGED}):(\d{{1,19}})")
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Condition:
    """An argument must be equal to a value. `root`: a parameter's name, or "args"; `steps`: the way into its value."""

    root: str
    steps: tuple[Step, ...]
    value: object

    def needle(self) -> bytes:
        """Bytes that the arguments hold if the condition is met; b"" when no bytes are sure to be there.

        Text and whole numbers are equal to nothing that is packed otherwise.
        """
        value = self.value
        is_sure = isinstance(value, (str, int)) and not isinstance(value, bool)
        packed = encode_result(value, bytes_max=1 << 20) if is_sure else b""
        return packed if len(packed) <= NEEDLE_BYTES_MAX else b""

    def is_met(self, args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str]) -> bool:
        found = self._root(args, kwargs, names)
        for step in self.steps:
            found = _step_into(found, step)
        return _is_equal(found, self.value)

    def _root(self, args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str]) -> Any:
        if self.root in kwargs:
            return kwargs[self.root]
        if self.root in names and names.index(self.root) < len(args):
            return args[names.index(self.root)]
        return args if self.root == "args" else _ABSENT


def _step_into(value: Any, step: Step) -> Any:
    if isinstance(step, int):
        return value[step] if _is_a(list, value) and step < len(value) else _ABSENT
    return value.get(step, _ABSENT) if _is_a(dict, value) else _ABSENT


def _is_a(kind: type, value: object) -> bool:
    return isinstance(value, kind)


def _is_equal(found: Any, value: object) -> bool:
    """Neither true nor 1.0 is 1: they were not the same argument."""
    is_kindred = type(found) is type(value) or not isinstance(value, int)
    return is_kindred and bool(found == value)


def condition(path: str, value: object) -> Condition:
    """Of a path like `user_id`, `order.lines[0].sku` or `args[0]`. Raises `InvalidInput`."""
    found = _PATH.fullmatch(path)
    steps = [name or int(number) for name, number in _STEP.findall(found[2])] if found else []
    if found is None or len(steps) > DEPTH_MAX:
        raise InvalidInput(
            f"{path!r} names no argument: write user_id, order.lines[0].sku, or args[0] for the first positional one"
        )
    return Condition(found[1], tuple(steps), value)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSearch:
    """What is looked for; all that is given must hold. Instants are wall times in ms."""

    states: tuple[str, ...] = ()
    task: str = ""
    queue: str = ""
    tag: str = ""
    error: str = ""
    created_from: int | None = None
    created_until: int | None = None
    changed_from: int | None = None
    changed_until: int | None = None
    where: tuple[Condition, ...] = ()

    def question(self) -> dict[str, Any]:
        """What the store is asked."""
        needles = [needle for each in self.where if (needle := each.needle())]
        return {
            "states": self.states,
            "task": self.task,
            "queue": self.queue,
            "tag": self.tag,
            "error": self.error,
            "created_from": self.created_from,
            "created_until": self.created_until,
            "changed_from": self.changed_from,
            "changed_until": self.changed_until,
            "args_hold": needles[:NEEDLES_MAX],
        }


def search_page(
    search: JobSearch, count: int, after: str = "", names: Names = lambda task: ()
) -> Plan[tuple[list[Row], str]]:
    """Up to `count` jobs that match, newest first, and where the next page begins: "" when there is no further one."""
    question, cursor = search.question(), _read_cursor(after)
    rows: list[Row] = []
    while len(rows) < count:
        found, cursor = yield from _look(search, question, count - len(rows), cursor, names)
        rows += found
        if cursor is None:
            return rows, ""
    return rows, (yield from _proven(search, question, cursor, names))


def _look(
    search: JobSearch, question: dict[str, Any], count: int, cursor: tuple[str, int] | None, names: Names
) -> Plan[tuple[list[Row], tuple[str, int] | None]]:
    page = yield Query("search_jobs", {**question, "count": min(count, ROWS_MAX), "after": cursor})
    rows: list[Row] = []
    for row in page["rows"]:
        is_wanted = not search.where or (yield from _is_met(search.where, row, names(row["task"])))
        rows += [row] if is_wanted else []
    following = page["next"]
    return rows, None if following is None else (following[0], following[1])


def _proven(
    search: JobSearch, question: dict[str, Any], cursor: tuple[str, int] | None, names: Names
) -> Plan[str]:
    """The cursor as text, if a job that matches stands behind it."""
    behind = cursor
    while behind is not None:
        rows, behind = yield from _look(search, question, 1, behind, names)
        if rows and cursor is not None:
            return f"{cursor[0]}:{cursor[1]}"
    return ""


def _is_met(where: Sequence[Condition], row: Row, names: Sequence[str]) -> Plan[bool]:
    """A row that does not hold all of the arguments is asked for again."""
    packed = row["args"]
    if row["args_size"] > len(packed):
        whole = yield Query("job", {"job_id": row["id"]})
        if whole is None:
            return False
        packed = whole["args"]
    try:
        args, kwargs = decode_call(packed)
    except BadPayload:
        return False
    return all(each.is_met(args, kwargs, names) for each in where)


def _read_cursor(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise InvalidInput(f"after {text!r} is no place to go on from: give what the page before it named")
    return found[1], int(found[2])
