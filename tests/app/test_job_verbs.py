"""What the command line does to jobs and queues of a real node, by id and by filter, and how it follows them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from quorker.app import App
from quorker.app.cli import main
from quorker.app.cli.program import EXIT_INTERRUPTED, EXIT_PIPE
from quorker.core.errors import EXIT_CORRUPT, EXIT_NO_QUORUM, EXIT_OK, EXIT_REFUSED, EXIT_USAGE
from quorker.jepsen_like.commands import COMMAND, Quorker, Ran

TASKS = """
from pathlib import Path
import trio
from quorker.app import App, NO_RETRY
app = App("shop")

@app.task(queue="mail", retry=NO_RETRY)
async def send(user: int) -> int:
    if user < 0:
        raise ValueError(f"no user {user}")
    return user

@app.task
async def hold(name: str) -> None:
    Path(f"{name}.started").touch()
    try:
        await trio.sleep_forever()
    finally:
        Path(f"{name}.stopped").touch()
"""
PATIENCE_SECONDS = 60
NOBODY = "0" * 13


class Node(NamedTuple):
    """A running `quorker node`: where it listens, and the directory it runs in."""

    address: str
    directory: Path


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Generator[Node]:
    directory = tmp_path_factory.mktemp("node")
    (directory / "shop.py").write_text(TASKS)
    process = subprocess.Popen(
        [*COMMAND, "node", "shop:app", "--listen", "127.0.0.1:0", "--workers", "4", "--stop-at-eof",
         "--shutdown-timeout", "0"],
        cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
    assert found
    yield Node(found[0], directory)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == EXIT_OK


@pytest.fixture
def quorker(
    node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Quorker:
    monkeypatch.setenv("QUORKER_ADDRESS", node.address)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    (tmp_path / "shop.py").write_text(TASKS)

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


def ok(ran: Ran) -> str:
    assert (ran.code, ran.err) == (EXIT_OK, "")
    return ran.out


def documents(ran: Ran) -> list[Any]:
    return [json.loads(line) for line in ok(ran).splitlines()]


def until(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def enqueue(quorker: Quorker, task: str, *arguments: str) -> str:
    return str(
        documents(quorker("job", "enqueue", task, "--app", "shop:app", "-o", "jsonl", *arguments))[0]["id"]
    )


def waiting(quorker: Quorker, tag: str, count: int = 3) -> list[str]:
    """Jobs that will not run during the test, the oldest first."""
    return [enqueue(quorker, "send", "--delay", "1h", "--tag", tag, "--", str(n)) for n in range(count)]


def failed(quorker: Quorker, tag: str, count: int = 2) -> list[str]:
    ids = [enqueue(quorker, "send", "--tag", tag, "--", f"-{n}") for n in range(1, count + 1)]
    until(lambda: states(quorker, *ids) == ["Failed"] * count)
    return ids


def states(quorker: Quorker, *ids: str) -> list[str]:
    return [each["state"] for each in documents(quorker("job", "show", *ids, "-o", "jsonl"))]


# Looking ----------------------------------------------------------------------------------------------------------


def test_a_listing_in_all_its_forms(quorker: Quorker) -> None:
    ids = waiting(quorker, "forms")
    table = ok(quorker("job", "ls", "--tag", "forms"))
    assert table.splitlines()[0].split() == ["JOB", "STATE", "QUEUE", "FAILED", "SINCE", "(UTC)", "CALL"]
    assert [line.split()[0] for line in table.splitlines()[1:]] == ids[::-1]
    rows = documents(quorker("job", "ls", "--tag", "forms", "-o", "jsonl"))
    assert [(row["id"], row["args"], row["kwargs"]) for row in rows] == [
        (job_id, [number], {}) for number, job_id in reversed(list(enumerate(ids)))
    ]
    assert json.loads(ok(quorker("job", "ls", "--tag", "forms", "-o", "json"))) == rows


def test_the_next_page_is_named_on_stderr(quorker: Quorker) -> None:
    ids = waiting(quorker, "pages")
    first = quorker("job", "ls", "--tag", "pages", "--limit", "2", "-o", "jsonl")
    assert [json.loads(line)["id"] for line in first.out.splitlines()] == [ids[2], ids[1]]
    found = re.fullmatch(r"quorker: there are more; the next page is --after (\S+)\n", first.err)
    assert (first.code, bool(found)) == (EXIT_OK, True)
    assert found
    rest = documents(quorker("job", "ls", "--tag", "pages", "--after", found[1], "-o", "jsonl"))
    assert [row["id"] for row in rest] == [ids[0]]


def test_several_jobs_are_shown_and_the_unknown_named(quorker: Quorker) -> None:
    ids = waiting(quorker, "several", 2)
    ran = quorker("job", "show", ids[0], NOBODY, ids[1], "-o", "json")
    assert [found["id"] for found in json.loads(ran.out)] == ids
    assert (ran.code, ran.err.startswith(f"quorker: no job {NOBODY} in this cluster")) == (EXIT_CORRUPT, True)
    assert ok(quorker("job", "show", *ids)).count("history (newest first)") == 2


# Changing by id ---------------------------------------------------------------------------------------------------


def test_a_running_job_learns_that_it_is_cancelled(quorker: Quorker, node: Node) -> None:
    job_id = enqueue(quorker, "hold", "cancelled")
    until((node.directory / "cancelled.started").exists)
    assert ok(quorker("job", "cancel", job_id)) == f"JOB            OUTCOME\n{job_id}  cancelled\n"
    until((node.directory / "cancelled.stopped").exists)
    assert states(quorker, job_id) == ["Deleted"]


def test_what_has_ended_cannot_be_cancelled(quorker: Quorker) -> None:
    (job_id,) = failed(quorker, "ended", 1)
    ran = quorker("job", "cancel", job_id)
    assert ran == Ran(EXIT_REFUSED, "", f"quorker: job {job_id} was not cancelled: it is Failed\n")
    assert quorker("job", "cancel", job_id, "--state", "failed").code == EXIT_USAGE
    assert states(quorker, job_id) == ["Failed"]


def test_a_failure_among_many_is_listed_and_is_exit_code_1(quorker: Quorker) -> None:
    ids = failed(quorker, "partly")
    ran = quorker("job", "delete", ids[0], NOBODY, ids[1], "-o", "json")
    assert ran.code == EXIT_REFUSED
    assert ran.err == "quorker: 1 of 3 jobs could not be deleted\n"
    endings = {each["id"]: each["ending"] for each in json.loads(ran.out)}
    assert endings == {ids[0]: "changed", NOBODY: "failed", ids[1]: "changed"}
    again = quorker("job", "delete", *ids)
    assert ok(again).count("unchanged: it is Deleted already") == 2
    assert quorker("job", "delete", NOBODY).code == EXIT_CORRUPT


def test_ids_may_have_to_be_in_a_state(quorker: Quorker) -> None:
    (failing,) = failed(quorker, "either", 1)
    (later,) = waiting(quorker, "either", 1)
    ran = quorker("job", "requeue", failing, later, "--state", "failed", "-o", "jsonl")
    endings = {(each := json.loads(line))["id"]: each["ending"] for line in ran.out.splitlines()}
    assert (ran.code, endings) == (EXIT_REFUSED, {failing: "changed", later: "skipped"})
    assert states(quorker, later) == ["Scheduled"]


def test_a_dry_run_by_id(quorker: Quorker) -> None:
    (later,) = waiting(quorker, "dry", 1)
    shown = ok(quorker("job", "delete", later, "--dry-run"))
    assert shown.splitlines()[-1] == "would delete 1 job; repeat without --dry-run"
    assert later in shown
    ran = quorker("job", "delete", later, NOBODY, "--dry-run")
    assert (ran.code, ran.err) == (EXIT_REFUSED, f"quorker: unknown: {NOBODY}\n")
    assert states(quorker, later) == ["Scheduled"]


# Changing what matches --------------------------------------------------------------------------------------------


def test_many_are_changed_only_when_that_was_said(quorker: Quorker) -> None:
    ids = failed(quorker, "bulk", 3)
    which = ("job", "requeue", "--state", "failed", "--tag", "bulk")
    shown = ok(quorker(*which, "--dry-run"))
    assert [line.split()[0] for line in shown.splitlines()[1:-1]] == ids[::-1]
    assert shown.splitlines()[-1] == "would requeue 3 jobs; repeat without --dry-run"
    ran = quorker(*which)  # standard input is no terminal here
    assert ran.code == EXIT_USAGE
    assert ran.err == "quorker: this would requeue 3 jobs: repeat with --yes, or with --dry-run to see them\n"
    assert {each["failures"] for each in documents(quorker("job", "show", *ids, "-o", "jsonl"))} == {1}
    assert ok(quorker(*which, "--limit", "1", "--yes")) == "requeued 1 job\n"
    until(lambda: states(quorker, *ids) == ["Failed"] * 3)
    deliveries = [each["deliveries"] for each in documents(quorker("job", "show", *ids, "-o", "jsonl"))]
    assert deliveries == [1, 1, 2]  # the newest
    assert ok(quorker("job", "delete", "--state", "failed", "--tag", "bulk", "-y")) == "deleted 3 jobs\n"
    assert ok(quorker(*which, "--yes")) == "no job matches\n"
    assert ok(quorker(*which, "--dry-run")) == "no job matches\n"


def test_cancel_needs_no_state(quorker: Quorker) -> None:
    waiting(quorker, "all-waiting")
    failed(quorker, "all-waiting", 1)
    assert ok(quorker("job", "cancel", "--tag", "all-waiting", "--yes")) == "cancelled 3 jobs\n"
    rows = documents(quorker("job", "ls", "--tag", "all-waiting", "-o", "jsonl"))
    assert sorted(row["state"] for row in rows) == ["Deleted"] * 3 + ["Failed"]


@pytest.mark.parametrize(
    ("answer", "code", "state"), [("y", EXIT_OK, "Deleted"), ("n", EXIT_REFUSED, "Scheduled")]
)
def test_on_a_terminal_it_asks(quorker: Quorker, node: Node, answer: str, code: int, state: str) -> None:
    ids = waiting(quorker, f"terminal-{answer}", 2)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "job", "cancel", "--tag", f"terminal-{answer}"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    os.close(ours)
    assert process.returncode == code
    assert err == "cancel 2 jobs? [y/N] " + ("" if answer == "y" else "quorker: nothing was changed\n")
    assert states(quorker, *ids) == [state] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("job", "requeue"), "which jobs? Give ids, or filters as in `quorker job requeue --state failed`"),
        (("job", "delete", "--yes"), "which jobs? Give ids"),
        (("job", "delete", "--task", "*"), "to delete all that match, say in which states, with --state: enqueued"),
        (("job", "requeue", "--state", "lost"), "no state 'lost': one of enqueued"),
        (("job", "cancel", "--state", "succeeded"), "cancel is for jobs that have not ended"),
        (("job", "delete", "x", "--task", "send"), "give ids or filters"),
        (("job", "delete", "a job"), "job id='a job'"),
        (("job", "delete", "--state", "failed", "--limit", "0"), "--limit 0: delete at least one job"),
        (("job", "show"), "which jobs? `quorker job ls` lists them"),
        (("job", "ls", "--after", "x"), "after 'x' is no place to go on from"),
        (("job", "ls", "--queue", "Mail"), "queue='Mail'"),
        (("job", "ls", "--task", "a b"), "task='a b'"),
        (("job", "ls", "--tag", ""), "tag=''"),
        (("queue", "pause"), "which queues? `quorker queue ls` lists them"),
        (("queue", "pause", "Mail"), "queue='Mail'"),
        (("queue", "pause", "mail", "--reason", "x" * 2000), "reason: must be text of 0 to 1024 characters"),
        (("queue", "pause", "mail", "--author", "x" * 300), "author: must be text of 0 to 200 characters"),
        (("tail", "--interval", "0.5"), "--interval 0.5: give 1 to 3600 seconds"),
        (("tail", "--interval", "nan"), "--interval nan: give 1 to 3600 seconds"),
        (("tail", "--count", "0"), "--count 0: show at least one change"),
        (("tail", "--tag", "x"), "Unknown option: --tag"),
        (("completion", "tcsh"), 'Choose from: "bash", "zsh", "fish"'),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_usage(quorker: Quorker, arguments: tuple[str, ...], said: str) -> None:
    ran = quorker(*arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (EXIT_USAGE, "", 1)
    assert ran.err.startswith("quorker: ")
    assert said in ran.err


# Queues, servers, locks -------------------------------------------------------------------------------------------


def queue_row(quorker: Quorker, name: str) -> dict[str, Any]:
    rows = {row["name"]: row for row in documents(quorker("queue", "ls", "-o", "jsonl"))}
    found: dict[str, Any] = rows[name]
    return found


def test_a_paused_queue_keeps_its_jobs_and_says_why(quorker: Quorker) -> None:
    assert (
        ok(quorker("queue", "pause", "mail", "--reason", "smtp down", "--author", "ann")) == "mail  paused\n"
    )
    job_id = enqueue(quorker, "send", "1")
    row = queue_row(quorker, "mail")
    assert (row["paused"], row["reason"], row["author"], row["length"]) == (True, "smtp down", "ann", 1)
    assert re.search(r"^mail +1 +0  yes +\S+ \S+  ann +smtp down$", ok(quorker("queue", "ls")), re.MULTILINE)
    shown = ok(quorker("queue", "pause", "mail"))
    assert shown == "mail  was paused already, its reason is replaced\n"
    assert "@" in queue_row(quorker, "mail")["author"]
    assert states(quorker, job_id) == ["Enqueued"]
    assert ok(quorker("queue", "resume", "mail")) == "mail  resumed\n"
    until(lambda: states(quorker, job_id) == ["Succeeded"])
    assert ok(quorker("queue", "resume", "mail")) == "mail  was not paused\n"


def test_a_misspelt_queue_is_noticed(quorker: Quorker) -> None:
    note = "(nothing has used a queue of this name so far)"
    assert ok(quorker("queue", "resume", "mial")) == f"mial  was not paused {note}\n"
    assert ok(quorker("queue", "pause", "mial")) == f"mial  paused {note}\n"
    assert json.loads(ok(quorker("queue", "resume", "mial", "-o", "json"))) == [
        {"name": "mial", "paused": False, "changed": True, "was_known": True}
    ]


def test_servers_are_those_that_take_jobs(quorker: Quorker) -> None:
    rows = documents(quorker("server", "ls", "-o", "jsonl"))
    assert [(row["name"], row["slots"], row["queues"]) for row in rows] == [
        ("node-1", 4, ["mail", "default"])
    ]
    assert re.search(r"^node-1 +\d+  mail, default +4 ", ok(quorker("server", "ls")), re.MULTILINE)


def test_locks_with_their_holders(quorker: Quorker, node: Node) -> None:
    assert ok(quorker("lock", "ls")).split() == [
        "LOCK",
        "HOLDER",
        "TOKEN",
        "SINCE",
        "(UTC)",
        "ENDS",
        "WAITING",
    ]
    app = App("shop")
    with app.connect(node.address), app.lock("invoice:7", timeout=10) as lock:
        (row,) = documents(quorker("lock", "ls", "-o", "jsonl"))
        assert (row["resource"], row["token"], row["waiting"]) == ("invoice:7", lock.fence, 0)
        (client,) = [
            each
            for each in documents(quorker("server", "ls", "--all", "-o", "jsonl"))
            if each["session"] == row["session"]
        ]
        assert (client["slots"], client["locks"]) == (0, 1)
        shown = ok(quorker("lock", "ls"))
    assert re.search(
        rf"^invoice:7  \S+ +{lock.fence}  \S+ \S+  (with its session|in .*) +0$", shown, re.MULTILINE
    )


# Following --------------------------------------------------------------------------------------------------------


def test_changes_are_followed_until_enough_are_shown(quorker: Quorker) -> None:
    process = subprocess.Popen(
        [*COMMAND, "tail", "--state", "scheduled", "--count", "2", "-o", "jsonl"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline() == "quorker: following the jobs (Ctrl-C ends)\n"
    ids = waiting(quorker, "followed", 2)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    shown = [(each["id"], each["state"], each["args"]) for each in map(json.loads, out.splitlines())]
    assert (process.returncode, err) == (EXIT_OK, "")
    assert shown == [(ids[0], "Scheduled", [0]), (ids[1], "Scheduled", [1])]


def test_ctrl_c_ends_it_quietly(quorker: Quorker) -> None:
    process = subprocess.Popen([*COMMAND, "tail"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=PATIENCE_SECONDS)[1], process.returncode) == ("", EXIT_INTERRUPTED)


def test_without_a_cluster_tail_ends_and_says_so(quorker: Quorker) -> None:
    ran = quorker("tail", "--address", "127.0.0.1:1", "--timeout", "0.2")
    assert (ran.code, ran.out) == (EXIT_NO_QUORUM, "")


# What shells expect -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_a_reader_that_has_gone_ends_the_command_quietly(quorker: Quorker, output: str) -> None:
    waiting(quorker, "pipe", 1)
    theirs, ours = os.pipe()
    os.close(theirs)
    ran = subprocess.run(
        [*COMMAND, "job", "ls", "-o", output], stdout=ours, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(ours)
    assert (ran.returncode, ran.stderr) == (EXIT_PIPE, "")


def completed(script: Path, *words: str) -> list[str]:
    """What bash would offer for the last word."""
    program = f'source {script}; COMP_WORDS=("$@"); COMP_CWORD={len(words) - 1}; _quorker; printf "%s\\n" "${{COMPREPLY[@]}}"'
    ran = subprocess.run(["bash", "-c", program, "bash", *words], capture_output=True, text=True, check=True)
    return ran.stdout.split()


def test_bash_completes_commands_options_and_choices(quorker: Quorker, tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(ok(quorker("completion", "bash")))
    assert completed(script, "quorker", "job", "re") == ["requeue"]
    assert completed(script, "quorker", "job", "requeue", "--dry") == ["--dry-run"]
    assert completed(script, "quorker", "queue", "ls", "-o", "js") == ["json", "jsonl"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_too(quorker: Quorker, shell: str) -> None:
    shown = ok(quorker("completion", shell))
    assert all(word in shown for word in ("requeue", "dry-run", "quorker"))
