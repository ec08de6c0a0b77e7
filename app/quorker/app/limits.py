"""Limits of a task as users write them: so many at a time, so often, and the key under which jobs are counted. What must
not live here: when a job may start, which the state machine decides."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from string import Formatter
from typing import Any, Final, TypeAlias

from quorker.app.settings import CallOptions, Duration, checked_option, instant_ms, milliseconds
from quorker.core.errors import InvalidInput
from quorker.core.jobs import bounds
from quorker.core.jobs.commands import StartRules

LimitKey: TypeAlias = str | Callable[..., object]
"""A format string over the arguments of the task, or a function that is called with them."""

LIMIT_OPTIONS: Final = ("concurrency", "mutex", "rate", "expires")
_RATE: Final = re.compile(r"(\d+)\s*/\s*(\d*)\s*(ms|s|m|h|d)")
_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LIMIT: Final = bounds.whole("limit", 1, bounds.START_LIMIT_MAX)
_BURST: Final = bounds.whole("burst", 1, bounds.BURST_MAX)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `n` jobs with the same key run at a time, in the whole cluster.

    Without `key` all jobs of the task count together. `key` is a format string over the arguments (`"{customer}"`) or a
    function that is called with them. Keys of different tasks are different, unless both name the same `group`.
    """

    n: int
    key: LimitKey | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        checked_option("Limit(n)", self.n, _LIMIT)
        _check_names(self.key, self.group, "Limit")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `n` jobs with the same key start in any stretch of `per` (seconds or a timedelta), evenly spread.

    With `burst` so many may start at once after a pause; then a stretch may have `n + burst - 1`. A start counts whatever
    becomes of the job. `key` and `group`: as for `Limit`. `"10/s"` is `Rate(10, per=1)`; units are ms, s, m, h and d.
    """

    n: int
    per: Duration = 1
    burst: int = 1
    key: LimitKey | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        checked_option("Rate(n)", self.n, _LIMIT)
        checked_option("Rate(burst)", self.burst, _BURST)
        ms = milliseconds(self.per, "Rate(per)")
        if not self.n <= ms <= bounds.RATE_MS_MAX:
            raise InvalidInput(
                f"Rate({self.n}, per={self.per!r}): at most one start a millisecond, and at most 31 days to count over"
            )
        _check_names(self.key, self.group, "Rate")


def read_rate(value: Any) -> Rate:
    """A rate as it is, or as words: "10/s", "100/m", "1/30s". Raises `InvalidInput`."""
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise InvalidInput(
            f'rate={value!r}: write "10/s", "100/m", "1/30s" (ms, s, m, h, d) or Rate(10, per=1)'
        )
    return Rate(int(found[1]), int(found[2] or 1) * _UNIT_MS[found[3]] / 1000)


def read_limits(
    concurrency: Limit | int | None,
    mutex: bool | None,
    rate: Rate | str | None,
    expires: Duration | datetime | None,
) -> dict[str, Any]:
    """The fields of `CallOptions` for limits as users write them; None means not given. Raises `InvalidInput`."""
    found: dict[str, Any] = {}
    said: Any = mutex
    if said is not None:
        if said not in (True, False):
            raise InvalidInput(
                f"mutex={mutex!r}: write True or False, and concurrency=Limit(1, key=...) for a key"
            )
        if mutex and concurrency is not None:
            raise InvalidInput("mutex=True is a concurrency of 1: give one of both")
        found["concurrency"] = Limit(1) if mutex else None
    if concurrency is not None:
        found["concurrency"] = read_limit(concurrency)
    if rate is not None:
        found["rate"] = read_rate(rate)
    return found if expires is None else found | _read_expiry(expires)


def _read_expiry(expires: Duration | datetime) -> dict[str, int]:
    if isinstance(expires, datetime):
        return {"expires_ms": 0, "expires_wt": max(1, instant_ms(expires, "expires"))}
    ms = milliseconds(expires, "expires")
    if not ms:
        raise InvalidInput(f"expires is {expires!r}: give at least a millisecond")
    return {"expires_ms": ms, "expires_wt": 0}


def read_limit(value: Limit | int) -> Limit:
    """Raises `InvalidInput`."""
    if isinstance(value, Limit):
        return value
    return Limit(checked_option("concurrency", value, _LIMIT))


def _check_names(key: Any, group: str | None, what: str) -> None:
    if key is not None and not callable(key) and (not isinstance(key, str) or not key):
        raise InvalidInput(f"{what}(key={key!r}): give a format string such as '{{customer}}' or a function")
    if group is not None:
        checked_option(f"{what}(group)", group, bounds.TASK)


@dataclass(frozen=True, slots=True)
class StartPlan:
    """How the start rules of a task's jobs come about. `rules` has all but the key, which `key` makes of the arguments."""

    rules: StartRules
    group: str
    key: LimitKey | None
    signature: inspect.Signature

    @property
    def fixed(self) -> StartRules | None:
        """The rules of every job, where no argument matters."""
        if self.key is None:
            return self.rules._replace(key=self.group if self.rules.limit or self.rules.rate else "")
        return None

    def rules_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> StartRules:
        """Of a call that the task takes. Raises `InvalidInput` for a key that cannot be made of its arguments."""
        text = f"{self.group}/{self._words(args, kwargs)}"
        return self.rules._replace(key=checked_option(f"limit key of {self.group}", text, bounds.KEY))

    def _words(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        try:
            if isinstance(self.key, str):
                bound = self.signature.bind(*args, **kwargs)
                bound.apply_defaults()
                return self.key.format_map(_with_keywords(bound, self.signature))
            made = self.key(*args, **kwargs) if self.key is not None else ""
        except Exception as error:
            raise InvalidInput(
                f"the limit key of this call cannot be made: {type(error).__name__}: {error}"
            ) from error
        if isinstance(made, bool) or not isinstance(made, (str, int)):
            raise InvalidInput(
                f"the limit key of this call is {made!r}: its function must return a string or an int"
            )
        return str(made)


def _with_keywords(bound: inspect.BoundArguments, signature: inspect.Signature) -> dict[str, Any]:
    """Arguments by name, those that `**kwargs` took included."""
    found = dict(bound.arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            found.update(bound.arguments.get(name, {}))
    return found


def start_plan(task: str, signature: inspect.Signature, options: CallOptions) -> StartPlan | None:
    """What the options of a task lead to; None for nothing. Raises `InvalidInput`."""
    concurrency, rate = options.concurrency, options.rate
    within_ms, by_wt = options.expires_ms, options.expires_wt
    if concurrency is None and rate is None and not within_ms and not by_wt:
        return None
    rules = StartRules(
        "",
        concurrency.n if concurrency else 0,
        rate.n if rate else 0,
        milliseconds(rate.per, "Rate(per)") if rate else 0,
        rate.burst if rate else 1,
        within_ms,
        by_wt,
    )
    key = _one_of(task, "key", concurrency and concurrency.key, rate and rate.key)
    group = _one_of(task, "group", concurrency and concurrency.group, rate and rate.group)
    if isinstance(key, str):
        _check_template(task, key, signature)
    return StartPlan(rules, group or task, key, signature)


def _one_of(task: str, what: str, of_limit: Any, of_rate: Any) -> Any:
    """A job stands under one key: what is said in one of both counts for both."""
    if of_limit and of_rate and of_limit != of_rate:
        raise InvalidInput(
            f"task {task}: its concurrency has the {what} {of_limit!r}, its rate {of_rate!r}; a job has one limit key, so "
            f"name it once"
        )
    return of_limit or of_rate


def _check_template(task: str, template: str, signature: inspect.Signature) -> None:
    try:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise InvalidInput(f"task {task}: the limit key {template!r} is no format string: {error}") from None
    names = [re.split(r"[.\[]", field, maxsplit=1)[0] for field in fields]
    takes_any = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    unknown = [name for name in names if name not in signature.parameters and (not takes_any or not name)]
    if unknown:
        raise InvalidInput(
            f"task {task}: the limit key {template!r} names {unknown[0]!r}, which is no argument of {task}{signature}"
        )
