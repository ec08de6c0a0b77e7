"""Limits of tasks: how they are written, which key a call has, what is refused, and three members that keep to them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from quorker.app import App, BadPayload, JobCancelled, Limit, Rate
from quorker.app.loopback_addresses import free_addresses
from quorker.core.errors import InvalidInput
from quorker.core.jobs.commands import StartRules

Members = Callable[..., AbstractAsyncContextManager[None]]


def rules_of(task: Any, *args: Any, **kwargs: Any) -> StartRules | None:
    rules: StartRules | None = task.new_job(*args, **kwargs).start
    return rules


# How they are written ---------------------------------------------------------------------------------------------


def test_a_task_without_limits_makes_plain_jobs(app: App) -> None:
    @app.task
    def plain(x: int) -> int:
        return x

    assert rules_of(plain, 1) is None


def test_a_mutex_is_a_limit_of_one_for_all_jobs_of_the_task(app: App) -> None:
    @app.task(mutex=True)
    def sweep() -> None: ...

    assert rules_of(sweep) == StartRules("sweep", 1)
    assert rules_of(sweep.using(mutex=False)) is None
    assert rules_of(sweep.using(concurrency=3)) == StartRules("sweep", 3)


def test_a_key_is_made_of_the_arguments(app: App) -> None:
    @app.task(concurrency=Limit(2, key="{customer}/{kind}"))
    def send(customer: int, *, kind: str = "mail") -> None: ...

    assert rules_of(send, 7) == StartRules("send/7/mail", 2)
    assert rules_of(send, 7, kind="push") == StartRules("send/7/push", 2)
    assert send.call(8).job.start == StartRules("send/8/mail", 2)
    assert rules_of(send.using(priority=3), 7) == StartRules("send/7/mail", 2)


def test_a_key_may_be_a_function_of_the_arguments(app: App) -> None:
    def first_letter(name: str, **_: Any) -> str:
        return name[0]

    @app.task(concurrency=Limit(1, key=first_letter))
    def greet(name: str, *, twice: bool = False) -> None: ...

    assert rules_of(greet, "ada", twice=True) == StartRules("greet/a", 1)


def test_words_that_only_kwargs_take_can_be_named(app: App) -> None:
    @app.task(mutex=True, rate=Rate(1, key="{tenant}"))
    def fetch(**words: str) -> None: ...

    assert rules_of(fetch, tenant="acme") == StartRules("fetch/acme", 1, 1, 1000)


def test_tasks_share_a_limit_by_naming_a_group(app: App) -> None:
    @app.task(concurrency=Limit(4, group="stripe"))
    def charge() -> None: ...

    @app.task(concurrency=Limit(4, group="stripe"), rate="10/s")
    def refund() -> None: ...

    assert rules_of(charge) == StartRules("stripe", 4)
    assert rules_of(refund) == StartRules("stripe", 4, 10, 1000)


@pytest.mark.parametrize(
    ("rate", "rules"),
    [
        ("10/s", (10, 1000, 1)),
        ("100/m", (100, 60_000, 1)),
        ("1/30s", (1, 30_000, 1)),
        ("5 / 2 h", (5, 7_200_000, 1)),
        ("1/d", (1, 86_400_000, 1)),
        ("1/500ms", (1, 500, 1)),
        (Rate(10), (10, 1000, 1)),
        (Rate(2, per=timedelta(minutes=1), burst=5), (2, 60_000, 5)),
    ],
)
def test_rates_are_words_or_numbers(app: App, rate: Any, rules: tuple[int, int, int]) -> None:
    task: Any = app.task(name="t", rate=rate)(lambda: None)
    assert rules_of(task) == StartRules("t", 0, *rules)


def test_a_job_expires_after_a_while_or_at_an_instant(app: App) -> None:
    @app.task(expires=timedelta(minutes=5))
    def remind() -> None: ...

    at = datetime(2026, 12, 24, tzinfo=UTC)
    assert rules_of(remind) == StartRules(within_ms=300_000)
    assert rules_of(remind.using(expires=10)) == StartRules(within_ms=10_000)
    assert rules_of(remind.using(expires=at)) == StartRules(by_wt=int(at.timestamp() * 1000))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"concurrency": 0}, r"concurrency=0: limit: must be a whole number from 1"),
        ({"concurrency": "two"}, r"concurrency='two': limit: must be a whole number"),
        ({"rate": "often"}, r'rate=\'often\': write "10/s"'),
        ({"rate": 10}, r"rate=10: write"),
        ({"rate": "0/s"}, r"Rate\(n\)=0: limit: must be a whole number from 1"),
        ({"rate": "5000/s"}, r"at most one start a millisecond"),
        ({"mutex": True, "concurrency": 2}, r"mutex=True is a concurrency of 1: give one of both"),
        ({"concurrency": Limit(1, key="{who}"), "rate": Rate(1, key="{x}")}, r"a job has one limit key"),
        ({"concurrency": Limit(1, group="a"), "rate": Rate(1, group="b")}, r"a job has one limit key"),
        ({"concurrency": Limit(1, key="{custmer}")}, r"names 'custmer', which is no argument of t\(x"),
        ({"concurrency": Limit(1, key="{}")}, r"names '', which is no argument"),
        ({"concurrency": Limit(1, key="{x")}, r"is no format string"),
        ({"expires": 0}, r"expires is 0: give at least a millisecond"),
        ({"expires": -1}, r"expires=-1000: duration"),
        ({"expires": datetime(2026, 1, 1)}, r"has no time zone"),  # that is the mistake
        ({"mutex": "yes"}, r"mutex='yes': write True or False"),
    ],
)
def test_mistakes_are_told_when_the_task_is_defined(app: App, options: dict[str, Any], why: str) -> None:
    def t(x: int) -> int:
        return x

    task: Any = app.task
    with pytest.raises(InvalidInput, match=why):
        task(**options)(t)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Limit(1, key=""), r"Limit\(key=''\): give a format string"),
        (lambda: Limit(1, group="a/b"), r"Limit\(group\)='a/b'"),
        (lambda: Rate(1, burst=0), r"Rate\(burst\)=0"),
        (lambda: Rate(1, per=timedelta(days=32)), r"at most 31 days"),
    ],
)
def test_limits_out_of_bounds_are_refused(make: Callable[[], object], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        make()


def test_a_key_that_cannot_be_made_is_told_when_the_job_is(app: App) -> None:
    @app.task(concurrency=Limit(1, key="{who[name]}"))
    def greet(who: dict[str, str]) -> None: ...

    def nothing(who: str) -> None:
        return None

    assert rules_of(greet, {"name": "ada"}) == StartRules("greet/ada", 1)
    with pytest.raises(InvalidInput, match=r"the limit key of this call cannot be made: KeyError: 'name'"):
        greet.call({})
    with pytest.raises(InvalidInput, match=r"its function must return a string or an int"):
        greet.using(concurrency=Limit(1, key=nothing)).call({"name": "ada"})
    with pytest.raises(InvalidInput, match=r"limit key of greet='greet/x+'"):
        greet.call({"name": "x" * 600})
    with pytest.raises(BadPayload, match="cannot be called like this"):
        greet.new_job()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # the mistake


# Three members ----------------------------------------------------------------------------------------------------


class Ledger:
    """Who runs beside whom, by group, and when each began, in seconds of this process."""

    def __init__(self) -> None:
        self.running: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.began: dict[str, list[float]] = {}

    async def run(self, group: str, seconds: float) -> None:
        self.began.setdefault(group, []).append(trio.current_time())
        self.running[group] = self.running.get(group, 0) + 1
        self.most[group] = max(self.most.get(group, 0), self.running[group])
        await trio.sleep(seconds)
        self.running[group] -= 1


def limited_app(ledger: Ledger) -> App:
    app = App("limits")

    @app.task(mutex=True)
    async def alone(number: int) -> int:
        await ledger.run("alone", 0.05)
        return number

    @app.task(concurrency=Limit(2, key="{customer}"))
    async def pair(customer: str) -> str:
        await ledger.run(customer, 0.05)
        return customer

    @app.task(rate="10/s")
    async def paced(number: int) -> int:
        await ledger.run("paced", 0)
        return number

    @app.task
    async def other(number: int) -> int:
        await ledger.run("other", 0)
        return number

    @app.task(expires=0.05)
    async def fleeting() -> None: ...

    return app


@pytest.mark.trio
async def test_three_members_keep_to_the_limits(members: Members) -> None:
    """Two clients work with more slots than any limit allows, and each limit is kept over both."""
    ledger = Ledger()
    addresses = dict(enumerate(free_addresses(3), 1))
    async with (
        members({node_id: App("limits") for node_id in addresses}, addresses),
        AsyncExitStack() as stack,
    ):
        apps = [limited_app(ledger) for _ in range(2)]
        for app in apps:
            await stack.enter_async_context(app.connect(*addresses.values(), workers=6, timeout=60))
        tasks: Any = apps[0].tasks
        calls = [tasks["alone"].call(number) for number in range(5)]
        calls += [tasks["pair"].call(customer) for customer in ("ada", "bob") * 4]
        calls += [tasks["paced"].call(number) for number in range(6)]
        calls += [tasks["other"].call(number) for number in range(10)]
        with trio.fail_after(120):
            jobs = await apps[0].aenqueue_many(calls)
            results = [await job.aresult(timeout=60) for job in jobs]
    assert results == [*range(5), *("ada", "bob") * 4, *range(6), *range(10)]
    assert {group: ledger.most[group] for group in ("alone", "ada", "bob")} == {
        "alone": 1,
        "ada": 2,
        "bob": 2,
    }
    assert ledger.began["other"][-1] < ledger.began["alone"][-1], "free slots run what is not limited"


def test_a_rate_is_kept_on_a_clock_that_a_test_moves() -> None:
    app = limited_app(Ledger())
    with app.testing() as quorker:
        app.enqueue_many([app.tasks["paced"].call(number) for number in range(4)])
        assert quorker.run() == 1
        assert quorker.run(milliseconds=99) == 0
        assert quorker.run(milliseconds=1) == 1
        assert quorker.run(milliseconds=200) == 2


@pytest.mark.trio
async def test_an_expired_job_is_cancelled_and_says_why(members: Members) -> None:
    addresses = dict(enumerate(free_addresses(3), 1))
    app = limited_app(Ledger())
    async with (
        members({node_id: App("limits") for node_id in addresses}, addresses),
        app.connect(*addresses.values(), workers=0, timeout=60),
    ):
        job = await app.tasks["fleeting"].aenqueue()
        with trio.fail_after(60), pytest.raises(JobCancelled, match="expired: not started in time"):
            await job.aresult(timeout=60)
