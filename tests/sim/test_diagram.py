"""The diagram page: all of the story is in it, the spans are right, and it runs in a browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from quorker.core.raft.state import RaftState
from quorker.sim.cases.case import Fault, FaultKind, Target
from quorker.sim.cases.expansion import JOBS, expand
from quorker.sim.runs.cluster import run_case
from quorker.sim.stories.diagram import SCRIPTS, content_of, lanes_of, page_of
from quorker.sim.stories.spans import Span, spans_of
from quorker.sim.stories.story import NEMESIS, Kind, Story
from quorker.sim.world.kernel import MS

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Text of each script and what the page would load from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.references: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script"
        self.references += [f"{name}={value}" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)


def story_in(page: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Page(page).scripts[0])
    return found


@pytest.fixture(scope="module")
def jobs() -> Story:
    story = Story()
    run_case(expand(11, JOBS), story=story)
    return story


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Story:
    monkeypatch.setattr(RaftState, "hold", RaftState.send)
    story = Story()
    assert run_case(expand(3), story=story).violation is not None
    return story


# ---------------------------------------------------------------------- spans


def spans_named(story: Story, kind: str, lane: str = "") -> list[Span]:
    return [span for span in spans_of(story) if span.kind == kind and lane in ("", span.lane)]


def at(story: Story, at_ns: int) -> Story:
    story.now = lambda: at_ns
    return story


def test_a_member_lives_in_roles_and_terms_until_it_crashes() -> None:
    story = Story()
    at(story, 0).recovered(1, "starts", 3, 5)
    at(story, 10).look(1, 4, 5)
    at(story, 10).add("n1", Kind.ROLE, "becomes leader in term 4", role="leader", term=4)
    at(story, 30).crashed("n1", "crashes")
    at(story, 45).recovered(1, "starts", 4, 5)
    at(story, 60).add("n1", Kind.NOTE, "the end")
    lives = [(span.from_ns, span.to_ns, span.text, span.term) for span in spans_named(story, "life")]
    assert lives == [
        (0, 10, "follower", 3),
        (10, 10, "follower", 4),
        (10, 30, "leader", 4),
        (45, 60, "follower", 4),
    ]
    assert [(span.from_ns, span.to_ns) for span in spans_named(story, "down")] == [(30, 45)]


def test_a_write_lasts_until_it_is_durable_or_its_process_is_gone() -> None:
    story = Story()
    at(story, 0).persist(1, 7, "write 7")
    at(story, 5).durable(1, 7)
    at(story, 6).persist(1, 8, "write 8")
    at(story, 9).crashed("n1", "crashes")
    assert [(span.lane, span.from_ns, span.to_ns) for span in spans_named(story, "write")] == [
        ("d1", 0, 5),
        ("d1", 6, 9),
    ]


def test_what_is_held_at_the_end_is_held_to_the_end() -> None:
    story = Story()
    at(story, 1).add("c1", Kind.HOLD, "holds", what="lock a", token=4)
    at(story, 2).add("c1", Kind.HOLD, "holds", what="lock b", token=5)
    at(story, 3).add("c1", Kind.LET_GO, "lets go", what="lock a", token=4)
    at(story, 8).add("c1", Kind.NOTE, "the end")
    held = [(span.text, span.from_ns, span.to_ns) for span in spans_named(story, "hold")]
    assert held == [("lock a by 4", 1, 3), ("lock b by 5", 2, 8)]


def test_faults_last_as_long_as_they_do() -> None:
    plan = (
        Fault(100 * MS, FaultKind.ISOLATE, 50 * MS, Target.ANY, 1),
        Fault(200 * MS, FaultKind.CRASH, 30 * MS, Target.ANY, 2),
        Fault(300 * MS, FaultKind.PAUSE, 10_000 * MS, Target.ANY, 1),
    )
    case = expand(40)
    story = Story()
    run_case(type(case)(7, voters=3, plan=plan, chaos_ns=400 * MS), story=story)
    faults = [(span.from_ns // MS, span.to_ns // MS, span.lane) for span in spans_named(story, "fault")]
    assert faults == [(100, 150, NEMESIS), (200, 230, NEMESIS), (300, 400, NEMESIS)]
    (frozen,) = spans_named(story, "frozen")
    assert (frozen.lane, frozen.from_ns // MS, frozen.to_ns // MS) == ("n1", 300, 400)


def test_every_span_ends_after_its_beginning(jobs: Story) -> None:
    spans = spans_of(jobs)
    assert {span.kind for span in spans} >= {"life", "write", "hold", "fault", "down", "frozen"}
    for span in spans:
        assert 0 <= span.from_ns <= span.to_ns
        assert jobs[span.number].at_ns == span.from_ns


# ---------------------------------------------------------------------- content


def test_nothing_of_the_story_is_left_out(jobs: Story) -> None:
    content = content_of(jobs)
    assert {name: len(column) for name, column in content["events"].items()} == dict.fromkeys(
        content["events"], len(jobs.events)
    )
    columns = content["events"]
    for event in jobs.events:
        place = event.number - 1
        assert content["lanes"][columns["lane"][place]] == event.lane
        assert content["kinds"][columns["kind"][place]] == event.kind
        assert columns["at"][place] == event.at_ns
        assert (columns["text"][place], columns["causes"][place]) == (event.text, event.causes)
        if event.kind is Kind.SEND:
            assert content["messages"][columns["message"][place]] == event.details["message"]
            assert content["lanes"][columns["to"][place]] == event.details["to"]


def test_lanes_stand_in_an_order_that_people_expect() -> None:
    story = Story()
    for lane in ("n10", "d2", "log", "n2", "c1", "run", "n1", NEMESIS):
        story.enter(lane, Kind.NOTE, "is there")
    story.add("n1", Kind.SEND, "-> n3", to="n3", message="Heartbeat")
    assert lanes_of(story) == [NEMESIS, "run", "c1", "n1", "n2", "d2", "n3", "n10", "log"]


# ---------------------------------------------------------------------- the page


def test_a_page_holds_the_story_and_loads_nothing(jobs: Story) -> None:
    page = page_of(jobs, "one run", "of many")
    assert story_in(page) == json.loads(json.dumps(content_of(jobs)))
    assert Page(page).references == []
    assert not re.search(r"https?://|@import|url\(|\bfetch\(|XMLHttpRequest|\bimport\(", page)
    assert not re.search(r"\{\{\w+\}\}|/\*\{\{", page)
    assert "<h1>one run</h1>" in page


def test_no_text_of_a_run_can_leave_its_place() -> None:
    story = Story()
    text = "</script><script>alert('&')</script> {{title}} <!--"
    story.enter("n1", Kind.NOTE, text)
    page = page_of(story, text, "<b>&</b>")
    assert story_in(page)["events"]["text"] == [text]
    assert len(Page(page).scripts) == 2
    assert "<b>" not in page


def test_an_empty_story_is_a_page_too() -> None:
    assert story_in(page_of(Story(), "nothing"))["lanes"] == []


def test_scripts_are_small_enough_to_read() -> None:
    folder = Path(page_of.__code__.co_filename).parent / "space_time"
    assert sorted(path.name for path in folder.iterdir()) == sorted((*SCRIPTS, "page.html", "page.css"))
    for path in folder.iterdir():
        assert path.read_text().count("\n") <= 600


# ---------------------------------------------------------------------- in a browser


def shown(page: str, directory: Path, address: str = "") -> tuple[str, str]:
    """(the document after its scripts have run, what the browser said)."""
    if BROWSER is None:
        pytest.skip("no chromium here: the page cannot be run")
    file = directory / "story.html"
    file.write_text(page, encoding="utf-8")
    profile = f"--user-data-dir={directory / 'profile'}"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", profile, "--enable-logging=stderr"]
    command += ["--virtual-time-budget=3000", "--dump-dom", f"file://{file}{address}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return ran.stdout, "\n".join(line for line in ran.stderr.splitlines() if "CONSOLE" in line)


def test_the_page_runs_without_errors(jobs: Story, tmp_path: Path) -> None:
    document, said = shown(page_of(jobs, "one run"), tmp_path)
    assert said == ""
    assert 'data-ready="yes"' in document
    assert f"in view: {len(jobs.events):,} of {len(jobs.events):,} events" in document
    assert '<pre id="trouble" hidden="">' in document


def test_a_click_shows_causes_and_effects_and_a_search_counts(jobs: Story, tmp_path: Path) -> None:
    event = next(event for event in jobs.events if event.kind is Kind.ROLE)
    document, said = shown(
        page_of(jobs, "one run"), tmp_path, f"#order,dark,event={event.number},search=leader"
    )
    assert said == ""
    assert "Causes (1)" in document
    found = sum(
        "leader" in f"#{each.number} {each.lane} {each.text} {each.kind}".lower() for each in jobs.events
    )
    assert f"{found:,} found" in document


def test_a_violation_is_shown_first(broken: Story, tmp_path: Path) -> None:
    document, said = shown(page_of(broken, "broken"), tmp_path)
    assert said == ""
    assert "breaks durable before sent" in document
    assert "causal past" in document


def test_a_fault_of_the_page_is_shown(jobs: Story, tmp_path: Path) -> None:
    page = page_of(jobs, "one run").replace("function drawAxis(", "function drawNothing(")
    document, _ = shown(page, tmp_path)
    assert "This page has a fault: " in document
    assert 'data-ready="yes"' not in document


POINT = """
const lanes = document.getElementById("lanes"), box = lanes.getBoundingClientRect(), event = NUMBER - 1;
const clientX = box.left + xOfEvent(view, event), clientY = box.top + yOfEvent(view, looks, story, event);
const point = (type, more) => lanes.dispatchEvent(new type[0](type[1], { clientX, clientY, bubbles: true, ...more }));
point([PointerEvent, "pointermove"], {});
document.body.dataset.hint = document.getElementById("hint").textContent;
point([PointerEvent, "pointerup"], {});
document.body.dataset.chosen = String(scene.selected + 1);
const span = view.to - view.from;
point([WheelEvent, "wheel"], { deltaY: -400, cancelable: true });
document.body.dataset.zoomed = String(view.to - view.from < span);
document.dispatchEvent(new KeyboardEvent("keydown", { key: "t" }));
document.body.dataset.ordered = String(view.ordered);
document.querySelector("#legend .row").click();
document.body.dataset.hidden = String(looks.hiddenMessages.size);
document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
document.body.dataset.cleared = String(scene.focus === null);
"""


def test_pointer_wheel_keys_and_legend_do_what_they_say(jobs: Story, tmp_path: Path) -> None:
    event = next(event for event in jobs.events if event.kind is Kind.ROLE)
    script = POINT.replace("NUMBER", str(event.number))
    page = page_of(jobs, "one run").replace("</body>", f"<script>{script}</script></body>")
    document, said = shown(page, tmp_path)
    assert said == ""
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', document[document.index("<body") :].partition(">")[0]))
    assert f"#{event.number} · " in found.pop("hint")
    assert found.pop("painted")
    assert found == {
        "ready": "yes",
        "chosen": str(event.number),
        "zoomed": "true",
        "ordered": "true",
        "hidden": "1",
        "cleared": "true",
    }
