"""A backend for Django's tasks: functions with `@task` become tasks of an app, `enqueue` makes jobs, results are read from the
store. Every one is registered under its path when it is defined, so a payload can name no other code.

It serves `django.tasks` of Django 6 and its backport `django-tasks` for earlier ones. What must not live here: the loading
of Django in workers (`django_workers.py`), and what a result looks like (`django_results.py`).
"""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Any, Final, ParamSpec, TypeVar

import django
from django.apps import apps
from django.db import close_old_connections
from django.utils.timezone import is_naive, make_aware

from quorker.app.app import App
from quorker.app.context import current_job
from quorker.app.contrib.django_api import (
    AnyResult,
    AnyTask,
    BaseTaskBackend,
    InvalidTask,
    InvalidTaskBackend,
    Task,
    TaskContext,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
    task_finished,
    task_started,
)
from quorker.app.contrib.django_results import (
    change,
    error_of,
    new_result,
    now,
    result_of,
    running_result,
    task_at,
)
from quorker.app.contrib.process_door import ProcessDoor
from quorker.app.failure import describe
from quorker.app.gateway import Query
from quorker.app.job_plans import Plan, carry_out, carry_out_blocking
from quorker.app.location import import_attribute
from quorker.app.settings import NO_RETRY
from quorker.app.tasks import RegisteredTask
from quorker.core.errors import ConfigurationError, InvalidInput
from quorker.core.jobs.bounds import JOB_ID
from quorker.core.jobs.commands import BadCommand
from quorker.transport.connection import Consistency

P = ParamSpec("P")
R = TypeVar("R")

OPTIONS: Final = ("app", "open", "retry", "timeout")


class QuorkerBackend(BaseTaskBackend):
    """`TASKS = {"default": {"BACKEND": "quorker.app.contrib.django.QuorkerBackend", "OPTIONS": {"app": "shop.jobs:app"}}}`.

    `app`: the App, as MODULE:app. `open`: called with it, gives what is opened when a process first needs it, for example
    `lambda app: app.connect("10.0.0.1:7701")`; without it the process opens something itself. `retry`: a `Retry`
    (default: none, as with Django's own backends). `timeout`: of each attempt.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        unknown = sorted(set(self.options) - set(OPTIONS))
        if unknown or "app" not in self.options:
            raise InvalidTaskBackend(
                f"OPTIONS of the task backend {alias!r}: "
                + (
                    f"{unknown[0]!r} is not known"
                    if unknown
                    else "'app' is missing, for example 'shop.jobs:app'"
                )
                + f"; there are {', '.join(OPTIONS)}"
            )

    @cached_property
    def app(self) -> App:
        """Imported when the first task is defined; its own imports are for workers."""
        found = import_attribute(self.options["app"])
        if not isinstance(found, App):
            raise ConfigurationError(f"{self.options['app']} is a {type(found).__name__}, not an App")
        return found

    @cached_property
    def _door(self) -> ProcessDoor | None:
        opens = self.options.get("open")
        return None if opens is None else ProcessDoor(self.app, opens(self.app))

    def validate_task(self, task: AnyTask) -> None:
        """Also registers it. Called for every task when it is defined, and for every copy with other options."""
        super().validate_task(task)
        try:
            self._as_registered(task)
        except (ConfigurationError, InvalidInput) as error:
            raise InvalidTask(str(error)) from error

    def _as_registered(self, task: AnyTask) -> RegisteredTask:
        """The app's task of it, with its options. Raises `InvalidInput`."""
        path = task.module_path
        if path not in self.app.tasks:
            self.app.task(name=path, queue=task.queue_name)(run_django_task)
        return self.app.tasks[path].using(
            queue=task.queue_name,
            priority=task.priority,
            at=make_aware(task.run_after) if task.run_after and is_naive(task.run_after) else task.run_after,
            retry=self.options.get("retry", NO_RETRY),
            timeout=self.options.get("timeout"),
        )

    def enqueue(self, task: Task[P, R], args: Any, kwargs: Any) -> TaskResult[P, R]:
        """Raises what `Task.enqueue` of quorker raises."""
        self.validate_task(task)
        if self._door is not None:
            self._door.open()
        job = self._as_registered(task).enqueue(*args, **kwargs)
        return self._enqueued(new_result(task, job.id, args, kwargs))

    async def aenqueue(self, task: Task[P, R], args: Any, kwargs: Any) -> TaskResult[P, R]:
        """Like `enqueue`, for async code."""
        self.validate_task(task)
        if self._door is not None:
            await asyncio.to_thread(self._door.open)
        job = await self._as_registered(task).aenqueue(*args, **kwargs)
        return self._enqueued(new_result(task, job.id, args, kwargs))

    def _enqueued(self, result: TaskResult[P, R]) -> TaskResult[P, R]:
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> AnyResult:
        """Raises `TaskResultDoesNotExist` also for a job that is no Django task, or that ended long ago and has expired."""
        if self._door is not None:
            self._door.open()
        return result_of(carry_out_blocking(_read_details(result_id), self.app.gateway()), self.alias)

    async def aget_result(self, result_id: str) -> AnyResult:
        """Like `get_result`, for async code."""
        if self._door is not None:
            await asyncio.to_thread(self._door.open)
        return result_of(await carry_out(_read_details(result_id), self.app.gateway()), self.alias)


def _read_details(job_id: str) -> Plan[dict[str, Any]]:
    """A job that is unknown here may be known elsewhere: only a linearizable read can say that there is none."""
    try:
        JOB_ID(job_id)
    except BadCommand:
        raise TaskResultDoesNotExist(job_id) from None
    consistencies: tuple[Consistency, ...] = ("local", "linearizable")
    for consistency in consistencies:
        details: dict[str, Any] | None = yield Query("job_details", {"job_id": job_id}, consistency)
        if details is not None:
            return details
    raise TaskResultDoesNotExist(job_id)


def run_django_task(*args: Any, **kwargs: Any) -> Any:
    """What a worker runs for every Django task: the one whose path is the name of the job's task."""
    if not apps.ready:
        django.setup()
    job = current_job.get()
    assert job is not None
    task = task_at(job.task)
    result = running_result(task, job, args, kwargs)
    sender = type(task.get_backend())
    close_old_connections()
    task_started.send(sender, task_result=result)
    try:
        context = (TaskContext(task_result=result),) if task.takes_context else ()
        value = task.call(*context, *args, **kwargs)
    except BaseException as error:
        failure = describe(error)
        result.errors.append(error_of(failure.kind, failure.trace))
        _finish(sender, result, TaskResultStatus.FAILED)
        raise
    else:
        change(result, _return_value=value)
        _finish(sender, result, TaskResultStatus.SUCCESSFUL)
        return value
    finally:
        close_old_connections()


def _finish(sender: type[BaseTaskBackend], result: AnyResult, status: TaskResultStatus) -> None:
    """The store has not been told yet: if this worker dies now, the task runs again."""
    change(result, status=status, finished_at=now())
    task_finished.send(sender, task_result=result)
