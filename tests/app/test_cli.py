"""The command line against a real node: what it prints, and its exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from quorker.app.cli import main, status_command
from quorker.core.errors import EXIT_CORRUPT, EXIT_NO_QUORUM, EXIT_OK, EXIT_REFUSED, EXIT_TIMEOUT, EXIT_USAGE
from quorker.jepsen_like.commands import COMMAND, Quorker, Ran
from quorker.transport.connection import Status

TASKS = """
from quorker.app import App, NO_RETRY, Retry
app = App("shop")

@app.task(queue="mail", retry=NO_RETRY)
async def send(user: int, *, subject: str = "") -> str:
    if user < 0:
        raise ValueError(f"no user {user}")
    return f"{user} {subject}"

@app.task(queue="mail", mutex=True, rate="1/h", expires=86400)
async def hourly() -> None: ...

@app.task
def thumbnails(path: str, sizes: list[int]) -> int:
    return len(sizes)
"""
JOB_ID = re.compile(r"[0-9A-Z]{13}")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The address of a running `quorker node`, in a directory with shop.py."""
    directory = tmp_path_factory.mktemp("node")
    (directory / "shop.py").write_text(TASKS)
    process = subprocess.Popen(
        [*COMMAND, "node", "shop:app", "--listen", "127.0.0.1:0", "--workers", "2", "--stop-at-eof"],
        cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(
        r"node 1 is up: cluster shop, (127\.0\.0\.1:\d+), data \.quorker/n1, 2 workers on mail, default \(Ctrl-C stops\)\n",
        line,
    )
    assert found, line
    yield found[1]
    process.terminate()
    rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (EXIT_OK, "node 1 stops on SIGTERM\n")


@pytest.fixture
def quorker(
    node: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Quorker:
    """`quorker("status")` runs a command that finds the node by the environment, in a directory of its own."""
    monkeypatch.setenv("QUORKER_ADDRESS", node)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    (tmp_path / "shop.py").write_text(TASKS)

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


def ok(ran: Ran, note: str = "") -> str:
    assert (ran.code, ran.err) == (EXIT_OK, note)
    return ran.out


def unchecked(task: str) -> str:
    """What is noted beside a job whose task nobody looked up."""
    return f"quorker: whether a worker has a task '{task}' was not checked: --app MODULE:app does that\n"


def as_json(ran: Ran) -> Any:
    return json.loads(ok(ran))


def test_status_of_a_node(quorker: Quorker) -> None:
    shown = ok(quorker("status"))
    assert re.search(r"^member   1 \(leader, term \d+\)$", shown, re.MULTILINE)
    assert re.search(r"^members  1: 1 vote, 0 may fail$", shown, re.MULTILINE)
    assert re.search(r"^leader   1$", shown, re.MULTILINE), "a leader hears nobody"
    assert re.search(
        r"^log      applied (\d+), committed \d+, last \d+, behind by \d+$", shown, re.MULTILINE
    ), shown
    found = as_json(quorker("status", "-o", "json"))
    assert found["member"]["leader"] == 1
    assert {queue["name"] for queue in found["queues"]} >= {"mail", "default"}


def test_status_of_a_member_without_a_vote(capsys: pytest.CaptureFixture[str]) -> None:
    member = Status(2, "shop", "follower", 5, 1, (1, 2, 3), 9, 9, 9, 0, 12, "", rejoining="promises")
    status_command.print_status(member, Counter[str](), [])
    shown = capsys.readouterr().out
    assert "2 (follower, term 5), rejoins without a vote: may have forgotten promises" in shown
    assert re.search(r"^leader +1, heard 12 ms ago$", shown, re.MULTILINE)


def test_status_of_a_leader_whose_follower_is_behind(capsys: pytest.CaptureFixture[str]) -> None:
    leader = Status(
        1, "shop", "leader", 5, 1, (1, 2, 3), 90, 88, 95, 7, None, "", "1.2.3", learners=(4,),
        followers=((2, 0), (3, 61), (4, 2)),
    )  # fmt: skip
    status_command.print_status(leader, Counter[str](), [])
    shown = capsys.readouterr().out
    for line in (
        r"version +1\.2\.3",
        r"leader +1",
        r"members +1, 2, 3: 3 vote, 1 may fail",
        r"learners +4",
        r"log +applied 88, committed 90, last 95, behind by 7",
        r"others +2 behind by 0, 3 behind by 61, 4 behind by 2",
    ):
        assert re.search(rf"^{line}$", shown, re.MULTILINE), shown


def test_status_of_a_member_that_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    alone = Status(2, "shop", "pre_candidate", 5, 0, (1, 2, 3), 9, 9, 9, None, None, "")
    status_command.print_status(alone, Counter[str](), [])
    shown = capsys.readouterr().out
    assert re.search(r"^leader +none known$", shown, re.MULTILINE)
    assert re.search(r"^log .*, behind by unknown without a leader$", shown, re.MULTILINE)


def test_a_job_with_its_result(quorker: Quorker) -> None:
    shown = ok(
        quorker("job", "enqueue", "send", "42", "--kw", "subject=hello", "--queue", "mail", "--wait", "30")
    )
    assert re.fullmatch(JOB_ID.pattern + r"  succeeded: '42 hello'\n", shown)


def test_arguments_are_json_or_text(quorker: Quorker) -> None:
    found = as_json(
        quorker("job", "enqueue", "thumbnails", "/a b.png", "[64, 128]", "--wait", "30", "-o", "json")
    )
    assert found["result"] == 2
    details = as_json(quorker("job", "show", found["id"], "-o", "json"))
    assert details["task"] == "thumbnails"
    assert details["state"] == "Succeeded"
    assert "thumbnails('/a b.png', [64, 128])" in ok(quorker("job", "show", found["id"]))


def test_a_job_that_waits_for_its_limit(quorker: Quorker) -> None:
    """The first one runs at once and uses up the hour of all."""
    ok(quorker("job", "enqueue", "hourly", "--app", "shop:app", "--wait", "30"))
    job_id = as_json(quorker("job", "enqueue", "hourly", "--app", "shop:app", "-o", "json"))["id"]
    shown = ok(quorker("job", "show", job_id))
    assert re.search(r"^limit    +hourly, and waits for it$", shown, re.MULTILINE), shown
    assert re.search(r"^expires  +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$", shown, re.MULTILINE), shown
    assert re.search(r"^hourly +0 +1 +in \S+", ok(quorker("limit", "ls")), re.MULTILINE)
    (row,) = as_json(quorker("limit", "ls", "-o", "json"))
    assert (row["key"], row["running"], row["waiting"]) == ("hourly", 0, 1)
    assert 0 < row["next_start_in_ms"] <= 3_600_000
    assert "deleted" in ok(quorker("job", "delete", job_id))
    assert as_json(quorker("limit", "ls", "-o", "json"))[0]["waiting"] == 0


def test_a_failed_job_shows_its_error(quorker: Quorker) -> None:
    ran = quorker("job", "enqueue", "send", "--app", "shop:app", "--wait", "30", "--", "-3")
    assert ran.code == EXIT_REFUSED
    found = JOB_ID.search(ran.err)
    assert found
    assert ran.err == f"quorker: job {found[0]} failed: ValueError: no user -3\n"
    shown = ok(quorker("job", "show", found[0]))
    assert "error_type=ValueError" in shown
    assert shown.rstrip().endswith("ValueError: no user -3")
    assert found[0] in ok(quorker("job", "ls", "--state", "failed", "--task", "sen*"))


def test_a_delayed_job_is_listed_and_found_by_its_key(quorker: Quorker) -> None:
    shown = ok(
        quorker(
            "job", "enqueue", "send", "7", "--delay", "10m", "--unique", "k7", "--tag", "a", "--tag", "b"
        ),
        unchecked("send"),
    )
    assert re.fullmatch(JOB_ID.pattern + r"  scheduled for \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\n", shown)
    again = quorker("job", "enqueue", "send", "8", "--unique", "k7", "--app", "shop:app")
    assert ok(again)[:13] == shown[:13], "the name was checked: no note"
    rows = as_json(quorker("job", "ls", "--state", "scheduled", "--queue", "default", "-o", "json"))
    assert [row["id"] for row in rows] == [shown[:13]]
    assert as_json(quorker("job", "show", shown[:13], "-o", "json"))["tags"] == ["a", "b"]


def test_waiting_too_short_is_a_timeout(quorker: Quorker) -> None:
    ran = quorker("job", "enqueue", "send", "9", "--delay", "1h", "--wait", "0.1")
    assert ran.code == EXIT_TIMEOUT
    assert "has not ended within 0.1 s" in ran.err


def test_the_app_checks_the_call(quorker: Quorker) -> None:
    ran = quorker("job", "enqueue", "send", "1", "2", "--app", "shop:app")
    assert ran.code == EXIT_USAGE
    assert ran.err.startswith(
        "quorker: send(user: int, *, subject: str = '') -> str cannot be called like this"
    )
    ran = quorker("job", "enqueue", "sent", "--app", "shop:app")
    assert ran.err == "quorker: shop:app has no task 'sent': it has hourly, send, thumbnails\n"


def test_an_unknown_job_is_not_found(quorker: Quorker) -> None:
    ran = quorker("job", "show", "0" * 13)
    assert ran.code == EXIT_CORRUPT
    assert ran.err.startswith("quorker: no job 0000000000000 in this cluster")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("job", "ls", "--state", "lost"), "no state 'lost': one of enqueued, "),
        (("job", "enqueue", "send", "--delay", "soon"), "'soon' is no duration"),
        (("job", "enqueue", "send", "--kw", "subject"), "'subject' is no keyword argument"),
        (("job", "enqueue", "two words"), "task name"),
        (("job", "enqueue", "send", "--queue", "Mail"), "queue='Mail'"),
        (("job", "enqueue"), "requires an argument"),
        (("job", "enqueue", "send", "--nonsense"), "--nonsense"),
        (("node", "shop:app", "--members", "7701"), "member '7701': write 1=127.0.0.1:7701"),
        (("node", "shop:app", "--members", "1=a:1,1=b:1"), "member 1 is given twice"),
        (("node", "shop:app", "--members", "2=127.0.0.1:1"), "node id 1 is not among the members"),
        (("node", "shop:app", "--rejoin"), "the others must be a majority without this one, so it takes 3"),
        (("node", "shop:ap"), "has no 'ap'"),
        (("node", "no_such_module:app"), "no module 'no_such_module' here"),
        (("node", "shop"), "'shop' is not MODULE:ATTRIBUTE"),
        (("node", "shop:send"), "shop:send is a AsyncTask, not an App"),
        (("node", "shop:app", "--log-level", "loud"), "no log level 'loud'"),
        (("node", "shop:app", "--listen", "0.0.0.0:0"), "secret"),
        (("node", "shop:app", "--secret-file", "none"), "the secret file cannot be read"),
        (("status", "--tls-key", "x"), "TLS needs"),
        (("demo", "--jobs", "0"), "at least one job"),
        (("nonsense",), "nonsense"),
        (("node", "shop:app", "--listen", "here"), "listen address 'here' has no port"),
        (("node", "shop:app", "--listen", "127.0.0.1:70000"), "port '70000' is outside 0..65535"),
        (("node", "shop:app", "--listen", "300.0.0.1:1"), "'300.0.0.1' is not an IPv4 address"),
        (("node", "shop:app", "--members", "1=here"), "address of node 1 'here' has no port"),
        (("node", "shop:app", "--members", "1=a:1,,2=b:1"), "member '': write 1=127.0.0.1:7701"),
        (("node", "shop:app", "--members", "1=a:1,2=a:1"), "two members share one address"),
        (("node", "shop:app", "--id", "0"), "node id 0 is outside 1..4294967295"),
        (("node", "shop:app", "--id", "one"), "--id"),
        (("node", "shop:app", "--profile", "slow"), 'Choose from: "default", "fast"'),
        (("node", "shop:app", "--workers", "-1"), "workers=-1"),
        (("node", "shop:app", "--queues", "Bad Queue"), "queues=('Bad Queue',)"),
        (("node", "shop:app", "--shutdown-timeout", "-1"), "shutdown_timeout=-1000"),
        (("node", "shop:app", "--shutdown-timeout", "nan"), "shutdown_timeout is nan"),
        (("node", "shop:app", "--cluster", ""), "cluster name '' must have 1 to 64 characters"),
        (("node", "shop:app", "--cluster", "x" * 65), "must have 1 to 64 characters"),
        (("node", "shop:app", "--secret-file", "/dev/null"), "the secret has 0 bytes: use at least 16"),
        (("node", "shop:app", "--secret-file", "."), "the secret file cannot be read"),
        (
            ("node", "shop:app", "--tls-key", "x", "--tls-certificate", "x", "--tls-authority", "x"),
            "tls file x",
        ),
        (("node", "shop:app", "--data", "shop.py"), "shop.py is a file, or lies below one"),
        (("node", "shop:app", "--data", "shop.py/n1"), "shop.py is a file, or lies below one"),
        (("status", "--address", "here"), "address 'here' has no port"),
        (("status", "--address", "127.0.0.1:0"), "port '0' is outside 1..65535"),
        (("status", "--timeout", "-1"), "--timeout is -1.0: give 0.01 to 2592000 seconds"),
        (("status", "--timeout", "nan"), "--timeout is nan"),
        (("status", "--secret-file", "/dev/null"), "the secret has 0 bytes"),
        (("status", "-o", "xml"), 'Choose from: "table", "json"'),
        (("job", "show", ""), "job id=''"),
        (("job", "ls", "--limit", "0"), "--limit 0: show at least one job"),
        (("job", "enqueue", "send", "x" * 70_000), "the arguments are 70008 bytes, at most 65536"),
        (("job", "enqueue", "send", "1" * 30), "args[0]: the int has more than 64 bits; pass str(value)"),
        (("job", "enqueue", "send", "[" * 2000), "is nested too deeply"),
        (("job", "enqueue", "send", "\udcff"), "args[0]: a lone surrogate"),
        (("job", "enqueue", "send", "--kw", "a=1", "--kw", "a=2"), "keyword argument 'a' is given twice"),
        (("job", "enqueue", "send", "--wait", "-1"), "--wait is -1.0"),
        (("job", "enqueue", "send", "--priority", "1000"), "from -100 to 100"),
        (("job", "enqueue", "send", "--at", "yesterday"), "--at"),
        (("job", "enqueue", "send", "--at", "2027-01-01T12:00:00"), "has no time zone"),
        (("job", "enqueue", "send", "--unique", "x" * 600), "unique="),
        (("job", "enqueue", "send", "--tag", "x" * 100), "tags="),
    ],
)
def test_mistakes_are_one_line_and_usage(quorker: Quorker, arguments: tuple[str, ...], said: str) -> None:
    ran = quorker(*arguments)
    assert ran.code == EXIT_USAGE
    assert ran.err.startswith("quorker: ")
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert ran.out == ""


def test_a_damaged_configuration_file_is_named(quorker: Quorker, tmp_path: Path) -> None:
    (tmp_path / "quorker.toml").write_text("[client\n")
    ran = quorker("status")
    assert ran.code == EXIT_USAGE
    assert ran.err.startswith("quorker: quorker.toml cannot be read: ")


def test_a_task_that_no_member_has_is_named(quorker: Quorker) -> None:
    """It is tried again, in case that a member with newer code joins; meanwhile `show` says what is wrong."""
    job_id = ok(quorker("job", "enqueue", "sent"), unchecked("sent"))[:13]
    deadline = time.monotonic() + 30
    while "no task 'sent' is registered on this worker" not in (shown := ok(quorker("job", "show", job_id))):
        assert time.monotonic() < deadline, shown


def test_no_member_is_no_quorum(quorker: Quorker) -> None:
    ran = quorker("status", "--address", "127.0.0.1:1", "--timeout", "0.2")
    assert ran.code == EXIT_NO_QUORUM
    assert ran.err.startswith("quorker: no member answered within 0.2 s")


def test_another_cluster_is_refused(quorker: Quorker) -> None:
    ran = quorker("status", "--cluster", "other", "--timeout", "2")
    assert ran.code == EXIT_REFUSED
    assert "cluster" in ran.err


def test_the_address_may_stand_in_a_file(
    quorker: Quorker, node: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("QUORKER_ADDRESS")
    (tmp_path / "quorker.toml").write_text(f'[client]\naddress = ["{node}"]\noutput = "json"\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert as_json(quorker("status"))["member"]["node_id"] == 1


def test_help_names_the_variables_and_the_exit_codes(quorker: Quorker) -> None:
    assert "QUORKER_DATA" in ok(quorker("node", "--help"))
    assert "Exit codes: 0 ok, 1 refused" in ok(quorker("--help"))


def test_a_directory_in_use_is_refused(quorker: Quorker, node: str, tmp_path: Path) -> None:
    command = [*COMMAND, "node", "shop:app", "--listen", "127.0.0.1:0", "--workers", "0", "--stop-at-eof"]
    first = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert "is up" in first.stdout.readline()
    ran = quorker("node", "shop:app", "--listen", "127.0.0.1:0")
    assert ran.code == EXIT_USAGE
    assert f"is in use by process {first.pid}" in ran.err
    first.communicate(timeout=60)  # closes its standard input
    assert first.returncode == EXIT_OK


def test_without_the_extra_the_message_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cyclopts", None)
    assert main(["status"]) == EXIT_USAGE
    assert capsys.readouterr().err == 'quorker: the command line needs an extra: pip install "quorker[cli]"\n'
