"""FastAPI, Starlette, Flask and Django, each one real: the files of the guide, and what the guide promises."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from quorker.app import App, NotConnected
from quorker.app.contrib.flask import init_flask
from quorker.app.contrib.process_door import ProcessDoor

GUIDE = Path(__file__).resolve().parents[2] / "docs/guide-frameworks.md"
QUORKER = "from quorker.app.cli import main; raise SystemExit(main())"
FILE = re.compile(r"^```python\n# ([\w/]+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

ASGI = """
from fastapi.testclient import TestClient
from fastapi_app import app, web

for backend in ("asyncio", "trio"):
    with TestClient(web, backend=backend) as client:
        job = client.post("/users/42").json()["job"]
        assert client.get(f"/jobs/{job}").json() == {"result": "welcome 42", "state": "Succeeded"}
    assert not app.is_connected
print("all of it ran")
"""
WSGI = """
from flask_app import app, opener, web

client = web.test_client()
assert not app.is_connected
for _ in range(2):
    job = client.post("/users/42").json["job"]
    assert client.get(f"/jobs/{job}").json == {"result": "welcome 42", "state": "Succeeded"}
    opener.close()
    assert not app.is_connected
client.get("/jobs/" + job)  # and closed when the process ends
print("all of it ran")
"""
DJANGO = """
import django

django.setup()
from django_tasks import task_backends
from django_tasks.signals import task_enqueued
from shop.jobs import app
from shop.tasks import attempt, count_words, send_welcome

enqueued = []
task_enqueued.connect(lambda task_result, **_: enqueued.append(task_result.id), weak=False)


def finished(result):
    app.job(result.id).result(timeout=60)
    result.refresh()
    assert result.status == "SUCCESSFUL", result
    return result.return_value


assert not app.is_connected
first = send_welcome.enqueue(42)
assert first.status in ("READY", "RUNNING")
assert app.is_connected
assert finished(first) == "welcome 42"
assert (first.task.queue_name, first.task.priority, first.args) == ("mail", 10, [42])
assert first.enqueued_at <= first.started_at <= first.finished_at
assert first.attempts == 1
second = count_words.enqueue(text="to be or not to be")
assert finished(second) == 6
assert finished(attempt.enqueue()) == 1
assert send_welcome.get_result(first.id).return_value == "welcome 42"
assert enqueued[:2] == [first.id, second.id]
print("all of it ran")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files of the guide."""
    for name, text in FILE.findall(GUIDE.read_text()):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "shop/__init__.py").touch()
    return tmp_path


def run(project: Path, script: str, **environment: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert (ran.returncode, ran.stdout) == (0, "all of it ran\n"), ran.stdout + ran.stderr


def test_the_fastapi_app_of_the_guide(project: Path) -> None:
    run(project, ASGI)


def test_the_flask_app_of_the_guide(project: Path) -> None:
    run(project, WSGI)


# ---------------------------------------------------------------------- django


@pytest.fixture
def django_node(project: Path) -> Iterator[Path]:
    """A member with workers, in a process of its own, on the address that the settings name: a free one."""
    from quorker.app.loopback_addresses import free_addresses

    address = free_addresses(1)[0]
    settings = project / "shop/settings.py"
    settings.write_text(settings.read_text().replace("127.0.0.1:7701", address))
    options = ["--listen", address, "--data", "data/node", "--workers", "2"]
    node = subprocess.Popen(
        [sys.executable, "-c", QUORKER, "node", "shop.jobs:app", *options],
        cwd=project,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "shop.settings"},
    )
    yield project
    node.send_signal(signal.SIGTERM)
    assert node.wait(60) == 0


def test_django_tasks_run_on_a_member(django_node: Path) -> None:
    run(django_node, DJANGO, DJANGO_SETTINGS_MODULE="shop.settings")


DJANGO_IN_MEMORY = """
import django

django.setup()
from datetime import timedelta

import pytest
from django.utils import timezone
from django_tasks import task_backends
from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist, TaskResultMismatch
from django_tasks.signals import task_finished
from shop.jobs import app
from shop.more_tasks import break_down, give_text, now_or_later, wants_context

from quorker.app import Retry

import quorker.app.contrib.django_workers

assert "shop.tasks.send_welcome" in app.tasks
backend = task_backends["default"]
assert f"{type(backend).__module__}.{type(backend).__name__}" == "quorker.app.contrib.django.QuorkerBackend"
backend.options.pop("open")
ended = []
task_finished.connect(lambda task_result, **_: ended.append(task_result.status), weak=False)


def failures():
    with app.testing() as quorker:
        result = break_down.enqueue()
        quorker.drain()
        result.refresh()
        assert (result.status, result.attempts, result.is_finished) == ("FAILED", 1, True)
        assert result.errors[0].exception_class is ValueError
        assert "raise ValueError" in result.errors[0].traceback
        assert ended == ["FAILED"]
        backend.options["retry"] = Retry(max=1, delays=[60])
        again = break_down.enqueue()
        quorker.run(minutes=1)
        again.refresh()
        assert (len(again.errors), again.attempts) == (2, 2)
        backend.options.pop("retry")


def later_and_urgent():
    with app.testing(start=timezone.now()) as quorker:
        later = now_or_later.using(run_after=timezone.now() + timedelta(hours=1)).enqueue("later")
        now_or_later.using(priority=-5).enqueue("low")
        now_or_later.using(priority=5).enqueue("high")
        quorker.drain()
        later.refresh()
        assert later.status == "READY" and later.started_at is None
        assert [row.args[0] for row in quorker.jobs(state="succeeded")] == ["low", "high"]
        starts = [now_or_later.get_result(row.id).started_at for row in quorker.jobs(state="succeeded")]
        quorker.run(hours=2)
        later.refresh()
        assert later.return_value == "later"
        context = wants_context.enqueue(3)
        quorker.drain()
        context.refresh()
        assert context.return_value == [3, 1, "RUNNING"]


def mistakes():
    with app.testing() as quorker:
        for unknown in ("0000000000000", "no id at all"):
            with pytest.raises(TaskResultDoesNotExist):
                backend.get_result(unknown)

        @app.task
        def no_django_task() -> None: ...

        job = no_django_task.enqueue()
        with pytest.raises(TaskResultDoesNotExist):
            backend.get_result(job.id)
        result = break_down.enqueue()
        with pytest.raises(TaskResultMismatch):
            give_text.get_result(result.id)
        with pytest.raises(InvalidTaskError, match="Queue 'nobodys' is not valid"):
            give_text.using(queue_name="nobodys")
        with pytest.raises(InvalidTaskError, match="priority must be a whole number"):
            give_text.using(priority=1000)
        from quorker.core.errors import InvalidInput

        with pytest.raises((InvalidInput, TypeError)):
            give_text.enqueue(object())


async def in_async_code():
    with app.testing() as quorker:
        result = await give_text.aenqueue("a")
        await quorker.adrain()
        await result.arefresh()
        assert result.return_value == "a"
        assert (await give_text.aget_result(result.id)).return_value == "a"


failures()
later_and_urgent()
mistakes()
import asyncio

asyncio.run(in_async_code())
print("all of it ran")
"""
MORE_TASKS = """
from django_tasks import task


@task
def break_down() -> None:
    raise ValueError("no way")


@task
def now_or_later(text: str) -> str:
    return text


@task
def give_text(text: str) -> str:
    return text


@task(takes_context=True)
def wants_context(context, number: int) -> list:
    return [number, context.attempt, str(context.task_result.status)]
"""


def test_what_a_django_backend_owes(project: Path) -> None:
    (project / "shop/more_tasks.py").write_text(MORE_TASKS)
    run(project, DJANGO_IN_MEMORY, DJANGO_SETTINGS_MODULE="shop.settings")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ('{"ap": "shop.jobs:app"}', "'ap' is not known; there are app, open, retry, timeout"),
        ("{}", "'app' is missing, for example 'shop.jobs:app'"),
        ('{"app": "shop.jobs:nothing"}', "has no 'nothing'"),
        ('{"app": "shop.settings:USE_TZ"}', "shop.settings:USE_TZ is a bool, not an App"),
    ],
)
def test_wrong_options_are_named(project: Path, options: str, said: str) -> None:
    settings = project / "shop/settings.py"
    settings.write_text(
        re.sub(
            r'"OPTIONS": \{.*?\n        \},', f'"OPTIONS": {options},', settings.read_text(), flags=re.DOTALL
        )
    )
    script = "import django; django.setup(); import shop.tasks"
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "shop.settings"}
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert said in ran.stderr


# ---------------------------------------------------------------------- what all have in common


def test_a_lifespan_of_ones_own_runs_inside_and_gives_state(app: App, tmp_path: Path) -> None:
    order: list[str] = []

    @app.task
    async def noop() -> int:
        return 7

    @asynccontextmanager
    async def inner(_: Any) -> AsyncGenerator[dict[str, str]]:
        order.append(f"inner {app.is_connected}")
        yield {"name": "inner"}
        order.append(f"end {app.is_connected}")

    async def view(request: Request) -> JSONResponse:
        result = await (await noop.aenqueue()).aresult(timeout=30)
        return JSONResponse([result, request.state.name])

    door = app.node(tmp_path / "data", profile="fast")
    web = Starlette(routes=[Route("/", view)], lifespan=app.lifespan(door, inner=inner))
    with TestClient(web) as client:
        assert client.get("/").json() == [7, "inner"]
    assert order == ["inner True", "end True"]
    assert not app.is_connected


def test_in_a_test_nothing_else_is_opened(app: App, tmp_path: Path) -> None:
    @app.task
    def noop() -> None: ...

    flask_app = Flask("test")
    init_flask(flask_app, app, app.node(tmp_path / "flask"))

    @flask_app.get("/")
    def plain_view() -> str:
        return noop.enqueue().id

    async def view(request: Request) -> JSONResponse:
        return JSONResponse((await noop.aenqueue()).id)

    web = Starlette(routes=[Route("/", view)], lifespan=app.lifespan(app.node(tmp_path / "asgi")))
    with app.testing() as quorker, TestClient(web) as client:
        ids = [client.get("/").json(), flask_app.test_client().get("/").text]
        assert [row.id for row in quorker.jobs()] == ids
    assert list(tmp_path.iterdir()) == []


def test_a_door_opens_once_and_again_after_it_was_closed(app: App, tmp_path: Path) -> None:
    @app.task
    def noop() -> None: ...

    opener = ProcessDoor(app, app.node(tmp_path, workers=0, profile="fast"))
    with pytest.raises(NotConnected):
        noop.enqueue()
    for _ in range(2):
        opener.open()
        opener.open()
        noop.enqueue()
        opener.close()
        opener.close()
        assert not app.is_connected


def test_a_forked_process_opens_what_its_parent_had_open(tmp_path: Path) -> None:
    """As with servers that load the app before they fork their workers."""
    script = f"""
import os
from quorker.app import App
from quorker.app.contrib.process_door import ProcessDoor

app = App("forked")


@app.task
def noop() -> None: ...


with App("forked").node({str(tmp_path)!r}, workers=0, profile="fast") as member:
    opener = ProcessDoor(app, app.connect(member.address))
    opener.open()
    child = os.fork()
    opener.open()
    print(noop.enqueue().state(), flush=True)
    opener.close()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert (ran.returncode, ran.stdout) == (0, "Enqueued\n" * 2), ran.stderr
