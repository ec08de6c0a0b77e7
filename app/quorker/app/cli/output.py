"""What commands print: aligned tables for people, JSON for programs. What must not live here: what a job or a queue is."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from quorker.app.errors import BadPayload
from quorker.app.payload import decode_call

Format: TypeAlias = Literal["table", "json", "jsonl"]
Fields: TypeAlias = Mapping[str, Any]


def print_json(value: object, output: Format = "json") -> None:
    """One JSON document, on one line for jsonl; bytes become `{"bytes": hex}`, infinities their names."""
    print(json.dumps(jsonable(value), ensure_ascii=False, indent=2 if output == "json" else None))


def print_rows(
    output: Format, rows: Sequence[Fields], heads: Sequence[str], cells: Callable[[Fields], Sequence[object]]
) -> None:
    """The rows as a table, as one JSON document, or as one a line."""
    if output == "table":
        print_table(heads, [cells(row) for row in rows])
    elif output == "json":
        print_json(rows)
    else:
        for row in rows:
            print_json(row, "jsonl")


def jsonable(value: Any) -> Any:
    """The value in the vocabulary of JSON."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in _items(value)}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in _each(value)]
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return repr(value)


def _items(value: Any) -> Sequence[tuple[Any, Any]]:
    return list(value.items())


def _each(value: Any) -> Sequence[Any]:
    return list(value)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns aligned by their widest cell; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    to_right = [
        bool(rows) and all(isinstance(cell, int) for cell in column) for column in zip(*rows, strict=True)
    ]
    for row in [list(heads), *cells]:
        aligned = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, to_right or [False] * len(heads), strict=True)
        ]
        print("  ".join(aligned).rstrip())


def print_note(text: str) -> None:
    """A line for people beside the output, on stderr, behind what was printed so far."""
    sys.stdout.flush()
    print(f"quorker: {text}", file=sys.stderr, flush=True)


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """One name and value a line."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"{name.ljust(width)}  {value}")


def call_text(task: str, args: bytes) -> str:
    """A job's call as Python would write it: `send_welcome(42, subject='x')`."""
    try:
        positional, keyword = decode_call(args)
    except BadPayload:
        return f"{task}(<{len(args)} bytes that are no arguments>)"
    shown = [repr(value) for value in positional] + [f"{name}={value!r}" for name, value in keyword.items()]
    return f"{task}({', '.join(shown)})"


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def duration_text(ms: int) -> str:
    """How long, roughly: 350 ms, 12 s, 4 min, 3 h, 2 d."""
    if ms < 1000:
        return f"{ms} ms"
    sizes = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"))
    size, unit = next((size, unit) for size, unit in sizes if ms >= size)
    return f"{ms // size} {unit}"


def instant_text(wall_ms: int) -> str:
    """An instant in UTC, to the second; "" for 0."""
    if not wall_ms:
        return ""
    return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
