"""The story of a run: it changes nothing, and every event knows what caused it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from quorker.core.raft.state import RaftState
from quorker.sim.cases.case import Case, Fault, FaultKind, Target
from quorker.sim.cases.expansion import CHURN, JOBS, LONG, SHORT, Profile, expand
from quorker.sim.runs.cluster import Cluster, Report, run_case
from quorker.sim.stories.story import NEMESIS, Event, Kind, Story, line_of
from quorker.sim.world.kernel import MS, Kernel
from quorker.sim.world.network import Network
from quorker.sim.world.trace import Trace

RUNS = [(SHORT, 40), (SHORT, 41), (CHURN, 4), (JOBS, 3), (JOBS, 11)]


def told(case: Case) -> tuple[Story, Report]:
    story = Story()
    return story, run_case(case, story=story)


def suffering(*plan: Fault, profile: Profile = JOBS, seed: int = 0) -> Case:
    """Three members and clients, on a perfect network, with these faults only."""
    case = expand(seed, replace(profile, sizes=(3,)))
    network = replace(case.network, loss_ppm=0, duplicate_ppm=0, late_ppm=0)
    return replace(case, plan=plan, traps=(), network=network, dead_in_calm=0)


def of_kind(story: Story, kind: Kind) -> list[Event]:
    return [event for event in story.events if event.kind is kind]


def causes(story: Story, event: Event) -> list[Event]:
    return [story[number] for number in event.causes]


def past(story: Story, event: Event) -> Iterator[Event]:
    """Whatever `event` follows from, each once: an event is reached on many ways."""
    seen: set[int] = set()
    open_ends = list(causes(story, event))
    while open_ends:
        cause = open_ends.pop()
        if cause.number not in seen:
            seen.add(cause.number)
            yield cause
            open_ends.extend(causes(story, cause))


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    return [told(expand(seed, profile))[0] for profile, seed in RUNS]


@pytest.mark.parametrize(("profile", "seed"), [*RUNS, (LONG, 1)], ids=str)
def test_recording_changes_nothing(profile: Profile, seed: int) -> None:
    story, report = told(expand(seed, profile))
    plain = run_case(expand(seed, profile))
    assert (report.digest, report.events) == (plain.digest, plain.events)
    assert len(story.events) > 100


def test_a_run_tells_the_same_story_again() -> None:
    assert told(expand(3, JOBS))[0].events == told(expand(3, JOBS))[0].events


def test_lines_are_the_events_of_the_story() -> None:
    lines: list[str] = []
    story = Story()
    run_case(expand(3, JOBS), lines.append, story=story)
    assert lines == [line_of(event) for event in story.events]


def test_events_are_numbered_and_follow_from_earlier_ones(stories: list[Story]) -> None:
    for story in stories:
        assert [event.number for event in story.events] == list(range(1, len(story.events) + 1))
        for event in story.events:
            assert all(
                cause.number < event.number and cause.at_ns <= event.at_ns for cause in causes(story, event)
            )


def test_every_delivery_follows_from_its_sending(stories: list[Story]) -> None:
    deliveries = [(story, event) for story in stories for event in of_kind(story, Kind.DELIVER)]
    assert len(deliveries) > 1000
    for story, event in deliveries:
        sent = story[int(str(event.details["sent"]))]
        assert sent.number in event.causes
        assert (sent.kind, sent.details["to"]) == (Kind.SEND, event.lane)
        assert "lost" not in sent.details
        assert sent.details["message"] == event.details["message"]


def test_what_waited_for_the_disk_follows_from_it(stories: list[Story]) -> None:
    """Votes and acknowledgements are promises: none leaves but for a write that is durable."""
    for story in stories:
        for event in of_kind(story, Kind.DURABLE):
            (issued,) = causes(story, event)
            assert (issued.kind, issued.lane, issued.details["seq"]) == (
                Kind.PERSIST,
                event.lane,
                event.details["seq"],
            )
        votes = [event for event in of_kind(story, Kind.SEND) if event.text.endswith(": votes for you")]
        assert votes or {event.lane for event in story.events} & {"n1", "n2"} == {"n1"}
        for vote in votes:
            assert {cause.kind for cause in causes(story, vote)} == {Kind.DURABLE}


def test_a_leader_follows_from_votes(stories: list[Story]) -> None:
    for story in stories:
        for event in of_kind(story, Kind.ROLE):
            if event.details["role"] == "leader":
                kinds = {each.kind for each in past(story, event)}
                assert Kind.DURABLE in kinds  # of its own vote at least
                assert Kind.TIMER in kinds or Kind.OPERATION in kinds or Kind.FAULT in kinds


def test_a_reply_follows_from_the_request(stories: list[Story]) -> None:
    for story in stories:
        for event in of_kind(story, Kind.SEND):
            if event.details["message"] == "reply":
                assert any(
                    (each.lane, each.kind, each.details["message"])
                    == (event.details["to"], Kind.SEND, "request")
                    for each in causes(story, event)
                    if each.kind is Kind.SEND
                )


def test_a_fault_causes_what_it_does() -> None:
    plan = (Fault(300 * MS, FaultKind.CRASH, 40 * MS, Target.LEADER, 1),)
    story, _ = told(suffering(*plan))
    (fault,) = of_kind(story, Kind.FAULT)
    crash = next(event for event in of_kind(story, Kind.CRASH) if event.lane.startswith("n"))
    assert (fault.lane, crash.causes) == (NEMESIS, (fault.number,))
    restart = next(event for event in of_kind(story, Kind.START) if event.number > crash.number)
    assert crash.number in restart.causes
    assert {cause.kind for cause in causes(story, restart)} == {Kind.CRASH, Kind.DURABLE}
    assert restart.at_ns == crash.at_ns + 40 * MS


def test_a_lost_message_follows_from_the_cut() -> None:
    plan = (Fault(300 * MS, FaultKind.ISOLATE, 200 * MS, Target.LEADER, 1),)
    story, _ = told(suffering(*plan))
    (fault,) = of_kind(story, Kind.FAULT)
    (end,) = of_kind(story, Kind.FAULT_END)
    assert end.details["began"] == fault.number
    assert end.at_ns == fault.at_ns + 200 * MS
    lost = [event for event in of_kind(story, Kind.SEND) if "lost" in event.details]
    assert lost
    for event in lost:
        assert event.details["lost"] == "the link is cut"
        assert fault.number in event.causes
        assert fault.at_ns <= event.at_ns <= end.at_ns


def test_what_was_held_follows_from_its_release() -> None:
    plan = (Fault(300 * MS, FaultKind.CLOG, 50 * MS, Target.LEADER, 1),)
    story, _ = told(suffering(*plan))
    (end,) = of_kind(story, Kind.FAULT_END)
    held = [event for event in of_kind(story, Kind.DELIVER) if end.number in event.causes]
    assert held
    for event in held:
        assert story[int(str(event.details["sent"]))].at_ns <= end.at_ns <= event.at_ns


def test_a_frozen_process_hears_later_what_arrived_before() -> None:
    plan = (Fault(300 * MS, FaultKind.PAUSE, 60 * MS, Target.LEADER, 1),)
    story, _ = told(suffering(*plan))
    pause = next(event for event in of_kind(story, Kind.PAUSE) if event.lane.startswith("n"))
    resume = next(event for event in of_kind(story, Kind.RESUME) if event.lane == pause.lane)
    acts = [
        event
        for event in story.events
        if event.lane == pause.lane and pause.at_ns < event.at_ns < resume.at_ns
    ]
    assert {event.kind for event in acts} <= {Kind.DELIVER}
    assert resume.at_ns == pause.at_ns + 60 * MS


def test_a_slow_node_says_what_follows_from_what_it_heard() -> None:
    """It is woken for moments only; the moments are no events."""
    plan = (Fault(300 * MS, FaultKind.SLOW_NODE, 300 * MS, Target.FOLLOWER, 1, amount=900),)
    story, _ = told(suffering(*plan))
    (fault,) = of_kind(story, Kind.FAULT)
    (end,) = of_kind(story, Kind.FAULT_END)
    slow = f"n{fault.details['node']}"
    said = [
        event
        for event in of_kind(story, Kind.SEND)
        if event.lane == slow and fault.at_ns < event.at_ns < end.at_ns and "Response" in event.text
    ]
    assert said
    for event in said:
        assert {cause.kind for cause in causes(story, event)} <= {Kind.DELIVER, Kind.DURABLE}
    assert len(of_kind(story, Kind.RESUME)) <= 2


def test_what_clients_hold_begins_and_ends() -> None:
    story, _ = told(expand(3, JOBS))
    held: set[tuple[str, object, object]] = set()
    for event in story.events:
        name = (event.lane, event.details.get("what"), event.details.get("token"))
        if event.kind is Kind.HOLD:
            held.add(name)
        elif event.kind is Kind.LET_GO:
            held.remove(name)
    assert of_kind(story, Kind.LET_GO)


def test_a_grant_follows_from_what_was_decided_by_whomever(stories: list[Story]) -> None:
    """A member that applies an entry later says what the first one to apply it has told."""
    late = 0
    for story in stories:
        decisions = {each.text.rsplit(" as ", 1)[-1]: each for each in of_kind(story, Kind.DECISION)}
        for event in [event for event in of_kind(story, Kind.SEND) if is_grant(event)][:40]:
            decided = decisions[event.text.split()[-1]]
            if decided.number < event.number and story[event.causes[0]].kind is Kind.APPLY:
                assert decided in past(story, event)
                late += story[decided.causes[0]].lane != event.lane
    assert late > 0


def is_grant(event: Event) -> bool:
    return event.details["message"] == "notice" and "job " in event.text and " is yours by " in event.text


def test_operations_come_from_outside(stories: list[Story]) -> None:
    for story in stories:
        operations = of_kind(story, Kind.OPERATION)
        assert operations
        assert all(event.causes == () for event in operations)


def test_a_barren_timer_is_no_event() -> None:
    story = Story()
    story.timer("n1", "its timer goes off")
    story.enter("n1", Kind.OPERATION, "is asked")
    story.timer("n1", "its timer goes off")
    acts = story.within(lambda: story.add("n1", Kind.NOTE, "acts"))
    story.add("n1", Kind.NOTE, "campaigns")
    acts()
    assert [(event.kind, event.causes) for event in story.events] == [
        (Kind.OPERATION, ()),
        (Kind.TIMER, (1,)),
        (Kind.NOTE, (2,)),
        (Kind.NOTE, (1,)),
    ]


def test_a_violation_at_a_finished_write_is_the_members() -> None:
    story = Story()
    story.persist(1, 1, "write 1")
    story.durable(1, 1)
    assert story[story.violation("an oracle", "n1 does it", ["n1"])].lane == "n1"


def test_a_violation_ends_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaftState, "hold", RaftState.send)
    for seed in range(50):
        story, report = told(expand(seed))
        if report.violation is not None:
            break
    else:
        pytest.fail("a planted bug was not found")
    last = story.events[-1]
    assert last.kind is Kind.VIOLATION
    assert last.text == f"breaks {report.violation}"
    assert last.lane == story[last.causes[0]].lane
    assert run_case(expand(seed)).digest == report.digest


def test_a_run_without_a_story_pays_nothing() -> None:
    """The queue, the network and the inboxes are the plain ones."""
    world = Cluster(expand(40), Trace()).world
    assert (type(world.kernel), type(world.network)) == (Kernel, Network)
    node = Cluster(expand(40), Trace()).nodes[1]
    assert type(node.inbox) is list


def test_a_process_that_heard_of_a_write_acts_with_it() -> None:
    story = Story()
    story.persist(1, 1, "write 1")
    story.durable(1, 1)
    story.told_durable(1)
    asked = story.enter("n1", Kind.OPERATION, "is asked")
    story.add("n1", Kind.SEND, "-> n2 answer", to="n2")
    story.add("n1", Kind.SEND, "-> n3 answer", to="n3")
    assert [event.causes for event in story.events] == [(), (1,), (), (asked, 2), (asked,)]
