"""What the command line shows of batches and does to them, on a real node."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from quorker.app import NO_RETRY, App
from quorker.app.cli import main
from quorker.core.errors import EXIT_CORRUPT, EXIT_OK, EXIT_USAGE
from quorker.jepsen_like.commands import Quorker, Ran

NOBODY = "0" * 13
app = App("batch-commands")


@app.task(retry=NO_RETRY)
async def fail(x: int) -> None:
    raise ValueError(f"not {x}")


@app.task
async def report() -> None: ...


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A node without workers."""
    with app.node(tmp_path_factory.mktemp("node"), profile="fast", workers=0) as node:
        yield node.address


@pytest.fixture
def quorker(
    address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Quorker:
    monkeypatch.setenv("QUORKER_ADDRESS", address)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return run


def make(name: str, count: int) -> str:
    with app.batch(name, finally_=report) as batch:
        for x in range(count):
            fail.using(batch=batch).enqueue(x)
    return batch.id


def test_batches_are_listed_newest_first_and_page_by_page(quorker: Quorker) -> None:
    ids = [make(f"batch {number}", number) for number in range(1, 4)]
    ran = quorker("batch", "ls", "--limit", "2", "-o", "json")
    rows = json.loads(ran.out)
    assert [(row["id"], row["total"], row["state"]) for row in rows] == [
        (ids[2], 3, "Pending"),
        (ids[1], 2, "Pending"),
    ]
    assert "the next page is --after" in ran.err
    after = ran.err.split()[-1]
    lines = quorker("batch", "ls", "--after", after, "-o", "jsonl").out.splitlines()
    assert json.loads(lines[0])["id"] == ids[0]


def test_a_batch_is_shown_with_its_callbacks(quorker: Quorker) -> None:
    batch_id = make("shown", 2)
    found = json.loads(quorker("batch", "show", batch_id, "-o", "json").out)
    assert (found["name"], found["pending"], found["expires_in_ms"]) == ("shown", 2, None)
    assert [(each["task"], each["on"], each["state"]) for each in found["callbacks"]] == [
        ("report", "any", "Awaiting")
    ]
    shown = quorker("batch", "show", batch_id).out
    assert "2 pending" in shown
    assert "ended" not in shown
    assert (
        f"batch     {batch_id}" in quorker("job", "show", json.loads(members(quorker, batch_id)[0])["id"]).out
    )


def members(quorker: Quorker, batch_id: str) -> list[str]:
    return quorker("batch", "jobs", batch_id, "-o", "jsonl").out.splitlines()


def test_members_are_listed_and_called_off(quorker: Quorker) -> None:
    batch_id, other = make("one", 3), make("other", 2)
    assert len(members(quorker, batch_id)) == 3
    job_id = json.loads(members(quorker, batch_id)[1])["id"]
    assert quorker("job", "cancel", job_id).code == EXIT_OK
    deleted = quorker("batch", "jobs", batch_id, "--state", "deleted", "-o", "json")
    assert [(row["id"], row["args"]) for row in json.loads(deleted.out)] == [(job_id, [1])]
    assert quorker("batch", "cancel", batch_id).out == f"{batch_id}  2 jobs deleted\n"
    assert json.loads(quorker("batch", "cancel", other, "-o", "json").out) == {"id": other, "deleted": 2}
    assert json.loads(quorker("batch", "show", other, "-o", "json").out)["state"] == "Failed"


def test_what_is_not_there_and_what_is_wrong_is_told(quorker: Quorker) -> None:
    for verb in ("show", "cancel"):
        ran = quorker("batch", verb, NOBODY)
        assert (ran.code, ran.out) == (EXIT_CORRUPT, "")
        assert f"no batch {NOBODY}" in ran.err
        ran = quorker("batch", verb, "nothing")
        assert (ran.code, "batch id='nothing'" in ran.err) == (EXIT_USAGE, True)
    assert quorker("batch", "jobs", NOBODY).out.splitlines() == [
        "JOB  STATE  QUEUE  FAILED  SINCE (UTC)  CALL"
    ]
    assert quorker("batch", "jobs", NOBODY, "--state", "odd").code == EXIT_USAGE
    assert quorker("batch", "ls", "--limit", "0").code == EXIT_USAGE
