"""The guide's Python is one program, and it runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[2] / "docs/guide-tasks.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_ALL = """
if __name__ == "__main__":
    import asyncio

    use_in_plain_code()
    use_options()
    use_retries()
    use_fences()
    trio.run(use_in_async_code)
    asyncio.run(use_in_async_code())
    assert count_words("a b") == 2
    print("all of it ran")
"""


def test_the_guide_runs(tmp_path: Path) -> None:
    blocks: list[str] = BLOCK.findall(GUIDE.read_text())
    uses = [
        name for block in blocks for name in re.findall(r"^(?:async )?def (use_\w+)", block, re.MULTILINE)
    ]
    assert all(f"{name}(" in RUN_ALL or f"({name})" in RUN_ALL for name in uses)
    assert len(uses) == 5
    script = tmp_path / "guide.py"
    script.write_text("\n".join(blocks) + RUN_ALL)
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout) == (0, "all of it ran\n"), ran.stderr
