"""`quorker status`: how the members and the jobs are doing, as one member sees it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from quorker.app.cli.client_options import ClientOptions, client_program, with_connection
from quorker.app.cli.output import print_fields, print_json, print_table
from quorker.core.errors import EXIT_NO_QUORUM, EXIT_OK
from quorker.transport.connection import Connection, Status

NOBODY: Final = 0
_SHOWN_COUNTS: Final = (
    "enqueued",
    "scheduled",
    "processing",
    "awaiting",
    "failed",
    "quarantined",
    "succeeded",
    "deleted",
)

status_program = client_program("status")


@status_program.default
def status(options: ClientOptions = ClientOptions()) -> int:  # noqa: B008  # frozen
    """Show the member that answers, its cluster, the queues and how many jobs are in which state.

    Exits with 4 when this member knows no leader.
    """
    found, counts, queues = with_connection(options, _ask)
    if options.output != "table":
        print_json({"member": asdict(found), "jobs": counts, "queues": queues}, options.output)
    else:
        print_status(found, counts, queues)
    return EXIT_OK if found.leader != NOBODY else EXIT_NO_QUORUM


async def _ask(connection: Connection) -> tuple[Status, dict[str, Any], list[dict[str, Any]]]:
    counts = (await connection.query("statistics", {})).value
    queues = (await connection.query("queues", {"count": 100, "first": 0})).value
    return await connection.status(), counts, queues


def print_status(found: Status, counts: dict[str, Any], queues: list[dict[str, Any]]) -> None:
    voters = len(found.members)
    contact = "" if found.leader_contact_age_ms is None else f", heard {found.leader_contact_age_ms} ms ago"
    print_fields(
        [
            (
                "member",
                f"{found.node_id} ({found.role}, term {found.term})"
                + (
                    f", rejoins without a vote: may have forgotten {found.rejoining}"
                    if found.rejoining
                    else ""
                )
                + (f", {found.faulted}" if found.faulted else ""),
            ),
            ("cluster", found.cluster_id),
            *([("version", found.version)] if found.version else []),
            ("leader", f"{found.leader}{contact}" if found.leader != NOBODY else "none known"),
            ("members", f"{', '.join(map(str, found.members))}: {voters} vote, {(voters - 1) // 2} may fail"),
            *([("learners", ", ".join(map(str, found.learners)))] if found.learners else []),
            ("log", _log_text(found)),
            *([("others", _followers_text(found))] if found.followers else []),
            *([("alarm", found.contradiction)] if found.contradiction else []),
            ("jobs", ", ".join(f"{counts[name]} {name}" for name in _SHOWN_COUNTS if counts[name]) or "none"),
        ]
    )
    if queues:
        print()
        rows = [(queue["name"], queue["length"], queue["fetched"], _paused_text(queue)) for queue in queues]
        print_table(("QUEUE", "WAITING", "RUNNING", "PAUSED"), rows)


def _log_text(found: Status) -> str:
    """A member without a leader has the end of its own log only, which says nothing about how far the others are."""
    behind = "unknown without a leader" if found.lag is None else str(found.lag)
    return f"applied {found.applied_index}, committed {found.commit_index}, last {found.last_index}, behind by {behind}"


def _followers_text(found: Status) -> str:
    return ", ".join(f"{node} behind by {lacks}" for node, lacks in found.followers)


def _paused_text(queue: dict[str, Any]) -> str:
    return f"yes: {queue['reason']}" if queue["paused"] else "no"
