"""Calling the hooks of filters, plain and async ones, in plain and in async code. What must not live here: which hooks there
are, and what follows from what they decide."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from quorker.app.filters import Hook
from quorker.core.errors import ConfigurationError
from quorker.core.frozen import record

logger = logging.getLogger("quorker.filters")


@record
class CallHooks:
    """What a plan yields to have hooks called with this argument. `is_after`: their errors are logged, not raised."""

    hooks: tuple[Hook, ...]
    argument: Any
    is_after: bool = False


def call_hooks_blocking(call: CallHooks) -> None:
    """In plain code. Raises `ConfigurationError` for an async hook."""
    for hook in call.hooks:
        try:
            _call_plain(hook, call.argument)
        except Exception:
            if not call.is_after:
                raise
            log_error(hook)


def _call_plain(hook: Hook, argument: Any) -> None:
    if inspect.iscoroutinefunction(hook):
        raise ConfigurationError(
            f"{name_of(hook)} is async and cannot be awaited in plain code: write it with `def`, or enqueue with "
            f"`await ...aenqueue(...)`"
        )
    hook(argument)


async def call_hooks(call: CallHooks) -> None:
    """In async code, on trio or asyncio."""
    for hook in call.hooks:
        try:
            await call_hook(hook, call.argument)
        except Exception:
            if not call.is_after:
                raise
            log_error(hook)


async def call_hook(hook: Hook, argument: Any) -> None:
    answer = hook(argument)
    if answer is not None:
        await answer


def log_error(hook: Hook) -> None:
    """Of the error that is being handled."""
    logger.exception("%s raised; it is ignored", name_of(hook))


def name_of(hook: Hook) -> str:
    owner = getattr(hook, "__self__", None)
    return f"{type(owner).__module__}.{type(owner).__qualname__}.{getattr(hook, '__name__', 'hook')}"
