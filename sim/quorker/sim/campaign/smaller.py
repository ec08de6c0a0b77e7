"""What makes a case smaller in one way: candidates only, each with the words that tell of it, and the measure of size.

Every dimension of a case has its place in `size_of` and its candidates here: what goes wrong, what is asked for, nodes,
clients, knobs, durations, places of traps, amounts, moments. Whether a candidate still fails is for `shrink` to find out.
`calm_ns` is not among them: it is how long a promise may take, and every run breaks a promise that may take no time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final, TypeAlias, TypeVar

from quorker.sim.cases.case import Case, ClockKnobs, Fault, JobsKnobs, Op, OpKind, Trap
from quorker.sim.cases.limits import OF_MEMBERSHIP
from quorker.sim.cases.options import unit_of_amount
from quorker.sim.world.kernel import MS

T = TypeVar("T")
Candidates: TypeAlias = Iterator[tuple[T, str]]

STRIDE: Final = 2  # bits: durations are tried in steps of a factor of four
SHIFTS: Final = (16, 8, 4, 2, 1)
"""By how many bits a number is cut, the smallest result first."""
FLAGS: Final = {"dead_in_calm": 0, "thorough": False, "steady": False}
COUNTED: Final = ("clients", "housed")
"""Knobs of a job store that are sizes."""
MEASURED: Final = ("_ns", "_ms", "_ppm")
"""What the names of knobs end with that stand for times and chances: something between is worth a try."""


def size_of(case: Case) -> tuple[int, ...]:
    """What shrinking makes smaller, most important first."""
    return (
        len(case.plan) + len(case.traps),
        len(case.ops),
        case.voters + case.spares,
        case.jobs.clients + case.jobs.housed if case.jobs is not None else 0,
        len(unusual_knobs(case)) + sum(clock != ClockKnobs() for clock in case.clocks),
        sum(_weight(fault.for_ns) for fault in case.plan) + sum(_weight(trap.for_ns) for trap in case.traps),
        sum(trap.nth for trap in case.traps),
        sum(abs(fault.amount).bit_length() for fault in case.plan)
        + sum(not _is_plain(op) for op in case.ops),
        sum(_distance(each) for each in _measured_knobs(case)) + sum(map(_wrongness, case.clocks)),
        case.chaos_ns,
        sum(op.at_ns % MS > 0 for op in case.ops),
    )


def _weight(ns: int) -> int:
    """Less for what is shorter, and for a power of two in ms of the same length."""
    ms = ns // MS
    return 2 * ms.bit_length() + (ms & (ms - 1) > 0)


# ---------------------------------------------------------------------- items of the lists


def smaller_fault(fault: Fault) -> Candidates[Fault]:
    """It lasts less, or does less."""
    for for_ns, lasts in _shorter(fault.for_ns):
        yield replace(fault, for_ns=for_ns), f"a {fault.kind} of {lasts}"
    for amount in _towards_zero(fault.amount):
        yield replace(fault, amount=amount), f"a {fault.kind} of amount {amount}"


def smaller_trap(trap: Trap) -> Candidates[Trap]:
    """It waits for an earlier passage, or keeps its member away for less."""
    for nth in _upwards(trap.nth):
        yield replace(trap, nth=nth), f"a trap at {trap.point} number {nth}"
    for for_ns, lasts in _shorter(trap.for_ns):
        yield replace(trap, for_ns=for_ns), f"a crash at {trap.point} of {lasts}"


def smaller_op(op: Op) -> Candidates[Op]:
    """Its options are the plainest, or its moment is a whole millisecond."""
    if not _is_plain(op):
        yield replace(op, amount=_plain_amount(op)), f"a plain {op.kind}"
    if op.at_ns % MS:
        yield replace(op, at_ns=op.at_ns - op.at_ns % MS), f"{op.kind} at {op.at_ns // MS} ms"


def smaller_clock(clock: ClockKnobs) -> Candidates[ClockKnobs]:
    """It is right, or less wrong."""
    yield ClockKnobs(), "a true clock"
    for rate_ppm in _towards_zero(clock.rate_ppm):
        yield replace(clock, rate_ppm=rate_ppm), f"a clock that is wrong by {rate_ppm} ppm"
    for offset_ms in _towards_zero(clock.wall_offset_ms):
        yield replace(clock, wall_offset_ms=offset_ms), f"a wall clock that is wrong by {offset_ms} ms"


ITEMS: Final[dict[str, Any]] = {
    "plan": smaller_fault,
    "traps": smaller_trap,
    "ops": smaller_op,
    "clocks": smaller_clock,
}
"""How an item of each list of a case becomes smaller."""


def _shorter(for_ns: int) -> Candidates[int]:
    """Powers of two in ms, the shortest first: they can be read."""
    shift = 0
    while MS << shift < for_ns:
        yield MS << shift, f"{1 << shift} ms"
        shift += STRIDE
    if shift and MS << (shift - 1) < for_ns:
        yield MS << (shift - 1), f"{1 << (shift - 1)} ms"


def _towards_zero(number: int) -> Iterator[int]:
    if number:
        yield 0
    for shift in SHIFTS:
        if abs(number) >> shift:
            yield (abs(number) >> shift) * (1 if number > 0 else -1)


def _upwards(number: int) -> Iterator[int]:
    """1, 2, 4 and so on, below the number, and the one before it."""
    low = 1
    while low < number:
        yield low
        low *= 2
    if number > 1:
        yield number - 1


def _plain_amount(op: Op) -> int:
    if op.kind is OpKind.PROPOSE:
        return 1
    if op.kind in OF_MEMBERSHIP:
        return op.amount  # a node
    unit = unit_of_amount(op.kind)
    return unit.read({}) if unit is not None else 0


def _is_plain(op: Op) -> bool:
    return op.amount == _plain_amount(op)


# ---------------------------------------------------------------------- knobs


def _sections(case: Case) -> Iterator[tuple[str, Any]]:
    """The groups of knobs in a case, by name."""
    for each in fields(case):
        value = getattr(case, each.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield each.name, value


def unusual_knobs(case: Case) -> list[tuple[str, str, Any]]:
    """(section, knob, its default) of everything that is not as it is by default."""
    found: list[tuple[str, str, Any]] = []
    for section, knobs in _sections(case):
        plain = type(knobs)()
        found.extend(
            (section, each.name, getattr(plain, each.name))
            for each in fields(knobs)
            if each.name not in COUNTED and getattr(knobs, each.name) != getattr(plain, each.name)
        )
    found.extend(("", name, plain) for name, plain in FLAGS.items() if getattr(case, name) != plain)
    return found


def plainer(case: Case, section: str, name: str, default: object) -> tuple[Case, str]:
    """With this knob as it is by default."""
    return _with_knob(case, section, name, default), f"{section or 'case'}.{name} = {default}"


def milder(case: Case, section: str, name: str, default: object) -> Candidates[Case]:
    """With this knob nearer to its default, if it is a time or a chance."""
    if isinstance(default, int) and name.endswith(MEASURED):
        for distance in _towards_zero(getattr(getattr(case, section), name) - default):
            if distance:
                value = default + distance
                yield _with_knob(case, section, name, value), f"{section}.{name} = {value}"


def _measured_knobs(case: Case) -> Iterator[tuple[Any, int]]:
    for section, name, default in unusual_knobs(case):
        if name.endswith(MEASURED):
            yield getattr(getattr(case, section), name), default


def _distance(value_and_default: tuple[int, int]) -> int:
    value, default = value_and_default
    return abs(value - default).bit_length()


def _wrongness(clock: ClockKnobs) -> int:
    return abs(clock.rate_ppm).bit_length() + abs(clock.wall_offset_ms).bit_length()


def _with_knob(case: Case, section: str, name: str, value: object) -> Case:
    if not section:
        return changed(case, name, value)
    return changed(case, section, changed(getattr(case, section), name, value))


def changed(record: T, name: str, value: object) -> T:
    """The same record with another value of this name."""
    changes: dict[str, Any] = {name: value}
    return replace(record, **changes)  # type: ignore[type-var]  # a dataclass, whichever


# ---------------------------------------------------------------------- nodes and clients


def fewer_nodes(case: Case) -> Candidates[Case]:
    """Fewer members, the fewest first."""
    for voters in range(1, case.voters + 1):
        for spares in range(case.spares + 1):
            if (voters, spares) != (case.voters, case.spares):
                yield _resized(case, voters, spares), f"{voters} voters and {spares} spares"


def _resized(case: Case, voters: int, spares: int) -> Case:
    nodes = voters + spares
    before = case.voters + case.spares
    jobs = case.jobs
    if jobs is not None and jobs.housed > voters:
        jobs = replace(jobs, housed=voters)
    return replace(
        case,
        voters=voters,
        spares=spares,
        clocks=case.clocks[:nodes] + case.clocks[before:] if case.clocks else (),
        plan=tuple(replace(fault, node=min(fault.node, nodes)) for fault in case.plan),
        ops=tuple(_within(case.ops, nodes, is_of_member=True, jobs=jobs)),
        dead_in_calm=min(case.dead_in_calm, (voters - 1) // 2),
        jobs=jobs,
    )


def fewer_clients(case: Case) -> Candidates[Case]:
    """Fewer clients, the fewest first, and fewer of them within members."""
    jobs = case.jobs
    if jobs is None:
        return
    for clients in range(1, jobs.clients + 1):
        for housed in range(min(jobs.housed, clients) + 1):
            fewer = replace(jobs, clients=clients, housed=housed)
            smaller = replace(
                case,
                jobs=fewer,
                clocks=case.clocks[: len(case.nodes) + clients],
                ops=tuple(_within(case.ops, clients, is_of_member=False, jobs=fewer)),
            )
            yield smaller, f"{clients} clients, {housed} of them in members"


def _within(ops: Iterable[Op], count: int, *, is_of_member: bool, jobs: JobsKnobs | None) -> Iterator[Op]:
    """What is asked of a member, or by a client, that is gone is asked of or by the last one that is left."""
    for op in ops:
        asks_member = jobs is None or op.kind in OF_MEMBERSHIP
        yield replace(op, node=min(op.node, count)) if asks_member == is_of_member else op


# ---------------------------------------------------------------------- time as a whole


def less_chaos(case: Case) -> Candidates[Case]:
    """The same at half the intervals, or with an end of the chaos as soon as everything has begun."""
    instants = [fault.at_ns for fault in case.plan] + [op.at_ns for op in case.ops]
    last_ns = max(instants, default=0) // MS * MS + MS
    yield replace(case, chaos_ns=last_ns), f"a chaos of {last_ns // MS} ms"
    hastened = replace(
        case,
        chaos_ns=case.chaos_ns // 2,
        plan=tuple(replace(fault, at_ns=fault.at_ns // 2) for fault in case.plan),
        ops=tuple(replace(op, at_ns=op.at_ns // 2) for op in case.ops),
    )
    if hastened.chaos_ns >= MS:
        yield hastened, "everything in half the time"
