"""Finds transcripts written by others, wherever they were unpacked, and tells them apart by their directives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Final

from quorker.sim.transcript.parser import FENCE, Transcript, parse_transcript

VECTORS_VARIABLE: Final = "QUORKER_VECTORS"


class VectorKind(Enum):
    """What a transcript exercises; the value holds the directives that only such a transcript has."""

    QUORUM = frozenset({"committed", "vote"})
    CONFCHANGE = frozenset({"simple", "enter-joint", "leave-joint"})
    INTERACTION = frozenset({"add-nodes"})


def vectors_root(repository: Path, environment: Mapping[str, str]) -> Path:
    """The folder that holds the vectors: where the environment says, or beside the repository."""
    return Path(environment.get(VECTORS_VARIABLE) or repository.parent / "shared" / "vectors")


def find_vectors(root: Path, kind: VectorKind) -> list[Path]:
    """Every transcript of this kind below `root`, at any depth, sorted by name."""
    return sorted(
        (path for path, found in _transcripts(root) if _is(found, kind)), key=lambda path: path.name
    )


def _transcripts(root: Path) -> Iterator[tuple[Path, Transcript]]:
    for path in root.rglob("*.txt"):
        text = path.read_text(encoding="utf-8")
        if f"\n{FENCE}\n" in text:
            yield path, parse_transcript(text)


def _is(transcript: Transcript, kind: VectorKind) -> bool:
    return any(directive.name in kind.value for directive in transcript.directives)
