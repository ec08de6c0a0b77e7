"""Recurring jobs on three real members: what code declares fires, edits at run time, an idle log, and leaders that die.

`python -m quorker.jepsen_like.recurring_kills` is the longer version of the last one.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from quorker.app import App, RecurringJob, current_job
from quorker.app.loopback_addresses import free_addresses
from quorker.core.jobs.batch import decode_entry, decode_group
from quorker.core.jobs.commands import Command, KeepAlive, NewJob, decode
from quorker.core.jobs.recurring_commands import AdvanceRecurring, SetRecurring
from quorker.jepsen_like.local_cluster import local_cluster
from quorker.jepsen_like.recurring_kills import Span, judge_slots, recurring_kills
from quorker.jepsen_like.waiting import poll, wait_until
from quorker.transport.node import Node

RECURRING = 100
KEEP_ALIVES = 3
SECONDS = 8.0


# ------------------------------------------------------------------ declared, edited, paused, triggered


def make_app(seen: list[Any]) -> App:
    """The same code on each member."""
    app = App("shop")

    @app.recurring("* * * * * *", id="tick", tags=["v1"])
    async def tick(version: int = 1) -> None:
        seen.append((current_job.recurring_id, current_job.slot, version))

    @app.recurring("@yearly", tz="Europe/Berlin")
    async def rare() -> str:
        return f"{current_job.recurring_id} {current_job.slot}"

    return app


@pytest.fixture
async def apps(tmp_path: Path) -> AsyncIterator[tuple[dict[int, App], list[Any]]]:
    seen: list[Any] = []
    addresses = dict(enumerate(free_addresses(3), 1))
    apps = {node_id: make_app(seen) for node_id in addresses}
    async with trio.open_nursery() as nursery:
        for node_id, app in apps.items():
            await nursery.start(serve, app, tmp_path / str(node_id), node_id, addresses)
        yield apps, seen
        nursery.cancel_scope.cancel()


async def serve(
    app: App, data: Path, node_id: int, addresses: Mapping[int, str], task_status: trio.TaskStatus[None]
) -> None:
    door = app.node(
        data, node_id=node_id, listen=addresses[node_id], members=addresses, profile="fast", workers=2
    )
    async with door:
        task_status.started()
        await trio.sleep_forever()


async def until(app: App, recurring_id: str, holds: Callable[[RecurringJob], object]) -> RecurringJob:
    async def ask() -> RecurringJob | None:
        known = await app.schedules.aget(recurring_id)
        return known if holds(known) else None

    return await poll(ask, f"{recurring_id} is as expected")


@pytest.mark.trio
async def test_what_the_code_of_three_members_declares_fires_once_for_each_slot(
    apps: tuple[dict[int, App], list[Any]],
) -> None:
    members, seen = apps
    await until(members[1], "tick", lambda known: known.fired >= 2)
    await members[2].schedules.apause("tick")
    known = await until(members[3], "tick", lambda known: known.is_paused)
    await wait_until(lambda: len(seen) == known.fired, "all that fired has run")
    slots = sorted(slot for _, slot, _ in seen)
    assert len(set(slots)) == len(slots)
    assert slots[-1] == known.last_slot
    assert {slot.microsecond for slot in slots} == {0}
    assert (known.managed_by, known.is_paused) == ("shop", True)


@pytest.mark.trio
async def test_an_edit_at_run_time_is_what_fires_from_then_on(apps: tuple[dict[int, App], list[Any]]) -> None:
    members, seen = apps
    await until(members[1], "tick", lambda known: known.fired >= 1)
    call = members[2].tasks["tick"].call(2)
    assert await members[2].schedules.aset("tick", call, every=0.2) is True
    await wait_until(lambda: sum(version == 2 for _, _, version in seen) >= 3, "the new definition fires")
    known = await until(members[3], "tick", lambda known: known.every)
    assert (known.cron, known.args) == ("", [2])
    slots = {version: [slot for _, slot, each in seen if each == version] for version in (1, 2)}
    assert max(slots[1]) <= min(slots[2])
    assert await members[1].schedules.aremove("tick") is True


@pytest.mark.trio
async def test_a_trigger_runs_at_once_and_leaves_the_plan(apps: tuple[dict[int, App], list[Any]]) -> None:
    members, _ = apps
    planned = await until(members[1], "rare", lambda known: known.next_slot)
    job = await members[2].schedules.atrigger("rare")
    assert await members[3].job(job.id).aresult() == "rare None"
    known = await until(members[1], "rare", lambda known: known.fired)
    assert (known.fired, known.last_job, known.last_slot) == (1, job.id, None)
    assert known.next_slot == planned.next_slot


# ------------------------------------------------------------------ what is written while nothing fires


@pytest.mark.trio
async def test_an_idle_cluster_with_recurring_jobs_writes_nothing_but_keep_alives(tmp_path: Path) -> None:
    async with local_cluster(tmp_path) as cluster:
        leader = await cluster.elect(1)
        for number in range(RECURRING):
            await leader.submit(SetRecurring(f"rare-{number}", NewJob("t"), "0 0 0 1 1 *", "Europe/Berlin"))
        await wait_until(lambda: all_planned(leader), "all are planned")
        first = await cluster.wait_equal() + 1
        await wait_until(lambda: len(written(leader, first)) >= KEEP_ALIVES, "sessions are renewed")
        assert {type(command) for command in written(leader, first)} == {KeepAlive}


def all_planned(node: Node) -> bool:
    entries = node.replica.store.recurring.values()
    return len(entries) == RECURRING and all(entry.next_wt for entry in entries)


def written(node: Node, first: int) -> list[Command]:
    """Every command in the log from that index on."""
    log = node.replica.raft.log
    groups = [
        group for entry in log.entries(first, log.last_index + 1) for group in decode_entry(entry.data).groups
    ]
    return [decode(wire) for group in groups for _, wire in decode_group(group).commands]


@pytest.mark.trio
async def test_many_that_are_due_together_are_made_by_one_entry(tmp_path: Path) -> None:
    async with local_cluster(tmp_path) as cluster:
        leader = await cluster.elect(1)
        for number in range(RECURRING):
            await leader.submit(SetRecurring(f"tick-{number}", NewJob("t"), "* * * * * *"))
        await wait_until(lambda: all_planned(leader), "all are planned")
        first, before = leader.replica.store_index + 1, len(leader.replica.store.jobs)
        await wait_until(
            lambda: len(leader.replica.store.jobs) >= before + 3 * RECURRING, "three slots of each fire"
        )
        advances = [each for each in written(leader, first) if isinstance(each, AdvanceRecurring)]
        made = sum(len(step.slots) for command in advances for step in command.steps)
        assert made >= 3 * RECURRING
        assert len(advances) <= 2 * made // RECURRING


# ------------------------------------------------------------------ leaders that die


@pytest.mark.trio
async def test_each_slot_makes_one_job_while_leaders_are_killed() -> None:
    verdict = await recurring_kills(SECONDS, RECURRING, secrets.randbelow(2**32), print)
    assert verdict.is_good, verdict
    assert verdict.kills >= 1
    assert verdict.expected >= RECURRING * SECONDS


SPANS = {"a": Span(10_500, 12_000)}


def job(slot: int, state: str = "Succeeded", recurring_id: str = "a") -> dict[str, Any]:
    return {"headers": {"quorker-recurring": recurring_id, "quorker-slot": str(slot)}, "state": state}


def test_a_job_for_each_slot_is_good() -> None:
    verdict = judge_slots(SPANS, {"1": job(11_000), "2": job(12_000)}, ["1", "2", "2"], 1)
    assert verdict.is_good
    assert (verdict.expected, verdict.made, verdict.repeated) == (2, 2, 1)


@pytest.mark.parametrize(
    ("jobs", "wrong"),
    [
        ({"1": job(11_000)}, "missing"),
        ({"1": job(11_000), "2": job(12_000), "3": job(12_000)}, "doubled"),
        ({"1": job(11_000), "2": job(12_000), "3": job(11_500)}, "strays"),
        ({"1": job(11_000), "2": job(12_000), "3": job(10_000)}, "strays"),
        ({"1": job(11_000), "2": job(12_000), "3": job(12_000, recurring_id="b")}, "strays"),
        ({"1": job(11_000), "2": job(12_000, "Enqueued")}, "unfinished"),
    ],
)
def test_what_is_wrong_with_a_slot_is_seen(jobs: dict[str, Any], wrong: str) -> None:
    verdict = judge_slots(SPANS, jobs, list(jobs), 0)
    assert not verdict.is_good
    assert getattr(verdict, wrong) == 1


def test_a_job_that_nobody_ran_is_seen() -> None:
    verdict = judge_slots(SPANS, {"1": job(11_000), "2": job(12_000)}, ["1"], 0)
    assert (verdict.is_good, verdict.not_run) == (False, 1)
