"""Gives each test of transcripts one parameter per file, or one visible skip where the files are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quorker.sim.transcript.vectors import VectorKind, find_vectors, vectors_root

REPOSITORY = Path(__file__).resolve().parents[2]
FIXTURES = {
    "quorum_vector": VectorKind.QUORUM,
    "confchange_vector": VectorKind.CONFCHANGE,
    "interaction_vector": VectorKind.INTERACTION,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, kind in FIXTURES.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, vector_parameters(kind))


def vector_parameters(kind: VectorKind) -> list[object]:
    root = vectors_root(REPOSITORY, os.environ)
    found = find_vectors(root, kind)
    if not found:
        reason = f"no {kind.name.lower()} vectors below {root} (set QUORKER_VECTORS to their folder)"
        return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(path, id=path.stem) for path in found]
