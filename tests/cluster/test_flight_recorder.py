"""Real members record what they are told; the pure core does the same again, and one diagram shows them all."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FunctionType

import pytest
import trio

from quorker.app.cli import main
from quorker.core.errors import EXIT_CORRUPT, EXIT_OK, EXIT_REFUSED, EXIT_USAGE, ConfigurationError
from quorker.core.raft.core import Raft
from quorker.core.replica import LogClock, Replica
from quorker.core.wire.recording import InputKind, Recording, read_recording
from quorker.jepsen_like.calls import count_up, enqueue, ignore_cancel, receive
from quorker.jepsen_like.local_cluster import LocalCluster, local_cluster
from quorker.sim.recordings.replay import replay
from quorker.sim.recordings.story import Told, merged, tell
from quorker.sim.stories.explain import causal_past
from quorker.sim.stories.story import Kind, Story
from quorker.transport import node_start
from quorker.transport.flight_recorder import RecordedReplica, Recorder
from quorker.transport.node_config import NodeConfig
from quorker.transport.node_start import open_node

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Recorded:
    """`files`: of the members' lives, in the order of their names."""

    files: tuple[Path, ...]

    @property
    def recordings(self) -> list[Recording]:
        return [read_recording(path.read_bytes(), path.name) for path in self.files]

    def told(self) -> list[Told]:
        return [tell(recording) for recording in self.recordings]


async def _work(cluster: LocalCluster) -> None:
    """Jobs and counters over two changes of leader, a snapshot and a restart."""
    await cluster.elect(1)
    for _ in range(20):
        await count_up(cluster[2], "counter")
    await enqueue(cluster[1])
    async with cluster[2].worker(("default",), 1, ignore_cancel) as worker:
        (grant,) = await receive(worker, 1)
        await cluster.elect(3)
        worker.complete_nowait(grant, b"done")
        await worker.wait_reported()
    await cluster.stop(1)
    leader = await cluster.wait_leader(1)
    last = leader.replica.raft.last_index
    while leader.replica.raft.first_index <= last + 1:  # until it needs a snapshot
        await count_up(cluster[2], "counter")
    await cluster.start(1)
    await cluster.wait_equal()


async def _record(directory: Path) -> None:
    async with local_cluster(directory, start=False, snapshot_after_entries=15, keep_entries=2) as cluster:
        for number, config in cluster.configs.items():
            cluster.configs[number] = replace(config, record=directory / f"n{number}.rec")
        await cluster.start()
        await _work(cluster)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    directory = tmp_path_factory.mktemp("recorded")
    trio.run(_record, directory)
    return Recorded(tuple(sorted(directory.glob("n*.rec*"))))


@pytest.fixture(scope="module")
def story(recorded: Recorded) -> Story:
    return merged(recorded.told())


def do_nothing(*_: object) -> None:
    """A core that does not do what it is told."""


# ---------------------------------------------------------------------- purity


def test_every_life_of_a_member_has_a_recording(recorded: Recorded) -> None:
    assert [path.name for path in recorded.files] == ["n1.rec", "n1.rec.2", "n2.rec", "n3.rec"]
    for recording in recorded.recordings:
        assert (recording.ended, recording.cut_at) == ("the member stopped: as asked", None)
    kinds = {each.kind for recording in recorded.recordings for each in recording.inputs}
    assert kinds >= {
        InputKind.RECEIVE,
        InputKind.SUBMIT,
        InputKind.TICK,
        InputKind.PERSISTED,
        InputKind.SNAPSHOT_SAVED,
        InputKind.SNAPSHOT_LOADED,
        InputKind.CAMPAIGN,
        InputKind.TRANSFER,
        InputKind.DRAIN,
    }


def test_the_core_is_pure_in_production(recorded: Recorded) -> None:
    """Same beginning, same inputs, same state after every input and same effects at every drain."""
    for recording in recorded.recordings:
        assert len(recording.inputs) > 50
        assert replay(recording) is None


def test_a_core_that_reads_a_clock_is_found(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batches are stamped by a clock of its own: the first drain with such a batch has other effects."""
    plain = LogClock.stamp

    def impure(self: LogClock, now_ms: int, wall_ms: int) -> tuple[int, int]:
        lt, _ = plain(self, now_ms, wall_ms)
        return lt, time.time_ns()

    monkeypatch.setattr(LogClock, "stamp", impure)
    led = next(each for each in recorded.recordings if each.name == "n1.rec")
    difference = replay(led)
    assert difference is not None
    assert difference.input.kind is InputKind.DRAIN
    assert "it gave other effects than these" in str(difference)
    assert f"input {difference.input.number} (drain, at byte {difference.input.offset})" in str(difference)


def test_a_core_that_keeps_another_state_is_found_at_the_input(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Raft, "step", do_nothing)
    difference = replay(recorded.recordings[0])
    assert difference is not None
    assert difference.input.kind is InputKind.RECEIVE
    assert "it left another state than " in str(difference)


def test_a_core_that_raises_is_found(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(*_: object) -> None:
        raise AssertionError("burst")

    monkeypatch.setattr(Raft, "persisted", burst)
    difference = replay(recorded.recordings[0])
    assert difference is not None
    assert (difference.input.kind, difference.what) == (
        InputKind.PERSISTED,
        "it raises AssertionError: burst",
    )


# ---------------------------------------------------------------------- one story of all


def test_deliveries_are_matched_with_their_sendings(story: Story) -> None:
    deliveries = [event for event in story.events if event.kind is Kind.DELIVER]
    assert len(deliveries) > 200
    for event in deliveries:
        sent = story[int(str(event.details["sent"]))]
        assert sent.number in event.causes
        assert (sent.kind, sent.details["to"]) == (Kind.SEND, event.lane)
        assert sent.details["message"] == event.details["message"]
        assert sent.at_ns <= event.at_ns


def test_no_sending_is_delivered_twice(story: Story) -> None:
    matched = [event.details["sent"] for event in story.events if event.kind is Kind.DELIVER]
    assert len(matched) == len(set(matched))


def test_the_merged_story_is_in_order(story: Story) -> None:
    assert [event.number for event in story.events] == list(range(1, len(story.events) + 1))
    for one, other in zip(story.events, story.events[1:], strict=False):
        assert one.at_ns <= other.at_ns
    for event in story.events:
        assert all(cause < event.number for cause in event.causes)


def test_a_leader_of_a_real_run_follows_from_the_votes_of_others(story: Story) -> None:
    leader = next(event for event in story.events if event.details.get("role") == "leader")
    why = [story[number] for number in causal_past(story, leader.number)]
    assert any(event.text.endswith(": votes for you") and event.lane != leader.lane for event in why)


def test_clocks_that_differ_are_brought_together(recorded: Recorded) -> None:
    """Member 2 claims to be an hour ahead; its messages still take milliseconds."""
    recordings = recorded.recordings
    for number, recording in enumerate(recordings):
        if recording.beginning.node_id == 2:
            late = replace(recording.beginning, wall_ns=recording.beginning.wall_ns + 3600 * 10**9)
            recordings[number] = replace(recording, beginning=late)
    together = merged([tell(recording) for recording in recordings])
    times = [
        event.at_ns - together[int(str(event.details["sent"]))].at_ns
        for event in together.events
        if event.kind is Kind.DELIVER
    ]
    assert sorted(times)[len(times) // 2] < 10**9


# ---------------------------------------------------------------------- the command


def test_the_command_replays_and_draws(recorded: Recorded, tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "members.html"
    files = [str(path) for path in recorded.files]
    assert main(["sim", "replay-recording", *files, "--to", str(page)]) == EXIT_OK
    told = capsys.readouterr().out
    assert told.count("the same") == len(files)
    text = page.read_text()
    content = json.loads(text[text.index('id="story">') + 11 : text.index("</script>")])
    assert content["lanes"] == ["n1", "d1", "n2", "d2", "n3", "d3"]
    assert sum(sent > 0 for sent in content["events"]["sent"]) > 200
    assert main(["sim", "replay-recording", *files, "-o", "json"]) == EXIT_OK
    rows = json.loads(capsys.readouterr().out)["recordings"]
    assert [(row["recording"], row["outcome"]) for row in rows] == [(file, "the same") for file in files]


def test_the_command_names_the_first_difference(
    recorded: Recorded, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Raft, "step", do_nothing)
    assert main(["sim", "replay-recording", str(recorded.files[0])]) == EXIT_REFUSED
    assert "differs at input " in capsys.readouterr().out


def test_damage_is_named_and_a_cut_is_told(recorded: Recorded, tmp_path: Path, capsys: Capture) -> None:
    data = recorded.files[0].read_bytes()
    damaged = tmp_path / "damaged.rec"
    damaged.write_bytes(data[: len(data) // 2] + b"\x00\x01\x02\x03" + data[len(data) // 2 + 4 :])
    assert main(["sim", "replay-recording", str(damaged)]) == EXIT_CORRUPT
    assert f"{damaged} is damaged at byte " in capsys.readouterr().err
    cut = tmp_path / "cut.rec"
    inputs = recorded.recordings[0].inputs
    cut.write_bytes(data[: inputs[len(inputs) // 2].offset + 3])
    assert main(["sim", "replay-recording", str(cut)]) == EXIT_OK
    assert "cut off at byte " in capsys.readouterr().out


def test_mistakes_are_named(tmp_path: Path, capsys: Capture) -> None:
    assert main(["sim", "replay-recording", str(tmp_path / "none.rec")]) == EXIT_USAGE
    assert "cannot be read: No such file or directory" in capsys.readouterr().err
    assert main(["sim", "replay-recording"]) == EXIT_USAGE
    assert "name the recordings to replay" in capsys.readouterr().err


# ---------------------------------------------------------------------- the recorder


def lone(directory: Path, **settings: object) -> NodeConfig:
    config = NodeConfig(data_dir=directory / "n1", profile="fast", segment_bytes=1 << 20, reserve_bytes=0)
    return replace(config, **settings)  # type: ignore[arg-type]  # whatever the test sets


def test_nothing_is_recorded_unless_asked(tmp_path: Path) -> None:
    async def live() -> None:
        async with open_node(lone(tmp_path)) as node:
            await count_up(node, "counter")
            assert type(node.replica).__name__ == "Replica"

    trio.run(live)
    assert [path.name for path in tmp_path.iterdir()] == ["n1"]


def test_a_recording_never_grows_beyond_its_size_and_the_member_goes_on(tmp_path: Path) -> None:
    file, bytes_max = tmp_path / "n1.rec", 1 << 20

    async def live() -> None:
        async with open_node(lone(tmp_path, record=file, record_bytes_max=bytes_max)) as node:
            assert isinstance(node.replica, RecordedReplica)
            while node.replica.recorder.is_open:
                await enqueue(node, args=bytes(100_000))
            await enqueue(node)

    trio.run(live)
    assert file.stat().st_size <= bytes_max + 200
    recording = read_recording(file.read_bytes(), file.name)
    assert recording.ended == "it has reached its size"
    assert replay(recording) is None


def test_where_nothing_can_be_written_the_member_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"none/n1\.rec cannot be written: No such file or directory"
    ):
        Recorder(tmp_path / "none" / "n1.rec", 1 << 20)
    with pytest.raises(
        ConfigurationError, match="a recording of 5 bytes is too small: allow at least 1048576"
    ):
        lone(tmp_path, record_bytes_max=5).validate()


def test_no_input_goes_past_the_recorder() -> None:
    """Whatever a driver may call on a replica is recorded, or only looks."""
    looks = {"start", "next_deadline"}
    calls = {
        name
        for name, value in vars(Replica).items()
        if isinstance(value, FunctionType | classmethod) and not name.startswith("_")
    }
    assert calls - looks == {name for name in vars(RecordedReplica) if name in calls}


def test_drivers_tell_raft_nothing_themselves() -> None:
    inputs = {"step", "observe_time", "tick", "propose", "propose_config", "read", "transfer", "campaign"}
    inputs |= {"forget_leader", "persisted", "persist_failed", "disk_latency", "applied", "snapshot_made"}
    inputs |= {"peer_unreachable", "snapshot_status", "drain"}
    assert inputs <= set(vars(Raft))
    folder = Path(node_start.__file__).parent
    told = re.compile(rf"\braft\.({'|'.join(sorted(inputs))})\(")
    assert [path.name for path in folder.glob("*.py") if told.search(path.read_text())] == []


def part_of(node_id: int, *events: tuple[int, str, int]) -> Told:
    """(time, "sent" or "heard", peer): always the same message."""
    part = Told(node_id)
    for at_ns, way, peer in events:
        part.story.now = partial(int, at_ns)
        kind = Kind.SEND if way == "sent" else Kind.DELIVER
        number = part.story.enter(f"n{node_id}", kind, way, to=f"n{peer}", message="Heartbeat")
        pair = (node_id, peer) if way == "sent" else (peer, node_id)
        (part.sent if way == "sent" else part.heard).setdefault((*pair, b"beat"), []).append(number)
    return part


def test_equal_messages_are_paired_in_order_and_lost_ones_are_left_out() -> None:
    second = 10**9
    sender = part_of(1, *[(at * second, "sent", 2) for at in (0, 1, 2, 10, 11)])
    receiver = part_of(2, *[(at * second + 5, "heard", 1) for at in (0, 10, 11)])
    together = merged([sender, receiver])
    pairs = [
        (together[int(str(event.details["sent"]))].at_ns // second, event.at_ns // second)
        for event in together.events
        if event.kind is Kind.DELIVER
    ]
    assert pairs == [(0, 0), (10, 10), (11, 11)]


def test_two_lives_of_a_member_do_not_share_a_sending() -> None:
    """An equal message may be heard again after a restart."""
    second = 10**9
    sender = part_of(1, (0, "sent", 2), (second, "sent", 2))
    lives = [part_of(2, (at * second + 5, "heard", 1)) for at in (0, 1)]
    together = merged([sender, *lives])
    sendings = [event.details["sent"] for event in together.events if event.kind is Kind.DELIVER]
    assert len(sendings) == len(set(sendings)) == 2


def test_very_many_equal_heartbeats_are_paired_too() -> None:
    beats = 12_000
    sender = part_of(1, *[(at * 10**8, "sent", 2) for at in range(beats)])
    receiver = part_of(2, *[(at * 10**8 + 5, "heard", 1) for at in range(beats)])
    together = merged([sender, receiver])
    assert all(
        together[int(str(event.details["sent"]))].at_ns + 5 == event.at_ns
        for event in together.events
        if event.kind is Kind.DELIVER
    )
