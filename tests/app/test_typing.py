"""A type checker rejects wrong arguments at the place where a job is enqueued."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CALLS = Path(__file__).with_name("typed_calls.txt")
ERROR = re.compile(r"typed_calls\.py:(\d+): error: .*\[([a-z-]+)\]$", re.MULTILINE)


def test_mypy_accepts_what_is_right_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    program = tmp_path / "typed_calls.py"
    program.write_text(CALLS.read_text())
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), str(program)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    found = {(int(line), code) for line, code in ERROR.findall(shown)}
    lines = enumerate(CALLS.read_text().splitlines(), 1)
    wanted = {
        number: line.split("# E: ")[1].split(", ")
        for number, line in lines
        if "# E: " in line and '"""' not in line
    }
    assert {number for number, _ in found} == set(wanted), shown
    assert all(code in wanted[number] for number, code in found), shown
