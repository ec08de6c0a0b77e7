"""The names of Django's task framework: from `django.tasks` (Django 6), or from its backport `django_tasks`, where two are
called otherwise. What must not live here: anything of our own.
"""

from __future__ import annotations

# pyright: reportMissingModuleSource=false
# The backport, which is what an older Django has, is typed by the stubs of the original.
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

import django

if TYPE_CHECKING:
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started

    AnyTask: TypeAlias = Task[..., Any]
    AnyResult: TypeAlias = TaskResult[..., Any]
else:
    _package = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
    _base = import_module(f"{_package}.base")
    _errors = import_module(f"{_package}.exceptions")
    _signals = import_module(f"{_package}.signals")
    BaseTaskBackend = import_module(f"{_package}.backends.base").BaseTaskBackend
    Task, TaskContext, TaskError = _base.Task, _base.TaskContext, _base.TaskError
    TaskResult, TaskResultStatus = _base.TaskResult, _base.TaskResultStatus
    AnyTask, AnyResult = Task, TaskResult
    InvalidTask = getattr(_errors, "InvalidTask", None) or _errors.InvalidTaskError
    InvalidTaskBackend = getattr(_errors, "InvalidTaskBackend", None) or _errors.InvalidTaskBackendError
    TaskResultDoesNotExist = _errors.TaskResultDoesNotExist
    task_enqueued, task_started, task_finished = (
        _signals.task_enqueued,
        _signals.task_started,
        _signals.task_finished,
    )

__all__ = [
    "AnyResult",
    "AnyTask",
    "BaseTaskBackend",
    "InvalidTask",
    "InvalidTaskBackend",
    "Task",
    "TaskContext",
    "TaskError",
    "TaskResult",
    "TaskResultDoesNotExist",
    "TaskResultStatus",
    "task_enqueued",
    "task_finished",
    "task_started",
]
