"""Scenario files of the simulator on real processes, and the parts of it that need none."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from quorker.app.demo.ledger import Execution
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, EXIT_USAGE, InvalidInput
from quorker.jepsen_like import real_run
from quorker.jepsen_like.history import Kind, Line
from quorker.jepsen_like.links import Link, Links
from quorker.jepsen_like.processes import ProcessCluster
from quorker.jepsen_like.real_case import pace_of, require_possible
from quorker.jepsen_like.real_clients import Record
from quorker.jepsen_like.real_nemesis import linked_cluster
from quorker.jepsen_like.real_run import run_real
from quorker.jepsen_like.real_verdict import NOT_JUDGED, judge
from quorker.sim.cases.case import Case, ClockKnobs, Fault, FaultKind, RaftKnobs
from quorker.sim.cases.scenario import Scenario, load, shipped
from quorker.sim.world.kernel import SECOND

CHAOS_SECONDS = 5.0


# ---------------------------------------------------------------------- whole scenarios


@pytest.mark.trio
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("partition-leader", FaultKind.ISOLATE),
        ("power-cut-while-jobs-run", FaultKind.POWER_CUT),
        ("lock-without-waiting", FaultKind.CRASH),
        ("one-way-links", FaultKind.LINK),
        ("swizzle-clog", FaultKind.SWIZZLE),
        ("session-expiry-during-partition", FaultKind.LINE_STALL),
    ],
)
async def test_every_promise_holds_on_real_processes(name: str, kind: FaultKind, tmp_path: Path) -> None:
    found = await run_real(load(name), 1, tmp_path, CHAOS_SECONDS)
    assert found.verdict.broken == []
    assert found.struck[kind] >= 1
    assert found.verdict.acknowledged > 1
    assert found.applied > 1


@pytest.mark.trio
async def test_a_leader_behind_cut_links_is_followed_by_another(tmp_path: Path) -> None:
    """What is said of cuts would mean nothing if members found another way to each other."""
    async with linked_cluster(tmp_path, 3) as cluster:
        first = await cluster.wait_leader()
        for link in cluster.links.of(cluster.links.around(first)):
            link.cut()
        others = [node for node in cluster.addresses if node != first]
        second = await new_leader(cluster, others, first)
        assert second in others
        await cluster.recover()
        assert await cluster.wait_leader() in cluster.addresses


async def new_leader(cluster: ProcessCluster, others: Sequence[int], first: int) -> int:
    """Whom the others name once it is not `first`."""
    with trio.fail_after(30):
        while True:
            found = [await cluster.status(node) for node in others]
            named = {0 if status is None else status.leader for status in found}
            if len(named) == 1 and named.isdisjoint({0, first}):
                return named.pop()


# ---------------------------------------------------------------------- links


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@asynccontextmanager
async def link_to_echo() -> AsyncGenerator[Link]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, echo, 0)
        link = Link(f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        await link.open(nursery)
        yield link
        nursery.cancel_scope.cancel()


async def dial(link: Link) -> trio.SocketStream:
    host, _, port = link.address.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def heard(stream: trio.SocketStream, text: bytes) -> bytes:
    await stream.send_all(text)
    with trio.fail_after(10):
        return bytes(await stream.receive_some())


@pytest.mark.trio
async def test_a_clogged_link_holds_bytes_and_lets_them_go() -> None:
    async with link_to_echo() as link, await dial(link) as stream:
        assert await heard(stream, b"one") == b"one"
        link.clog()
        await stream.send_all(b"two")
        with trio.move_on_after(0.1) as held:
            await stream.receive_some()
        assert held.cancelled_caught
        link.unclog()
        with trio.fail_after(10):
            assert await stream.receive_some() == b"two"


@pytest.mark.trio
async def test_a_cut_link_breaks_what_it_held_when_it_heals() -> None:
    async with link_to_echo() as link, await dial(link) as stream:
        assert await heard(stream, b"one") == b"one"
        link.cut()
        link.cut()
        await stream.send_all(b"lost")
        link.heal()
        assert not link.is_open
        link.heal()
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        async with await dial(link) as again:
            assert await heard(again, b"two") == b"two"


def test_links_of_a_split_and_of_a_bridge() -> None:
    links = Links({node: f"127.0.0.1:{node}" for node in (1, 2, 3)})
    assert links.across(0b0010) == [(1, 2), (1, 3), (2, 1), (3, 1)]
    assert links.across(0b0010, 2) == [(1, 3), (3, 1)]
    assert links.around(2) == [(1, 2), (3, 2), (2, 1), (2, 3)]


# ---------------------------------------------------------------------- times and refusals


def test_times_are_stretched_to_as_many_real_election_timeouts() -> None:
    case = Case(0, chaos_ns=SECOND, raft=RaftKnobs(election_ms=200))
    assert pace_of(case, 10).stretch == 2
    assert pace_of(case, 10).seconds(SECOND // 2) == 1
    assert pace_of(replace(case, chaos_ns=20 * SECOND), 10).stretch == 0.5


def test_what_cannot_be_done_is_named_before_anything_starts() -> None:
    plan = tuple(Fault(0, kind, 1) for kind in (FaultKind.WALL_JUMP, FaultKind.FSYNC_ERROR, FaultKind.CRASH))
    case = Case(
        0, spares=1, clocks=(ClockKnobs(),) * 4, plan=(*plan, plan[0]), raft=RaftKnobs(pre_vote=False)
    )
    with pytest.raises(InvalidInput) as refused:
        require_possible(Scenario("mine", case))
    assert str(refused.value) == (
        "mine: real processes cannot do this: the fault wall-jump; the fault fsync-error; spare members; "
        "clocks that are wrong; raft.pre_vote. Run it in the simulator: quorker sim run mine"
    )


def test_the_command_refuses_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert real_run.main(["partition-leader", "disk-full"]) == EXIT_USAGE
    assert capsys.readouterr().err.startswith("disk-full: real processes cannot do this: the fault file-full")


def test_many_shipped_scenarios_are_possible() -> None:
    left_out: list[str] = []
    found = real_run.possible(left_out.append)
    assert len(found) + len(left_out) == len(shipped())
    assert len(found) >= 15


# ---------------------------------------------------------------------- verdicts

JOB = "job"
GOOD_RECORD: dict[str, Any] = {
    "state": "Succeeded",
    "tags": ["1"],
    "history": [{"name": "Succeeded", "data": {"token": 5}}],
}
GOOD_RUN = Execution(JOB, 5, 1, 1, 1.0, 2.0, "finished")


def record_of(*lines: Line) -> Record:
    record = Record(lines=list(lines))
    record.asked.acknowledged[JOB] = 1
    return record


def test_a_good_ledger_breaks_nothing() -> None:
    verdict = judge(record_of(), {JOB: GOOD_RECORD}, [GOOD_RUN])
    assert verdict.broken == []
    assert verdict.acknowledged == 1


@pytest.mark.parametrize(
    ("records", "runs", "said"),
    [
        ({}, [GOOD_RUN], "1 acknowledged jobs are lost"),
        ({JOB: GOOD_RECORD}, [GOOD_RUN._replace(ending="")], "1 acknowledged jobs are lost"),
        ({JOB: GOOD_RECORD | {"state": "Processing"}}, [GOOD_RUN], "1 jobs have not ended"),
        (
            {JOB: GOOD_RECORD | {"history": GOOD_RECORD["history"] * 2}},
            [GOOD_RUN],
            "1 jobs were completed twice",
        ),
        (
            {JOB: GOOD_RECORD, "other": GOOD_RECORD},
            [GOOD_RUN],
            "1 calls made more than one job",
        ),
        (
            {JOB: GOOD_RECORD, "ghost": GOOD_RECORD | {"tags": ["2"]}},
            [GOOD_RUN],
            "1 jobs exist that were refused, or that nobody asked for",
        ),
    ],
)
def test_a_broken_promise_is_named(records: dict[str, Any], runs: list[Execution], said: str) -> None:
    record = record_of()
    record.asked.refused.add(2)
    assert judge(record, records, runs).broken == [said]


def test_a_job_may_be_completed_once_more_for_each_wish_to_run_it_again() -> None:
    record = record_of()
    record.requeued[JOB] = 1
    twice = GOOD_RECORD | {"history": GOOD_RECORD["history"] * 2}
    assert judge(record, {JOB: twice}, [GOOD_RUN]).broken == []


def test_a_stale_read_and_a_lock_in_two_hands_are_seen() -> None:
    stale = [
        Line(1, Kind.INVOKE, "put", "x", "r"),
        Line(1, Kind.OK, "put", None, "r"),
        Line(2, Kind.INVOKE, "get", None, "r"),
        Line(2, Kind.OK, "get", "", "r"),
    ]
    twice = [
        Line(process, kind, "acquire", value, "l")
        for process, token in ((3, 7), (4, 8))
        for kind, value in ((Kind.INVOKE, None), (Kind.OK, token))
    ]
    broken = judge(record_of(*stale, *twice), {JOB: GOOD_RECORD}, [GOOD_RUN]).broken
    assert [each.split(":")[0] for each in broken] == ["locks", "registers"]


def test_locks_of_unknown_hands_are_not_judged() -> None:
    lines = [Line(1, Kind.INVOKE, "acquire", None, "l"), Line(1, Kind.INFO, "acquire", None, "l")]
    verdict = judge(record_of(*lines), {JOB: GOOD_RECORD}, [GOOD_RUN])
    assert verdict.locks is None
    assert any(NOT_JUDGED in line for line in verdict.lines())


@pytest.mark.parametrize(("missing", "code"), [(0, EXIT_OK), (1, EXIT_REFUSED)])
def test_the_exit_code_tells(missing: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ended(*_: object) -> real_run.RealRun:
        await trio.lowlevel.checkpoint()
        records = {} if missing else {JOB: GOOD_RECORD}
        return real_run.RealRun("partition-leader", {}, 1, judge(record_of(), records, [GOOD_RUN]))

    monkeypatch.setattr(real_run, "run_real", ended)
    assert real_run.main(["partition-leader"]) == code
