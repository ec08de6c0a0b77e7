"""Figures for notebooks: members over time, beliefs against skew, how fast planted bugs are found. Needs matplotlib.

What is drawn is computed elsewhere (`experiment`, `spans`, `lease_skew`); here stands only how it looks. The diagram to
look into with a mouse is `quorker sim html`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import matplotlib.pyplot as plt

from quorker.sim.experiments.experiment import Run
from quorker.sim.experiments.lease_skew import LEASE_MS, LeaseTime, Overlap, bound_ms
from quorker.sim.mutants.hunt import hunt
from quorker.sim.mutants.mutant import Mutant
from quorker.sim.stories.spans import Span, spans_of
from quorker.sim.stories.story import Event, Kind
from quorker.sim.world.kernel import MS

_plot: Any = plt
TERM_COLOURS: Final = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#eeca3b", "#72b7b2", "#ff9da6", "#9d755d")
ROLE_HEIGHTS: Final = {"leader": 0.62, "candidate": 0.4, "pre-candidate": 0.4}
FOLLOWER_HEIGHT: Final = 0.18
FAULT_COLOUR: Final = "#d62728"
MESSAGES_MAX: Final = 1_500  # beyond that arrows are only ink


def members_over_time(
    run: Run, begin_ms: float = 0, end_ms: float | None = None, *, messages: bool = False
) -> Any:
    """One lane a member: colour is the term, height the role, gaps are crashes, red bands are faults, the dots below it are commits.

    With `messages`, arrows from where they were sent to where they arrived.
    """
    last_ns = run.events[-1].at_ns if run.events else 0
    window = (int(begin_ms * MS), last_ns if end_ms is None else int(end_ms * MS))
    lanes = {f"n{node}": place for place, node in enumerate(reversed(run.case.nodes))}
    _, axes = _plot.subplots(figsize=(11, 0.9 * len(lanes) + 1.2))
    for span in spans_of(run.story):
        _draw_span(axes, span, lanes, window)
    for event in run.events:
        if event.kind is Kind.COMMIT and event.lane in lanes:
            axes.plot(event.at_ns / MS, lanes[event.lane] - 0.32, ".", color="black", markersize=3, zorder=4)
    if messages:
        _draw_messages(axes, run.events, lanes, window)
    axes.set(xlim=(window[0] / MS, window[1] / MS), ylim=(-0.6, len(lanes) - 0.4), xlabel="true time, ms")
    axes.set_yticks(list(lanes.values()), list(lanes))
    axes.set_title(f"{run.scenario.name}, seed {run.case.seed}")
    _plain(axes)
    return axes


def _draw_span(axes: Any, span: Span, lanes: dict[str, int], window: tuple[int, int]) -> None:
    begin, end = max(span.from_ns, window[0]), min(span.to_ns, window[1])
    if begin >= end:
        return
    if span.kind == "fault":
        axes.axvspan(begin / MS, end / MS, color=FAULT_COLOUR, alpha=0.10, linewidth=0)
        axes.text(begin / MS, len(lanes) - 0.5, f" {span.text}", fontsize=7, color=FAULT_COLOUR, va="center")
    elif span.kind == "life" and span.lane in lanes:
        height = ROLE_HEIGHTS.get(span.text, FOLLOWER_HEIGHT)
        colour = TERM_COLOURS[span.term % len(TERM_COLOURS)]
        place = lanes[span.lane] - height / 2
        axes.broken_barh([(begin / MS, (end - begin) / MS)], (place, height), color=colour, zorder=2)
        if span.text == "leader":
            axes.text(
                begin / MS,
                lanes[span.lane],
                f" term {span.term}",
                fontsize=9,
                color="white",
                va="center",
                zorder=5,
            )
    elif span.kind == "frozen" and span.lane in lanes:
        bar = [(begin / MS, (end - begin) / MS)]
        axes.broken_barh(bar, (lanes[span.lane] - 0.35, 0.7), hatch="///", facecolor="none", edgecolor="grey")


def _draw_messages(
    axes: Any, events: Sequence[Event], lanes: dict[str, int], window: tuple[int, int]
) -> None:
    sent = {event.number: event for event in events if event.kind is Kind.SEND and event.lane in lanes}
    drawn = 0
    for event in events:
        causes = [sent[cause] for cause in event.causes if cause in sent]
        if event.kind is not Kind.DELIVER or event.lane not in lanes or not causes:
            continue
        if window[0] <= causes[0].at_ns and event.at_ns <= window[1] and drawn < MESSAGES_MAX:
            drawn += 1
            start = (causes[0].at_ns / MS, lanes[causes[0].lane])
            arrow = {"arrowstyle": "->", "color": "#222222", "alpha": 0.45, "linewidth": 0.7}
            axes.annotate("", (event.at_ns / MS, lanes[event.lane]), start, arrowprops=arrow, zorder=3)


def overlaps(rows: Iterable[Overlap]) -> Any:
    """Measured overlap of two holders' beliefs against the skew of the wall clock, with the formula as lines."""
    found = list(rows)
    _, axes = _plot.subplots(figsize=(8, 4.2))
    skews = sorted({row.skew_ms for row in found})
    for lease_time, colour in ((LeaseTime.SUBMITTER, "#d62728"), (LeaseTime.LOG, "#2ca02c")):
        mine = [row for row in found if row.lease_time is lease_time]
        axes.plot(
            [row.skew_ms for row in mine], [row.overlap_ms for row in mine], "o", color=colour, alpha=0.5
        )
        bounds = [bound_ms(lease_time, skew) for skew in skews]
        axes.plot(skews, bounds, color=colour, label=f"{lease_time} time: at most")
    axes.set(
        xlabel="the holder's wall clock is behind by, ms",
        ylabel="both believe to hold the job, ms",
        title=f"A lease of {LEASE_MS} ms",
    )
    axes.legend()
    _plain(axes)
    return axes


def detection(found: dict[str, Sequence[int | None]]) -> Any:
    """By bug: the share of searches that have found it after so many runs (None: not found)."""
    _, axes = _plot.subplots(figsize=(8, 4.2))
    for name, runs in found.items():
        reached = sorted(count for count in runs if count is not None)
        shares = [(place + 1) / len(runs) for place in range(len(reached))]
        axes.step([1, *reached], [0.0, *shares], where="post", label=name)
    axes.set(xlabel="runs", ylabel="share of searches that found it", ylim=(0, 1.02), xscale="log")
    axes.legend()
    _plain(axes)
    return axes


def sizes(steps: Sequence[Any]) -> Any:
    """How a failing case became small: faults and operations left after so many runs."""
    _, axes = _plot.subplots(figsize=(8, 3.2))
    runs = [step.runs for step in steps]
    for place, name in enumerate(("faults and traps", "operations", "members", "unusual knobs")):
        axes.step(runs, [step.size[place] for step in steps], where="post", label=name)
    axes.set(xlabel="runs tried", ylabel="left")
    axes.legend()
    _plain(axes)
    return axes


def searches(mutant: Mutant, count: int = 10, runs_max: int = 60) -> list[int | None]:
    """How many runs each of several searches for a planted bug took; each search has seeds of its own."""
    found = [hunt(mutant, runs_max, number * runs_max) for number in range(count)]
    return [each.runs if each.violation else None for each in found]


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
