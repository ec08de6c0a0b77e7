"""The table of oracles in the documents is complete and true: each has a rejecting test, and a planted bug or a reason."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from quorker.sim.mutants.catalogue import MUTANTS
from quorker.sim.oracles.names import ORACLES

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "sim/quorker/sim"
HEADER: Final = "| oracle | raised in | must reject | planted bug |\n|---|---|---|---|\n"
WITHOUT_A_BUG_MAX: Final = 3  # only ever lower


class Row(NamedTuple):
    oracle: str
    source: str
    test: str
    bug: str


def rows() -> list[Row]:
    table = (ROOT / "docs/oracles.md").read_text().split(HEADER)[1]
    return [
        Row(*(cell.strip().strip("`") for cell in line.strip("|").split("|"))) for line in table.splitlines()
    ]


ROWS: Final = rows()


def test_every_oracle_has_one_row_in_the_order_of_the_names() -> None:
    assert [row.oracle for row in ROWS] == list(ORACLES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.oracle)
def test_its_source_raises_it_and_its_test_is_there(row: Row) -> None:
    assert f'"{row.oracle}"' in (SOURCES / row.source).read_text()
    file, _, name = row.test.partition("::")
    tree = ast.parse((ROOT / "tests/sim" / file).read_text())
    (test,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
    assert any(isinstance(node, (ast.Assert, ast.Call)) for node in ast.walk(test))
    assert row.oracle.partition(" [")[0] in (ROOT / "tests/sim" / file).read_text()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.oracle)
def test_a_planted_bug_names_it_or_none_does(row: Row) -> None:
    bugs = [mutant.name for mutant in MUTANTS.values() if row.oracle in mutant.oracles]
    if row.bug.startswith("none"):
        assert bugs == [], "a bug names it now: say so"
    else:
        assert row.bug in bugs


def test_few_oracles_have_no_bug() -> None:
    assert sum(row.bug.startswith("none") for row in ROWS) <= WITHOUT_A_BUG_MAX
