"""The Python of each guide is one program, and it runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDES = {
    "guide-batches.md": 4,
    "guide-tasks.md": 5,
    "guide-jobs.md": 4,
    "guide-locks.md": 3,
    "guide-limits.md": 3,
    "guide-recurring.md": 4,
    "guide-testing.md": 6,
    "guide-filters.md": 3,
    "guide-monitoring.md": 3,
}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
USE = re.compile(r"^(async )?def (use_\w+)\(\)", re.MULTILINE)
START = """
if __name__ == "__main__":
    import asyncio
    import trio

"""


def run_all(program: str) -> str:
    """Every example is run: those in plain code once, those in async code on both loops."""
    lines = [
        f"    trio.run({name})\n    asyncio.run({name}())\n" if is_async else f"    {name}()\n"
        for is_async, name in USE.findall(program)
    ]
    return START + "".join(lines) + '    print("all of it ran")\n'


def test_every_guide_is_run() -> None:
    elsewhere = {"guide-command-line.md", "guide-frameworks.md"}  # test_command_guide.py, test_frameworks.py
    assert {path.name for path in DOCS.glob("guide-*.md")} == set(GUIDES) | elsewhere


@pytest.mark.parametrize("guide", GUIDES)
def test_the_guide_runs(guide: str, tmp_path: Path) -> None:
    program = "\n".join(BLOCK.findall((DOCS / guide).read_text()))
    assert len(USE.findall(program)) == GUIDES[guide]
    script = tmp_path / "guide.py"
    script.write_text(program + run_all(program))
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout) == (0, "all of it ran\n"), ran.stderr
