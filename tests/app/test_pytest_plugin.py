"""The fixture `quorker`, as a project that uses it sees it: a pytest run of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TASKS = """
from quorker.app import App

app = App("shop")


@app.task(queue="mail")
async def send_welcome(user_id: int) -> str:
    return f"hello {user_id}"
"""
TESTS = """
import sys


def test_nothing_of_quorker_is_imported_for_others():
    assert "quorker.app" not in sys.modules


def test_welcome(quorker):
    from tasks import send_welcome

    send_welcome.using(delay=3600).enqueue(42)
    quorker.advance(hours=1)
    quorker.drain()
    assert quorker.jobs(state="succeeded", task="send_welcome")


def test_every_test_has_a_store_of_its_own(quorker):
    assert quorker.jobs() == []
"""
OPTION = "[pytest]\nquorker_app = tasks:app\npythonpath = .\naddopts = -p no:cacheprovider -W error\n"


def run_pytest(project: Path, tests: str, ini: str) -> subprocess.CompletedProcess[str]:
    (project / "tasks.py").write_text(TASKS)
    (project / "test_shop.py").write_text(tests)
    (project / "pytest.ini").write_text(ini)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cov"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=120)


def test_the_fixture_is_there_where_the_package_is_installed(tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, TESTS, OPTION)
    assert (ran.returncode, "3 passed" in ran.stdout) == (0, True), ran.stdout + ran.stderr


def test_a_project_may_bring_its_own_app_and_must_bring_one(tmp_path: Path) -> None:
    both = """
import pytest


class TestOwn:
    @pytest.fixture
    def quorker_app(self):
        from tasks import app

        return app

    def test_welcome(self, quorker):
        from tasks import send_welcome

        assert send_welcome.enqueue(1).result() == "hello 1"


def test_nothing_is_known(quorker):
    pass
"""
    ran = run_pytest(tmp_path, both, "[pytest]\npythonpath = .\n")
    assert "1 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert 'write quorker_app = "tasks:app" into [tool.pytest.ini_options]' in ran.stdout


def test_an_app_that_is_not_there_is_named(tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, TESTS, OPTION.replace("tasks:app", "tasks:shop"))
    assert "quorker_app: module 'tasks'" in ran.stdout
    assert "has no 'shop'" in ran.stdout
