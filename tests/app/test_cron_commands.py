"""`quorker cron`: what the command line shows of recurring jobs of a real node, and what it changes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from quorker.app import App
from quorker.app.app import load_app
from quorker.app.cli import main
from quorker.core.errors import EXIT_CORRUPT, EXIT_OK, EXIT_REFUSED, EXIT_USAGE
from quorker.jepsen_like.commands import COMMAND, Quorker, Ran

TASKS = """
from quorker.app import App, NO_RETRY
app = App("shop")

@app.recurring("30 2 * * *", tz="Europe/Berlin", id="report-eu", args=["eu"], queue="reports", tags=["night"], unique="eu")
@app.recurring("0 0 1 1 *", id="report-all", args=["all"], misfire="skip", grace=90)
@app.recurring(every=86400, id="tidy", args=["us"])
@app.task(retry=NO_RETRY)
async def report(region: str) -> str:
    return region
"""
FEWER = """
from quorker.app import App
app = App("shop")

@app.recurring(every=86400, id="tidy", args=["us"])
@app.task
async def report(region: str) -> str:
    return region
"""
IDS = ["report-all", "report-eu", "tidy"]
PATIENCE_SECONDS = 60


class Node(NamedTuple):
    """A running `quorker node`: where it listens, and the directory it runs in."""

    address: str
    directory: Path


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Generator[Node]:
    directory = tmp_path_factory.mktemp("node")
    (directory / "shop.py").write_text(TASKS)
    (directory / "fewer.py").write_text(FEWER)
    process = subprocess.Popen(
        [*COMMAND, "node", "shop:app", "--listen", "127.0.0.1:0", "--workers", "2", "--stop-at-eof"],
        cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
    assert found
    until(lambda: ids_at(found[0]) == IDS)  # what the code declares is there once the node leads
    yield Node(found[0], directory)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == EXIT_OK


def ids_at(address: str) -> list[str]:
    app = App("shop")
    with app.connect(address):
        return [each.id for each in app.schedules.list()]


@pytest.fixture
def quorker(node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Quorker:
    """Each test finds the three as if they had just been declared."""
    monkeypatch.setenv("QUORKER_ADDRESS", node.address)
    monkeypatch.chdir(node.directory)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in ("shop", "fewer"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    def run(*arguments: str) -> Ran:
        code = main(arguments if arguments[0] == "job" else ("cron", *arguments))
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    declare_anew(load_app("shop:app"), node.address)
    until(lambda: all(row["next_wt"] for row in documents(run("ls", "-o", "jsonl"))))
    return run


def declare_anew(app: App, address: str) -> None:
    with app.connect(address):
        for each in app.schedules.list():
            app.schedules.remove(each.id)
        for each_id in app.declared:
            app.schedules.get(each_id)


def until(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def ok(ran: Ran) -> str:
    assert (ran.code, ran.err) == (EXIT_OK, "")
    return ran.out


def documents(ran: Ran) -> list[Any]:
    return [json.loads(line) for line in ok(ran).splitlines()]


def rows(ran: Ran) -> list[list[str]]:
    return [re.split(r" {2,}", line) for line in ok(ran).splitlines()]


def test_ls(quorker: Quorker) -> None:
    heads, everything, europe, tidy = rows(quorker("ls"))
    assert heads == ["RECURRING", "WHEN", "NEXT", "FIRED", "STATE", "CALL"]
    assert everything[:2] + everything[3:] == ["report-all", "0 0 1 1 * UTC", "0", "active", "report('all')"]
    assert re.fullmatch(r"\d{4}-01-01 00:00:00\+00:00", everything[2])
    assert europe[:2] + europe[3:] == ["report-eu", "30 2 * * * Europe/Berlin", "0", "active", "report('eu')"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d 0[23]:[03]0:00\+0[12]:00", europe[2])
    assert tidy[:2] == ["tidy", "every 1 d"]
    (row, _, _) = json.loads(ok(quorker("ls", "-o", "json")))
    assert (row["id"], row["cron"], row["zone"], row["every_ms"]) == ("report-all", "0 0 1 1 *", "UTC", 0)
    assert (row["args"], row["kwargs"], row["managed_by"], row["misfire"]) == (["all"], {}, "shop", "skip")


def test_show(quorker: Quorker) -> None:
    shown = ok(quorker("show", "report-eu", "tidy"))
    assert [line.split("  ")[0] for line in shown.split("\n\n")[0].splitlines()] == [
        "recurring", "call", "when", "in words", "misfire", "queue", "unique", "tags", "managed by", "state", "created", "next", "fired",
    ]  # fmt: skip
    assert "in words    At 02:30 every day\n" in shown
    assert "managed by  the code of app shop\n" in shown
    assert "misfire     skip, at most 90000 ms late\n" in ok(quorker("show", "report-all"))
    assert json.loads(ok(quorker("show", "tidy", "-o", "json")))["every_ms"] == 86_400_000
    assert [row["id"] for row in json.loads(ok(quorker("show", "tidy", "report-eu", "-o", "json")))] == [
        "tidy", "report-eu",
    ]  # fmt: skip


def test_show_of_one_that_is_unknown(quorker: Quorker) -> None:
    ran = quorker("show", "nope", "tidy", "nor-this")
    assert ran.code == EXIT_CORRUPT
    assert ran.out.startswith("recurring")
    assert ran.err.startswith("quorker: no recurring job nope, nor-this in this cluster")
    assert quorker("show").code == EXIT_USAGE
    assert quorker("show", "no pe").code == EXIT_USAGE


def test_next(quorker: Quorker) -> None:
    heads, *slots = rows(quorker("next", "report-eu", "-n", "3"))
    assert heads == ["SLOT", "UTC", "IN"]
    assert len(slots) == 3
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d 0[23]:[03]0:00\+0[12]:00", slot) for slot, _, _ in slots)
    assert [row["id"] for row in documents(quorker("next", "tidy", "-n", "2", "-o", "jsonl"))] == ["tidy"] * 2
    assert len(rows(quorker("next", "--cron", "*/5 * * * *", "--tz", "Asia/Kathmandu"))) == 6
    quorker("pause", "tidy")
    ran = quorker("next", "tidy")
    assert (ran.code, ran.err) == (EXIT_REFUSED, "quorker: tidy does not fire: it is paused\n")
    assert quorker("next", "nope").code == EXIT_CORRUPT


WRONG = (
    (("next",), "give the id of a recurring job, or --cron"),
    (("next", "tidy", "--cron", "@daily"), "give the id of a recurring job, or --cron"),
    (("next", "tidy", "--tz", "UTC"), "--tz is the zone of --cron"),
    (("next", "--cron", "61 * * * *"), "minute"),
    (("next", "--cron", "@daily", "--tz", "Mars"), "zone 'Mars'"),
    (("next", "tidy", "-n", "0"), "--count=0"),
    (("pause",), "which recurring jobs?"),
    (("rm", "no pe"), "recurring id='no pe'"),
    (("trigger", "report-*"), "recurring id='report-*'"),
    (("prune",), "Give --app MODULE:app"),
    (("rm", "report-*"), "this would remove 2 recurring jobs: repeat with --yes, or with --dry-run"),
)


def test_wrong_usage(quorker: Quorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for line, why in WRONG:
        ran = quorker(*line)
        assert (ran.code, ran.out) == (EXIT_USAGE, ""), line
        assert why in ran.err
    assert len(documents(quorker("ls", "-o", "jsonl"))) == len(IDS)


def test_trigger(quorker: Quorker) -> None:
    heads, line = rows(quorker("trigger", "report-eu"))
    assert (heads, line[0]) == (["RECURRING", "JOB"], "report-eu")
    shown = json.loads(ok(quorker("show", "report-eu", "-o", "json")))
    assert (shown["last_job_id"], shown["fired"], shown["last_slot_wt"]) == (line[1], 1, None)
    ran = quorker("trigger", "nope", "tidy", "-o", "jsonl")
    assert ran.code == EXIT_CORRUPT
    assert [json.loads(each)["id"] for each in ran.out.splitlines()] == ["tidy"]


def test_a_job_says_of_which_one_it_is_and_for_which_slot(quorker: Quorker, node: Node) -> None:
    (_, (_, job_id)) = rows(quorker("trigger", "tidy"))
    assert "recurring  tidy, triggered\n" in ok(quorker("job", "show", job_id))
    app = load_app("shop:app")
    with app.connect(node.address):
        app.schedules.set("soon", app.tasks["report"].call("eu"), every=0.05)
        known = until(lambda: found if (found := app.schedules.get("soon")).fired else None)
        app.schedules.remove("soon")
    shown = ok(quorker("job", "show", known.last_job))
    assert f"recurring  soon, slot {known.last_slot:%Y-%m-%d %H:%M:%S} UTC\n" in shown


def test_pause_and_resume(quorker: Quorker) -> None:
    paused = quorker("pause", "tidy", "report-eu", "--reason", "moving", "--author", "ann")
    assert rows(paused)[1:] == [["tidy", "paused"], ["report-eu", "paused"]]
    shown = ok(quorker("show", "tidy"))
    assert re.search(r"state +paused since .* by ann: moving\n", shown)
    assert "next " not in shown
    again = documents(quorker("pause", "tidy", "-o", "jsonl"))
    assert again == [
        {"id": "tidy", "ending": "unchanged", "why": "it was paused already, its reason is replaced"}
    ]
    assert rows(quorker("resume", "tidy"))[1:] == [["tidy", "resumed"]]
    assert rows(quorker("resume", "tidy"))[1:] == [["tidy", "unchanged: it was not paused"]]
    ran = quorker("pause", "nope")
    assert (ran.code, ran.out) == (EXIT_CORRUPT, "")
    ran = quorker("pause", "nope", "tidy")
    assert ran.code == EXIT_REFUSED
    assert ran.err == "quorker: 1 of 2 recurring jobs could not be paused\n"


def test_a_pattern_is_looked_at_first(quorker: Quorker) -> None:
    *table, last = ok(quorker("pause", "report-*", "--dry-run")).splitlines()
    assert [line.split()[0] for line in table] == ["RECURRING", "report-all", "report-eu"]
    assert last == "would pause 2 recurring jobs; repeat without --dry-run"
    assert rows(quorker("pause", "report-*", "tidy", "--yes"))[1:] == [[each, "paused"] for each in IDS]
    assert ok(quorker("resume", "x*", "--yes")) == "no recurring job matches\n"
    assert ok(quorker("resume", "x*", "--dry-run")) == "no recurring job matches\n"
    assert ok(quorker("rm", "tidy", "--dry-run")).endswith(
        "would remove 1 recurring job; repeat without --dry-run\n"
    )
    assert quorker("rm", "report-*", "nope", "--yes").code == EXIT_CORRUPT
    assert [row["paused"] for row in documents(quorker("ls", "-o", "jsonl"))] == [True] * 3


def test_rm(quorker: Quorker) -> None:
    assert rows(quorker("rm", "tidy"))[1:] == [["tidy", "removed"]]
    ran = quorker("rm", "tidy")
    assert (ran.code, ran.out) == (EXIT_CORRUPT, "")
    assert [row["id"] for row in documents(quorker("ls", "-o", "jsonl"))] == IDS[:2]


def test_prune(quorker: Quorker) -> None:
    assert ok(quorker("prune", "--app", "shop:app", "--yes")) == (
        "everything that app shop ever declared, it still declares\n"
    )
    *table, last = ok(quorker("prune", "--app", "fewer:app", "--dry-run")).splitlines()
    assert [line.split()[0] for line in table[1:]] == ["report-all", "report-eu"]
    assert last == "would remove 2 recurring jobs; repeat without --dry-run"
    pruned = documents(quorker("prune", "--app", "fewer:app", "--yes", "-o", "jsonl"))
    assert [row["id"] for row in pruned] == ["report-all", "report-eu"]
    assert [row["id"] for row in documents(quorker("ls", "-o", "jsonl"))] == ["tidy"]
