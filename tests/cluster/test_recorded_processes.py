"""Members as processes that record, one of them killed: whatever reached its file can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from quorker.core.wire.recording import read_recording
from quorker.jepsen_like.calls import count_up
from quorker.jepsen_like.processes import ProcessCluster
from quorker.sim.recordings.story import ending_of, merged, tell
from quorker.sim.stories.story import Kind
from quorker.transport.client import open_client

pytestmark = pytest.mark.trio


class RecordedProcesses(ProcessCluster):
    """Every member writes down what it is told."""

    def recording(self, node: int) -> Path:
        return self.ledger / f"n{node}.rec"

    def environment(self, node: int) -> Mapping[str, str]:
        return {**super().environment(node), "QUORKER_RECORD": str(self.recording(node))}


async def count(cluster: RecordedProcesses, *nodes: int) -> None:
    async with open_client([cluster.addresses[node] for node in nodes], name="counter") as client:
        for _ in range(5):
            await count_up(client)


async def live(cluster: RecordedProcesses) -> int:
    """The leader is killed and comes back. Returns which member that was."""
    await cluster.start_all()
    killed = await cluster.wait_leader()
    await count(cluster, 1, 2, 3)
    await cluster.kill(killed)
    await cluster.wait_leader(killed)
    await count(cluster, *({1, 2, 3} - {killed}))
    await cluster.start(killed)
    await cluster.wait_applied_equally()
    return killed


async def test_a_killed_member_leaves_a_recording_that_can_be_repeated(tmp_path: Path) -> None:
    cluster = RecordedProcesses(tmp_path, 3, options=("--workers", "0"))
    try:
        killed = await live(cluster)
    finally:
        await cluster.stop_all()
    files = sorted(cluster.ledger.glob("*.rec*"))
    assert [path.name for path in files if path.name.startswith(f"n{killed}")] == [
        f"n{killed}.rec",
        f"n{killed}.rec.2",
    ]
    recordings = [read_recording(path.read_bytes(), path.name) for path in files]
    parts = [tell(recording) for recording in recordings]
    assert [part.difference for part in parts] == [None] * 4
    endings = {recording.name: ending_of(recording) for recording in recordings}
    assert endings.pop(f"n{killed}.rec").endswith("the process was killed")
    assert set(endings.values()) == {"the member stopped: as asked"}
    story = merged(parts)
    deliveries = [event for event in story.events if event.kind is Kind.DELIVER]
    matched = [event for event in deliveries if "sent" in event.details]
    assert len(matched) > 50
    missing = {event.text.split()[1] for event in deliveries if "sent" not in event.details}
    assert missing <= {f"n{killed}"}  # the last that it said before it could write it down
