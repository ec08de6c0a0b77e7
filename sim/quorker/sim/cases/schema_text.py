"""The schema of scenario files as text for docs/scenarios.md, made from the dataclasses themselves.

`python -m quorker.sim.cases.schema_text` writes it into the document named on the line; a test compares the two. What a key
means is the comment at its field.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import MISSING, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from quorker.sim.cases.case import Case, FaultKind, OpKind, Point, Target
from quorker.sim.cases.data import CHOICES, Slot, slots_of
from quorker.sim.cases.options import unit_of_amount
from quorker.sim.cases.scenario import Expect, Seeds

BEGIN: Final = "<!-- schema: begin -->\n"
END: Final = "<!-- schema: end -->\n"
_COMMENT: Final = re.compile(r"^ +(\w+)(?:: [^=#\n]+)?(?: = [^#\n]*)? *# *(.+)$", re.MULTILINE)


def schema_text() -> str:
    """All tables and words of a scenario file, in markdown."""
    parts = ["".join(_table_text("", Case))]
    nested = [("seeds", Seeds), ("expect", Expect), *_nested(Case)]
    parts.extend("".join(_table_text(key, cls)) for key, cls in nested)
    parts.extend("".join(_words_text(words)) for words in (FaultKind, Target, Point, OpKind))
    return "\n".join(parts)


def written_into(document: str) -> str:
    """The document with the schema of today between its two marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{schema_text()}\n{END}{after}"


def _nested(cls: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    for slot in slots_of(cls):
        inner = _dataclass_in(slot.kind)
        if inner is not None:
            yield slot.key, inner


def _dataclass_in(kind: Any) -> type[Any] | None:
    for each in (kind, *get_args(kind)):
        if isinstance(each, type) and is_dataclass(each):
            return each
    return None


def _table_text(key: str, cls: type[Any]) -> Iterator[str]:
    listed = key and any(slot.key == key and get_origin(slot.kind) is tuple for slot in slots_of(Case))
    title = f"`[[{key}]]`" if listed else f"`[{key}]`" if key else "At the top"
    yield f"### {title}\n\n"
    if key:
        yield _own_docstring(cls)
    yield "| key | value | default | |\n|---|---|---|---|\n"
    comments = dict(_COMMENT.findall(inspect.getsource(cls)))
    for slot in slots_of(cls):
        yield f"| `{slot.key}` | {_value_text(slot)} | {_default_text(slot)} | {comments.get(slot.attribute, '')} |\n"


def _own_docstring(cls: type[Any]) -> str:
    """What somebody wrote about it; dataclasses make up a docstring when nobody did."""
    text = " ".join((vars(cls).get("__doc__") or "").split())
    return "" if not text or text.startswith(f"{cls.__name__}(") else f"{text}\n\n"


def _value_text(slot: Slot) -> str:
    kind = slot.kind
    if get_origin(kind) is types.UnionType or _dataclass_in(kind) is not None:
        return "tables, below" if get_origin(kind) is tuple else "a table, below"
    if get_origin(kind) is tuple:
        return "a list of texts"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return (
            f"a word of `{kind.__name__}`"
            if len(kind) > 3
            else " or ".join(f'`"{each.value}"`' for each in kind)
        )
    if kind is bool:
        return "`true` or `false`"
    if kind is str:
        return ", ".join(f'`"{each}"`' for each in CHOICES.get(slot.key, [])) or "a text"
    return slot.unit.hint


def _default_text(slot: Slot) -> str:
    if slot.key == "seed":
        return "`0`"
    if slot.default is MISSING:
        return "must be given"
    if slot.default is None or slot.default == () or is_dataclass(slot.default):
        return "none" if slot.default is None else ""
    if isinstance(slot.default, bool):
        return f"`{str(slot.default).lower()}`"
    if isinstance(slot.default, Enum):
        return f'`"{slot.default.value}"`'
    if isinstance(slot.default, str):
        return f'`"{slot.default}"`'
    return f"`{_literal(slot.unit.write(slot.default))}`"


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _words_text(words: type[Enum]) -> Iterator[str]:
    yield f"### Words of `{words.__name__}`\n\n{_own_docstring(words)}"
    yield "| word | |\n|---|---|\n"
    comments = dict(_COMMENT.findall(inspect.getsource(words)))
    for word in words:
        amount = unit_of_amount(word)
        hint = "" if amount is None else f" (`amount`: {amount.hint})"
        yield f'| `"{word.value}"` | {comments.get(word.name, "")}{hint} |\n'


def main() -> None:
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(written_into(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
