"""Where options get their values from: the line, the environment, quorker.toml; and what is refused there."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorker.app.cli import main
from quorker.core.errors import EXIT_NO_QUORUM, EXIT_USAGE
from quorker.jepsen_like.commands import Quorker, Ran

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def quorker(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Quorker:
    """Runs a command in an empty directory, against an address where nobody is."""
    monkeypatch.setenv("QUORKER_ADDRESS", NOWHERE)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


def waited(ran: Ran) -> str:
    """How long the command waited, which says where it had its timeout from."""
    assert ran.code == EXIT_NO_QUORUM
    return ran.err.removeprefix("quorker: no member answered within ").split()[0]


def test_the_line_wins_over_the_environment_and_that_over_the_file(
    quorker: Quorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "quorker.toml").write_text("[client]\ntimeout = 0.11\n")
    assert waited(quorker("status")) == "0.11"
    monkeypatch.setenv("QUORKER_TIMEOUT", "0.12")
    assert waited(quorker("status")) == "0.12"
    assert waited(quorker("status", "--timeout", "0.13")) == "0.13"


def test_the_file_may_be_above_or_named(
    quorker: Quorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "quorker.toml").write_text("[client]\ntimeout = 0.11\n")
    (tmp_path / "one.toml").write_text("[client]\ntimeout = 0.12\n")
    (tmp_path / "two.toml").write_text("[client]\ntimeout = 0.13\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert waited(quorker("job", "ls")) == "0.11"
    monkeypatch.setenv("QUORKER_CONFIG", "../one.toml")
    assert waited(quorker("job", "ls")) == "0.12"
    assert waited(quorker("job", "ls", "--config", str(tmp_path / "two.toml"))) == "0.13"


def test_paths_in_the_file_are_meant_from_where_it_is(
    quorker: Quorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "quorker.toml").write_text('[client]\nsecret_file = "key"\ntimeout = 0.1\n')
    (tmp_path / "key").write_text("too short")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    ran = quorker("status")
    assert (ran.code, "the secret has 9 bytes" in ran.err) == (EXIT_USAGE, True)


@pytest.mark.parametrize("word", ["YES", "DRY_RUN", "STATE", "LIMIT", "TAG"])
def test_what_a_command_does_is_not_taken_from_the_environment(
    quorker: Quorker, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv(f"QUORKER_{word}", "failed")
    ran = quorker("job", "delete")
    assert (ran.code, ran.err.startswith("quorker: which jobs?")) == (EXIT_USAGE, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[client", "cannot be read"),
        ("[client]\ntimout = 1\n", "there is no key in [client] called 'timout': did you mean timeout?"),
        ("[client]\nlimit = 1\n", "there is no key in [client] called 'limit'"),
        (
            "[client]\nnonsense = 1\n",
            "known are address, app, cluster, output, secret_file, timeout, tls_authority",
        ),
        ("[clients]\n", "there is no table called 'clients': did you mean client?"),
        ("client = 1\n", "client must be a table: write [client]"),
        ('[client]\ntimeout = "soon"\n', 'unable to convert "soon" into float'),
        ('[client]\noutput = "xml"\n', 'Choose from: "table", "json", "jsonl"'),
        ("[client]\ntimeout = -1\n", "--timeout is -1.0: give 0.01 to 2592000 seconds"),
        ('[client]\naddress = ["here"]\n', "address 'here' has no port"),
        (b"\xff", "cannot be read"),
    ],
)
def test_mistakes_in_the_file_are_named(
    quorker: Quorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | bytes, said: str
) -> None:
    monkeypatch.delenv("QUORKER_ADDRESS")
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "quorker.toml").write_bytes(raw)
    ran = quorker("status")
    assert (ran.code, ran.out, ran.err.count("\n")) == (EXIT_USAGE, "", 1)
    assert said in ran.err


def test_a_named_file_must_be_there(quorker: Quorker) -> None:
    ran = quorker("status", "--config", "none.toml")
    assert ran.code == EXIT_USAGE
    assert ran.err.startswith("quorker: the configuration file none.toml cannot be read: ")


def test_wrong_values_in_the_environment_name_the_variable(
    quorker: Quorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUORKER_TIMEOUT", "soon")
    ran = quorker("status")
    assert (ran.code, "QUORKER_TIMEOUT" in ran.err, "soon" in ran.err) == (EXIT_USAGE, True, True)


def test_a_node_reads_its_own_table(
    quorker: Quorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "quorker.toml"
    file.write_text('[client]\ntimeout = 1\n[node]\napp = "shop"\n')
    ran = quorker("node")
    assert (ran.code, "'shop' is not MODULE:ATTRIBUTE" in ran.err) == (EXIT_USAGE, True)
    monkeypatch.setenv("QUORKER_APP", "store")
    assert "'store' is not MODULE:ATTRIBUTE" in quorker("node").err
    assert "'depot' is not MODULE:ATTRIBUTE" in quorker("node", "depot").err
    file.write_text("[node]\nworker = 1\n")
    ran = quorker("node", "shop")
    assert ran.err == f"quorker: {file}: there is no key in [node] called 'worker': did you mean workers?\n"
    file.write_text("[node]\ntimeout = 1\n")
    assert "there is no key in [node] called 'timeout'" in quorker("node", "shop").err
