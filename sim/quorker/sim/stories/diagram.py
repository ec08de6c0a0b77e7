"""A story as one HTML file: a space-time diagram to zoom, filter, search and ask for causes, with nothing to load.

Here is what the page is given: all events, all spans, no pictures. How it looks and behaves is `space_time/`, whose
files are put into the page as they are. Whatever is in the story is in the page; nothing is cut off.
"""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from typing import Any, Final

from quorker.sim.stories.explain import previous_events
from quorker.sim.stories.spans import spans_of
from quorker.sim.stories.story import LOG, NEMESIS, RUN, Event, Kind, Story

ASSETS: Final = "space_time"
SCRIPTS: Final = ("story.js", "view.js", "looks.js", "draw.js", "panel.js", "page.js")
SHOWN_ELSEWHERE: Final = ("to", "sent", "message", "lost")  # details that have a column of their own
_NUMBERED: Final = re.compile(r"([a-z])(\d+)$")


def page_of(story: Story, title: str, subtitle: str = "") -> str:
    """The whole page as text. Title and subtitle are plain text."""
    folder = files("quorker.sim.stories") / ASSETS
    page = (folder / "page.html").read_text(encoding="utf-8")
    scripts = "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    parts = {
        "{{title}}": html.escape(title),
        "{{subtitle}}": html.escape(subtitle),
        "/*{{style}}*/": (folder / "page.css").read_text(encoding="utf-8"),
        "{{story}}": _as_script(content_of(story)),
        "/*{{script}}*/": scripts,
    }
    return re.sub("|".join(map(re.escape, parts)), lambda found: parts[found.group()], page)


def _as_script(content: dict[str, Any]) -> str:
    """JSON that no text inside of it can end early."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def content_of(story: Story) -> dict[str, Any]:
    """What the page draws. Events are columns; a message, lane or kind is its place in the list of them."""
    lanes = lanes_of(story)
    kinds = [str(kind) for kind in Kind]
    messages = sorted({str(event.details["message"]) for event in story.events if "message" in event.details})
    begin_ns = story.events[0].at_ns if story.events else 0
    return {
        "lanes": lanes,
        "kinds": kinds,
        "messages": messages,
        "events": _columns(story, lanes, kinds, messages, begin_ns),
        "spans": [
            [
                span.kind,
                lanes.index(span.lane),
                span.from_ns - begin_ns,
                span.to_ns - begin_ns,
                span.number,
                span.text,
                span.term,
            ]
            for span in spans_of(story)
        ],
    }


def _columns(
    story: Story, lanes: list[str], kinds: list[str], messages: list[str], begin_ns: int
) -> dict[str, list[Any]]:
    events = story.events
    lane_at = {lane: place for place, lane in enumerate(lanes)}
    message_at = {message: place for place, message in enumerate(messages)}
    kind_at = {kind: place for place, kind in enumerate(kinds)}
    return {
        "at": [event.at_ns - begin_ns for event in events],
        "lane": [lane_at[event.lane] for event in events],
        "kind": [kind_at[event.kind] for event in events],
        "text": [event.text for event in events],
        "causes": [event.causes for event in events],
        "before": previous_events(story)[1:],
        "message": [message_at.get(str(event.details.get("message")), -1) for event in events],
        "to": [lane_at.get(str(event.details.get("to")), -1) for event in events],
        "sent": [event.details.get("sent", 0) for event in events],
        "lost": [event.details.get("lost", "") for event in events],
        "details": [_details(event) for event in events],
    }


def _details(event: Event) -> dict[str, Any]:
    return {name: value for name, value in event.details.items() if name not in SHOWN_ELSEWHERE}


def lanes_of(story: Story) -> list[str]:
    """From top to bottom: the nemesis, the run, the clients, each member with its disk below it, the log."""
    found = {event.lane for event in story.events}
    found |= {str(event.details["to"]) for event in story.events if "to" in event.details}
    return sorted(found, key=_place)


def _place(lane: str) -> tuple[int, int, int, str]:
    fixed = {NEMESIS: 0, RUN: 1, LOG: 9}
    numbered = _NUMBERED.match(lane)
    if lane in fixed or numbered is None:
        return fixed.get(lane, 8), 0, 0, lane
    letter, number = numbered.group(1), int(numbered.group(2))
    return (2, number, 0, "") if letter == "c" else (3, number, int(letter == "d"), "")
