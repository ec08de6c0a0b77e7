"""When jobs start: no more at a time, no more often, and no later than they were asked to. An oracle of its own.

It goes by what was asked for, by grants and by what ended them, never by the tables of a store. Jobs that were fetched
by contract may be given up unseen, so they count as starts, but not as holders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from quorker.core.jobs.new_job import NewJob, StartRules
from quorker.sim.oracles.checks import Violation

LOOK_BACK: Final = 64  # starts under a key that are looked at with each further one

Rate = tuple[int, int, int]


class Starts:
    """`note` is told what is rare."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._rules: dict[str, StartRules] = {}
        self._too_late_wt: dict[str, int] = {}  # of jobs that have not started, and that nobody moved by hand
        self._past: dict[str, list[int]] = {}  # key -> log times of starts, all with the same rate
        self._rates: dict[str, Rate] = {}
        self._behind: set[str] = set()  # jobs that were made when their key was full

    def on_made(self, job_id: str, job: NewJob, wt: int, held: Iterable[str]) -> None:
        """A job is made, or what stands for its unique key is named again."""
        rules = job.start
        if rules is None or job_id in self._rules:
            return
        self._rules[job_id] = rules
        instants = [rules.by_wt]
        if rules.within_ms and not job.parent_id:
            due_wt = wt + job.delay_ms if job.at_wt is None else job.at_wt
            instants.append(max(due_wt, wt) + rules.within_ms)
        self._too_late_wt[job_id] = min((each for each in instants if each), default=0)
        if rules.limit and self._count(rules.key, held) >= rules.limit:
            self._behind.add(job_id)

    def lift(self, job_id: str) -> None:
        """Somebody moved it by hand, or made its life their own business: it may start whenever they like."""
        self._too_late_wt.pop(job_id, None)

    def is_limited(self, job_id: str) -> bool:
        return job_id in self._rules

    def on_start(self, job_id: str, others: Iterable[str], lt: int, wt: int) -> None:
        """The job is granted, while the others are in somebody's hands."""
        rules = self._rules.get(job_id)
        if rules is None:
            return
        too_late_wt = self._too_late_wt.pop(job_id, 0)
        if 0 < too_late_wt <= wt:
            raise Violation(
                "not too late [J23]", f"{job_id} starts at {wt}, was to start before {too_late_wt}"
            )
        if rules.limit:
            self._judge_limit(job_id, rules, self._count(rules.key, others))
        if rules.rate:
            self._judge_rate(job_id, rules, lt)

    def _count(self, key: str, held: Iterable[str]) -> int:
        return sum(job_id in self._rules and self._rules[job_id].key == key for job_id in held)

    def _judge_limit(self, job_id: str, rules: StartRules, others: int) -> None:
        if others >= rules.limit:
            raise Violation(
                "within its limit [J21]", f"{job_id} starts beside {others} of {rules.key}, of {rules.limit}"
            )
        if others + 1 == rules.limit:
            self._note("limit of a key reached")
        if job_id in self._behind:
            self._behind.remove(job_id)
            self._note("started after waiting for its key")

    def _judge_rate(self, job_id: str, rules: StartRules, lt: int) -> None:
        """Of any stretch of log time that ends now: as many starts as fit into it, and the burst."""
        rate = (rules.rate, rules.rate_ms, rules.burst)
        if self._rates.get(rules.key) != rate:
            self._rates[rules.key], self._past[rules.key] = rate, []
        past = self._past[rules.key]
        past.append(lt)
        del past[:-LOOK_BACK]
        each_us = (rules.rate_ms * 1000 + rules.rate - 1) // rules.rate
        for count, since in enumerate(reversed(past), 1):
            most = rules.burst + (lt - since) * 1000 // each_us
            if count > most:
                raise Violation(
                    "within its rate [J22]",
                    f"{job_id} is start {count} of {rules.key} from {since} to {lt}, at most {most} may be",
                )
            if count == most and count > 1:
                self._note("rate of a key used up")
