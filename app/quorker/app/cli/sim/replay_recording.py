"""`quorker sim replay-recording`: what real members recorded, repeated by the core of today, and drawn if wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from quorker.app.cli.output import print_json, print_table
from quorker.app.cli.sim.html import write_page
from quorker.app.cli.sim.reports import Output
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, InvalidInput
from quorker.core.wire.recording import Recording, read_recording
from quorker.sim.recordings.story import Told, ending_of, merged, tell
from quorker.sim.stories.diagram import page_of

COLUMNS: Final = ("recording", "member", "inputs", "ends_because", "outcome")


def replay_recording(
    *files: Annotated[Path, Parameter(help="Recordings of the members of one cluster.")],
    to: Annotated[Path | None, Parameter(help="Draw all of them as one space-time diagram.")] = None,
    output: Output = "table",
) -> int:
    """Repeat what `quorker node --record` wrote down. Exits with 1 and names the first input that now has other effects."""
    if not files:
        raise InvalidInput("name the recordings to replay: what `quorker node --record FILE` has written")
    recordings = [read_recording(_content(path), str(path)) for path in files]
    parts = [tell(recording) for recording in recordings]
    if to is not None:
        names = ", ".join(path.name for path in files)
        write_page(to, page_of(merged(parts), "recorded members", names))
    rows = [_row(recording, told) for recording, told in zip(recordings, parts, strict=True)]
    events = sum(len(told.story.events) for told in parts)
    if output == "json":
        named = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        print_json({"recordings": named, "events": events, "file": "" if to is None else str(to)})
    else:
        print_table([column.replace("_", " ").upper() for column in COLUMNS], rows)
        print(f"{to}: {events} events" if to else "", end="\n" if to else "")
    return EXIT_REFUSED if any(told.difference for told in parts) else EXIT_OK


def _row(recording: Recording, told: Told) -> tuple[object, ...]:
    outcome = f"differs at {told.difference}" if told.difference else "the same"
    return recording.name, told.node_id, len(recording.inputs), ending_of(recording), outcome


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"recording {path} cannot be read: {error.strerror}") from None
