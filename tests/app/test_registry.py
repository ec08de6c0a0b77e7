"""Registering tasks: names, where they run, what is refused; and that making an App touches nothing."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from quorker.app import App, AsyncTask, BadPayload, NotConnected, PlainTask, Retry
from quorker.app.payload import encode_call
from quorker.core.errors import ConfigurationError, InvalidInput
from quorker.core.jobs.commands import NewJob


async def sample(x: int) -> int:
    return x


def plain_sample(x: int, y: int = 0) -> int:
    return x + y


def test_names_kinds_and_defaults(app: App) -> None:
    one, two = app.task(sample), app.task(name="other", runs_in="thread")(plain_sample)
    assert isinstance(one, AsyncTask)
    assert isinstance(two, PlainTask)
    assert dict(app.tasks) == {"sample": one, "other": two}
    assert (one.name, one.runs_in, one.options.queue) == ("sample", "trio", "default")
    assert app.task(plain_sample).runs_in == "process"


def test_calling_a_task_runs_it_here(app: App) -> None:
    assert app.task(plain_sample)(1, y=2) == 3


def test_queues_are_those_of_the_tasks_with_default_last(app: App) -> None:
    app.task(sample)
    app.task(name="b", queue="urgent")(sample)
    app.task(name="c", queue="mail")(sample)
    app.task(name="d", queue="urgent")(sample)
    assert app.queues == ("urgent", "mail", "default")


def test_using_makes_a_copy(app: App) -> None:
    task = app.task(queue="mail")(sample)
    slow = task.using(queue="slow", timeout=3)
    assert (task.options.queue, slow.options.queue) == ("mail", "slow")
    assert slow.using(priority=4).options.timeout_ms == 3000
    assert app.tasks["sample"] is task


def test_a_name_can_be_taken_once_but_a_module_loaded_twice(app: App) -> None:
    app.task(sample)
    app.task(sample)
    with pytest.raises(
        ConfigurationError, match=r"two tasks are called 'sample': .*sample and .*plain_sample; give one"
    ):
        app.task(name="sample")(plain_sample)


@pytest.mark.parametrize("name", ["", "with space", "x" * 201])
def test_bad_names_are_refused(app: App, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"App\(name\)" if not name else "task name"):
        (App(name) if not name else app).task(name=name)(sample)


def test_where_a_function_can_run(app: App) -> None:
    with pytest.raises(ConfigurationError, match="an async def runs in trio"):
        app.task(runs_in="process")(sample)
    with pytest.raises(ConfigurationError, match="a plain function in a process or a thread, not in trio"):
        app.task(runs_in="trio")(plain_sample)


def test_options_are_checked_where_they_are_written(app: App) -> None:
    with pytest.raises(InvalidInput, match="queue='Mail'"):
        app.task(queue="Mail")
    with pytest.raises(InvalidInput, match="either base"):
        app.task(retry=Retry(base=1, delays=[1]))


def test_wrong_arguments_are_refused_before_anything_is_sent(app: App) -> None:
    task = app.task(plain_sample)
    with pytest.raises(
        BadPayload, match=r"plain_sample\(x: 'int', y: 'int' = 0\) -> 'int' cannot be called like this"
    ):
        task.new_job()  # type: ignore[call-arg]  # the mistake that is tested


def test_without_a_connection_the_error_says_what_to_open(app: App) -> None:
    with pytest.raises(NotConnected, match=r"app 'test' has no way into a cluster here.*app\.node"):
        app.task(plain_sample).enqueue(1)


def test_the_limit_of_arguments_can_be_set() -> None:
    small = App("small", payload_bytes_max=10)
    with pytest.raises(BadPayload, match="at most 10"):
        small.task(plain_sample).new_job(2**40, 2**40)
    with pytest.raises(InvalidInput, match="payload_bytes_max"):
        App("large", payload_bytes_max=2**30)


def test_imports_register_tasks(plain: ModuleType) -> None:
    app = App("test", imports=["plain_functions"])
    app.load_imports()
    with pytest.raises(ModuleNotFoundError):
        App("test", imports=["no_such_module"]).load_imports()


def test_importing_the_app_opens_no_transport() -> None:
    """Worker processes import it, and start the faster the less comes with it."""
    code = (
        "import sys, quorker.app\n"
        "heavy = {'quorker.transport.node', 'quorker.core.raft.core', 'cyclopts'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).stderr == b""


def test_the_job_of_a_call_is_whole(app: App) -> None:
    """It is put together on a short way, which checks nothing."""

    @app.task
    def noop() -> None: ...

    assert noop.using(tags=["a"]).new_job() == NewJob("noop", encode_call([], {}, bytes_max=100), tags=("a",))
    assert len(noop.new_job()) == len(NewJob._fields)
