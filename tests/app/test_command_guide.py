"""The session of the guide to the command line, run as printed: every command, and what it answers.

Job ids, instants and ports are this run's own: an id stands for the same job throughout, `...` for anything.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from quorker.app.cli import main
from quorker.jepsen_like.commands import COMMAND_SCRIPT

GUIDE = Path(__file__).resolve().parents[2] / "docs/guide-command-line.md"
BLOCK = re.compile(r"^```(python|toml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(
    r"(?P<id>\b0000[0-9A-Z]{9}\b)|(?P<instant>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)|(?P<port>127\.0\.0\.1:7701)"
    r"|(?P<number>(?<=created:)\d+)|(?P<any>\.\.\.)"
)
PATTERNS = {
    "id": "[0-9A-Z]{13}",
    "instant": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
    "port": r"127\.0\.0\.1:\d+",
    "number": r"\d+",
    "any": "(?s:.*)",
}
NEEDS_A_SHELL = re.compile("[|<>&\n]")
LASTING = ("id", "port", "number")  # what later commands refer to
PATIENCE_SECONDS = 60


def commands(block: str) -> Iterator[tuple[str, str]]:
    """(command, what it prints), a command of several lines joined."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        while printed.startswith("> "):
            more, _, printed = printed[2:].partition("\n")
            command += "\n" + more
        yield command, printed


class Session:
    """A shell in a directory: what it exported, what runs in the background, and which names stand for what."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.known: dict[str, str] = {}
        self.background: list[subprocess.Popen[str]] = []
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("QUORKER_")}
        self.env |= {"QUORKER_LISTEN": "127.0.0.1:0", "PATH": f"{directory / 'bin'}:{os.environ['PATH']}"}
        quorker = directory / "bin/quorker"
        quorker.parent.mkdir()
        quorker.write_text(f'#!/bin/sh\nexec {sys.executable} -W error -c "{COMMAND_SCRIPT}" "$@"\n')
        quorker.chmod(0o700)

    def run(self, command: str, printed: str) -> None:
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.env[name] = value
        elif command.endswith(" &"):
            self.start(command.removesuffix(" &"), printed)
        elif command == "wait":
            self.compare(command, self.background.pop().communicate(timeout=PATIENCE_SECONDS)[0], printed)
        elif command.startswith("quorker ") and not NEEDS_A_SHELL.search(command):
            self.compare(command, self.call(command), printed)
        else:
            process = self.popen(command)
            self.compare(command, process.communicate(timeout=PATIENCE_SECONDS)[0], printed)

    def call(self, command: str) -> str:
        """What a command prints that needs no shell: in this process, which saves its start."""
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
            patch.chdir(self.directory)
            patch.setattr(os, "environ", self.env)
            patch.setattr(sys, "path", [*sys.path])
            main(shlex.split(self.in_this_run(command))[1:])
        return out.getvalue()

    def in_this_run(self, command: str) -> str:
        return VARIABLE.sub(lambda found: self.known.get(found[0], found[0]), command)

    def start(self, command: str, printed: str) -> None:
        process = self.popen(command)
        self.background.append(process)
        assert process.stdout is not None
        self.compare(command, "".join(process.stdout.readline() for _ in printed.splitlines()), printed)
        self.env["QUORKER_ADDRESS"] = self.known["127.0.0.1:7701"]

    def popen(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", self.in_this_run(command)],
            cwd=self.directory, env=self.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def compare(self, command: str, out: str, printed: str) -> None:
        groups: dict[str, str] = {}
        pattern = self.pattern(printed, groups)
        found = re.fullmatch(pattern, out)
        assert found, f"$ {command}\n{out}\n--- but the guide says\n{printed}"
        self.known |= {name: found[group] for group, name in groups.items()}

    def pattern(self, printed: str, groups: dict[str, str]) -> str:
        """The regular expression of what is printed; `groups`: what it will tell, by the name in the guide."""
        parts: list[str] = []
        end = 0
        for variable in VARIABLE.finditer(printed):
            parts += [re.escape(printed[end : variable.start()]), self.piece(variable, groups)]
            end = variable.end()
        return "".join([*parts, re.escape(printed[end:])])

    def piece(self, variable: re.Match[str], groups: dict[str, str]) -> str:
        kind, name = str(variable.lastgroup), variable[0]
        if name in self.known:
            return re.escape(self.known[name])
        if kind not in LASTING:
            return PATTERNS[kind]
        group = re.sub(r"\W", "_", f"{kind}_{name}")
        if group in groups:
            return f"(?P={group})"
        groups[group] = name
        return f"(?P<{group}>{PATTERNS[kind]})"

    def stop(self) -> None:
        for process in self.background:
            process.terminate()
            process.communicate(timeout=PATIENCE_SECONDS)


def play(session: Session, language: str, block: str) -> int:
    """Write the file or run the commands of a block. Returns how many commands."""
    if language != "console":
        name = block.splitlines()[0].removeprefix("# ")
        (session.directory / name).write_text(block)
        return 0
    found = list(commands(block))
    for command, printed in found:
        session.run(command, printed)
    return len(found)


@pytest.mark.timeout(600)
def test_the_session_runs_as_printed(tmp_path: Path) -> None:
    session = Session(tmp_path)
    guide = GUIDE.read_text()
    try:
        counted = sum(play(session, language, block) for language, block in BLOCK.findall(guide))
    finally:
        session.stop()
        sys.modules.pop("tasks", None)
    assert counted == guide.count("\n$ ")


def test_every_block_of_the_guide_is_run() -> None:
    assert len(BLOCK.findall(GUIDE.read_text())) == GUIDE.read_text().count("\n```") / 2


def test_what_the_guide_does_not_say_is_noticed(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.run("echo 0000ABCDEFGHI 1", "000000000E001 1\n")
    session.run("echo 000000000E001", "000000000E001\n")
    with pytest.raises(AssertionError, match="but the guide says"):
        session.run("echo 0000ABCDEFGHX", "000000000E001\n")
    with pytest.raises(AssertionError, match="but the guide says"):
        session.run("echo two", "one\n")
