"""An exception as bounded text: what goes into the store when an attempt fails. What must not live here: the decision
whether to retry."""

from __future__ import annotations

import traceback
from typing import Final, NamedTuple

KIND_CHARS_MAX: Final = 200
MESSAGE_CHARS_MAX: Final = 1_000
TRACE_BYTES_MAX: Final = 16 * 1024
TYPES_MAX: Final = 8
_CUT: Final = "\n... cut ...\n"


class Failure(NamedTuple):
    """An exception as text. `error_types`: its class, then the bases of it, most specific first."""

    error_types: tuple[str, ...]
    message: str
    trace: str

    @property
    def kind(self) -> str:
        """The name of the exception's own class, bounded as the store wants it."""
        return self.error_types[0][:KIND_CHARS_MAX]


def describe(error: BaseException) -> Failure:
    """The text of an exception. A group of one counts as its only member, as trio's nurseries make them."""
    error = sole_member(error)
    return Failure(type_names(type(error)), _message_of(error), _trace_of(error))


def type_names(kind: type[BaseException]) -> tuple[str, ...]:
    """Names by which retry rules find an exception type: `ValueError`, `requests.exceptions.Timeout`, bases after it."""
    bases = [base for base in kind.__mro__ if issubclass(base, BaseException)]
    return tuple(qualified_name(base) for base in bases[:TYPES_MAX])


def qualified_name(kind: type) -> str:
    if kind.__module__ in ("builtins", "__main__", "__mp_main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def sole_member(error: BaseException) -> BaseException:
    """The only exception in a group of one, at any depth; other exceptions as they are."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group: BaseExceptionGroup[BaseException] = error  # pyright: ignore[reportUnknownVariableType]  # narrowed to Unknown
    return sole_member(group.exceptions[0]) if len(group.exceptions) == 1 else group


def _message_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001  # user code runs in __str__
        text = f"<its message cannot be shown: {type(broken).__name__}>"
    return _clean(text)[:MESSAGE_CHARS_MAX]


def _trace_of(error: BaseException) -> str:
    """The newest `TRACE_BYTES_MAX` bytes matter most: the end says what was raised and where."""
    text = _clean("".join(traceback.format_exception(error)))
    data = text.encode()
    if len(data) <= TRACE_BYTES_MAX:
        return text
    head, tail = TRACE_BYTES_MAX // 4, TRACE_BYTES_MAX - TRACE_BYTES_MAX // 4 - len(_CUT)
    return data[:head].decode(errors="ignore") + _CUT + data[-tail:].decode(errors="ignore")


def _clean(text: str) -> str:
    """Lone surrogates (from undecodable file names, say) cannot be stored."""
    return text.encode(errors="backslashreplace").decode()
