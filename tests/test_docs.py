"""The documents say what is true: the tests they name exist, and the commands of the README's first screen do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
LINK = re.compile(r"\]\(([\w./-]+?)(?:#[\w-]+)?\)")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def named_tests() -> list[tuple[str, str]]:
    return NAMED_TEST.findall((ROOT / "docs/guarantees.md").read_text())


@pytest.mark.parametrize(("file", "name"), named_tests())
def test_a_guarantee_names_a_test_that_exists(file: str, name: str) -> None:
    text = (ROOT / file).read_text()
    assert f"def {name}(" in text if name else "def test_" in text or "TestCase" in text


def test_every_promise_is_proved_by_something() -> None:
    promises = re.split(r"\n\*\*(?=[A-Z]\d)", (ROOT / "docs/guarantees.md").read_text())[1:]
    assert len(promises) > 15
    assert [promise.splitlines()[0] for promise in promises if not NAMED_TEST.search(promise)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = [target for target in LINK.findall(document.read_text()) if not target.startswith("http")]
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_the_readme_shows_the_two_commands_on_its_first_screen() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:25])
    makefile = (ROOT / "Makefile").read_text()
    for command in ("demo", "test"):
        assert f"make {command} " in first_screen
        assert f"\n{command}: " in makefile
    assert "make PY=" in (ROOT / ".ci/run").read_text()
