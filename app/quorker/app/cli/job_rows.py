"""How jobs are shown: the columns of a table, and their fields in JSON. What must not live here: how they are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from quorker.app.cli.output import Fields, call_text, instant_text, shortened
from quorker.app.errors import BadPayload
from quorker.app.payload import call_values, decode_result

JOB_HEADS: Final = ("JOB", "STATE", "QUEUE", "FAILED", "SINCE (UTC)", "CALL")
CALL_CHARS: Final = 60


def job_cells(row: Fields) -> Sequence[object]:
    """One line of a listing."""
    return (
        row["id"],
        row["state"] or "",
        row["queue"],
        row["failures"],
        instant_text(row["state_wt"]),
        row_call(row),
    )


def row_call(row: Fields) -> str:
    """The call of a row, which may not hold all of its arguments."""
    is_whole = row["args_size"] <= len(row["args"])
    return shortened(call_text(row["task"], row["args"]) if is_whole else row["task"], CALL_CHARS)


def job_fields(row: Fields) -> dict[str, Any]:
    """A row or the details of a job for programs: `args` and `kwargs` as values, both null where the row was cut or what
    was enqueued is no call; `result` as a value."""
    found = dict(row)
    found["args"], found["kwargs"] = call_values(row)
    if "result" in row:
        found["result"] = _result_value(row["result"])
    return found


def _result_value(packed: bytes | None) -> Any:
    try:
        return decode_result(packed or b"")
    except BadPayload:
        return packed
