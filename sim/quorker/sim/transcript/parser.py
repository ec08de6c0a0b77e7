"""Transcripts as text: a directive, its input, `----`, what must come out, a blank line.

The grammar of etcd's data-driven test files. Nothing here knows what a directive means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

FENCE: Final = "----"
_ARGUMENT: Final = re.compile(r"(?P<key>[^\s=]+)(?:=(?:\((?P<list>[^)]*)\)|(?P<value>\S*)))?")


class TranscriptError(Exception):
    """A transcript, or a directive in it, that cannot be run."""


@dataclass(frozen=True, slots=True)
class Argument:
    """`key`, `key=value` or `key=(value,value)`."""

    key: str
    values: tuple[str, ...] = ()

    def one(self) -> str:
        """The only value."""
        if len(self.values) != 1:
            raise TranscriptError(f"{self.key} needs exactly one value, not {self.values}")
        return self.values[0]

    def flag(self) -> bool:
        return self.one() == "true"

    def integers(self) -> tuple[int, ...]:
        return tuple(int(value) for value in self.values)


@dataclass(frozen=True, slots=True)
class Directive:
    """One block of a transcript. `head` is its first line as written, `line` where that stands (from 1)."""

    name: str
    arguments: tuple[Argument, ...]
    input: str
    expected: str
    head: str
    line: int

    def positionals(self) -> tuple[str, ...]:
        """The arguments without a value, in order."""
        return tuple(argument.key for argument in self.arguments if not argument.values)

    def integer(self, position: int) -> int:
        """The positional argument at `position`, as a number."""
        found = self.positionals()
        if position >= len(found) or not found[position].isdecimal():
            raise TranscriptError(f"argument {position + 1} must be a number")
        return int(found[position])

    def named(self) -> tuple[Argument, ...]:
        """The arguments with a value, in order."""
        return tuple(argument for argument in self.arguments if argument.values)

    def get(self, key: str) -> Argument | None:
        """The argument with a value called `key`."""
        return next((argument for argument in self.named() if argument.key == key), None)


@dataclass(frozen=True, slots=True)
class Transcript:
    """A parsed file: text that is kept as it is (comments, blank lines), and directives, in order."""

    blocks: tuple[str | Directive, ...]

    @property
    def directives(self) -> tuple[Directive, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Directive))

    def with_outputs(self, outputs: Iterator[str]) -> Transcript:
        """The same transcript, expecting these outputs, one for each directive."""
        return Transcript(
            tuple(
                replace(block, expected=next(outputs)) if isinstance(block, Directive) else block
                for block in self.blocks
            )
        )

    def text(self) -> str:
        """The file. Parsing it gives this transcript again."""
        return "".join(_written(block) for block in self.blocks)


def parse_transcript(text: str) -> Transcript:
    """Read a whole file. Raises TranscriptError for a directive without output."""
    return Transcript(tuple(_Reader(text).blocks()))


def parse_arguments(text: str) -> tuple[Argument, ...]:
    """The arguments of a directive line, without its name."""
    return tuple(_argument_of(match) for match in _ARGUMENT.finditer(text))


def _argument_of(match: re.Match[str]) -> Argument:
    listed, value = match["list"], match["value"]
    if listed is not None:
        return Argument(match["key"], tuple(item.strip() for item in re.split(r"[,\s]+", listed.strip())))
    return Argument(match["key"], () if value is None else (value,))


def _written(block: str | Directive) -> str:
    if isinstance(block, str):
        return block
    fences = f"{FENCE}\n{FENCE}\n" if "\n\n" in block.expected else f"{FENCE}\n"
    end = f"{FENCE}\n{FENCE}\n" if "\n\n" in block.expected else ""
    return f"{block.head}\n{block.input}{fences}{block.expected}{end}"


class _Reader:
    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._at = 0

    def blocks(self) -> Iterator[str | Directive]:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.strip() and not line.startswith("#"):
                yield self._directive()
            else:
                self._at += 1
                yield line + "\n"

    def _directive(self) -> Directive:
        line = self._at + 1
        head = self._next()
        name, _, rest = head.partition(" ")
        body = "".join(self._until_fence(line))
        return Directive(name, parse_arguments(rest), body, "".join(self._output()), head, line)

    def _until_fence(self, start: int) -> Iterator[str]:
        while self._at < len(self._lines):
            line = self._next()
            if line == FENCE:
                return
            yield line + "\n"
        raise TranscriptError(f"line {start}: a directive without {FENCE}")

    def _output(self) -> Iterator[str]:
        doubled = self._peek() == FENCE
        self._at += doubled
        while self._at < len(self._lines) and not self._at_end(doubled):
            yield self._next() + "\n"
        self._at += 2 if doubled else 0

    def _at_end(self, doubled: bool) -> bool:
        if doubled:
            return self._lines[self._at : self._at + 2] == [FENCE, FENCE]
        return not self._lines[self._at].strip()

    def _peek(self) -> str | None:
        return self._lines[self._at] if self._at < len(self._lines) else None

    def _next(self) -> str:
        self._at += 1
        return self._lines[self._at - 1]
