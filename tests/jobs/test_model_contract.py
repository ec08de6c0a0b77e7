"""The 34 contract operations against a naive model in plain dicts and lists, with restarts from a snapshot in between.

The model is written from the contract alone: it scans, sorts and copies as it likes, and is meant to be obvious.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from quorker.core.jobs import commands as c
from quorker.core.jobs.batch import encode_entry, encode_group
from quorker.core.jobs.store import JobStore

WT = 1_800_000_000_000
ENDED = {"Succeeded", "Deleted", "Failed", "Quarantined"}
LOST_MAX = 10

KEYS = st.sampled_from(["k1", "k2"])
VALUES = st.sampled_from(["a", "b", "c"])
JOBS = st.sampled_from(["j1", "j2", "j3"])
QUEUES = st.sampled_from(["q1", "q2"])
STATES = st.sampled_from(["Enqueued", "Processing", "Succeeded", "Odd"])
SCORES = st.sampled_from([-1.0, 0.0, 1.0, 2.5])
SPANS = st.sampled_from([0, 1, 500, 1000])
OWNERS = st.sampled_from(["x", "y"])
INVISIBILITY_MS = 800


@dataclass
class NaiveJob:
    parameters: dict[str, str | None]
    expires: int | None
    state: str | None = None
    entered: int = 0
    history: list[str] = field(default_factory=list[str])
    lost: int = 0


@dataclass
class Naive:
    """What a job store is, said in the simplest way."""

    lt: int = 0
    changes: int = 0
    jobs: dict[str, NaiveJob] = field(default_factory=dict[str, NaiveJob])
    queues: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    leases: dict[int, tuple[str, str, int]] = field(default_factory=dict[int, tuple[str, str, int]])
    locks: dict[str, tuple[str, int, int]] = field(default_factory=dict[str, tuple[str, int, int]])
    sets: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    lists: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    hashes: dict[str, dict[str, str | None]] = field(default_factory=dict[str, dict[str, str | None]])
    counters: dict[str, int] = field(default_factory=dict[str, int])
    servers: dict[str, int] = field(default_factory=dict[str, int])
    expiries: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    # jobs

    def leave_queues(self, job_id: str) -> None:
        for name, entries in self.queues.items():
            self.queues[name] = [entry for entry in entries if entry != job_id]

    def set_state(self, job_id: str, state: str) -> None:
        self.changes += 1
        job = self.jobs[job_id]
        job.state, job.entered = state, self.changes
        job.history.append(state)

    def in_state(self, state: str) -> list[str]:
        there = [(job.entered, job_id) for job_id, job in self.jobs.items() if job.state == state]
        return [job_id for _, job_id in sorted(there)]

    def fetch(self, names: tuple[str, ...]) -> tuple[str, str] | None:
        for name in names:
            entries = self.queues.get(name, [])
            while entries:
                job_id = entries.pop(0)
                if job_id in self.jobs:
                    return job_id, name
        return None

    def give_back(self, job_id: str, queue: str) -> None:
        job = self.jobs.get(job_id)
        if job is not None and job.state not in ENDED:
            job.expires = None
            self.queues.setdefault(queue, []).insert(0, job_id)

    def is_held(self, job_id: str) -> bool:
        return any(held == job_id for held, _, _ in self.leases.values())

    def maintain(self, invisibility_ms: int) -> tuple[int, int]:
        """(jobs evicted, leases reclaimed)."""
        due = [
            job_id
            for job_id, job in self.jobs.items()
            if job.expires is not None and job.expires <= self.lt and not self.is_held(job_id)
        ]
        for job_id in due:
            del self.jobs[job_id]
            self.leave_queues(job_id)
        for (kind, key), instant in list(self.expiries.items()):
            if instant <= self.lt:
                getattr(self, kind).pop(key, None)
                del self.expiries[kind, key]
        self.locks = {name: lock for name, lock in self.locks.items() if lock[1] > self.lt}
        stale = [token for token, (_, _, since) in self.leases.items() if since + invisibility_ms <= self.lt]
        for token in reversed(stale):
            if token in self.leases:
                self.lose(*self.leases.pop(token)[:2])
        return len(due), len(stale)

    def lose(self, job_id: str, queue: str) -> None:
        job = self.jobs.get(job_id)
        if job is None or job.state in ENDED:
            return
        job.lost += 1
        if job.lost < LOST_MAX:
            self.give_back(job_id, queue)
            return
        self.leave_queues(job_id)
        self.set_state(job_id, "Quarantined")
        job.expires = None

    # collections

    def drop(self, kind: str, key: str) -> bool:
        self.expiries.pop((kind, key), None)
        return getattr(self, kind).pop(key, None) is not None

    def expire(self, kind: str, key: str, span: int) -> bool:
        if key in getattr(self, kind):
            self.expiries[kind, key] = self.lt + span
        return key in getattr(self, kind)

    def persist(self, kind: str, key: str) -> bool:
        self.expiries.pop((kind, key), None)
        return key in getattr(self, kind)

    def ttl(self, kind: str, key: str) -> int:
        instant = self.expiries.get((kind, key))
        return -1 if instant is None else instant - self.lt


class ContractMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = JobStore()
        self.naive = Naive()
        self.seq = 0
        self.token = 0

    def reply(self, command: c.Command) -> Any:
        self.seq += 1
        group = encode_group(0, 0, [(self.seq, c.encode(command))])
        entry = encode_entry(self.naive.lt, WT + self.naive.lt, [group])
        outcome = self.store.apply(self.store.applied_index + 1, entry)
        assert outcome.faults == []
        return outcome.replies[0][2]

    def perform(self, command: Any, in_batch: bool = False) -> Any:
        """The value of an operation, alone or as a batch of one."""
        reply = self.reply(c.Batch((), (command,)) if in_batch else command)
        assert reply[0] == 0, reply
        return reply[1][0] if in_batch else reply[1]

    @initialize()
    def begin_with_jobs(self) -> None:
        for job_id in ("j1", "j2", "j3"):
            self.create_job(job_id, 100_000)
            self.add_to_queue("q1", job_id, in_batch=False)

    # time and restarts

    @rule(span=SPANS)
    def time_passes(self, span: int) -> None:
        self.naive.lt += span

    @rule()
    def restart(self) -> None:
        before = self.store.digest()
        self.store = JobStore.restore(self.store.snapshot().chunks())
        assert self.store.digest() == before

    @rule(key=KEYS)
    def refused_batch(self, key: str) -> None:
        ops = (c.AddToSet(key, "refused"), c.CreateJob("refused", "t", b"", "q1", (), 1))
        assert self.reply(c.Batch((c.JobInState("nothing", ()),), ops))[1] == "precondition_failed"

    # jobs

    @rule(job_id=JOBS, span=SPANS)
    def create_job(self, job_id: str, span: int) -> None:
        assert self.perform(c.CreateJob(job_id, "task", b"", "q1", (("p", "0"),), span)) == job_id
        if job_id in self.naive.jobs:
            self.naive.leave_queues(job_id)
        expires = max(1, self.naive.lt + span)
        self.naive.jobs[job_id] = NaiveJob({"p": "0"}, expires)

    @rule(job_id=JOBS, value=st.none() | VALUES, in_batch=st.booleans())
    def set_parameter(self, job_id: str, value: str | None, in_batch: bool) -> None:
        job = self.naive.jobs.get(job_id)
        assert self.perform(c.SetJobParameter(job_id, "p", value), in_batch) == (job is not None)
        if job is not None:
            job.parameters["p"] = value

    @rule(job_id=JOBS, state=STATES, in_batch=st.booleans())
    def set_state(self, job_id: str, state: str, in_batch: bool) -> None:
        known = job_id in self.naive.jobs
        assert self.perform(c.SetJobState(job_id, state, "", ()), in_batch) == known
        if known:
            self.naive.set_state(job_id, state)

    @rule(job_id=JOBS, state=STATES)
    def add_state(self, job_id: str, state: str) -> None:
        job = self.naive.jobs.get(job_id)
        assert self.perform(c.AddJobState(job_id, state, "", ())) == (job is not None)
        if job is not None:
            job.history.append(state)

    @rule(job_id=JOBS, span=st.none() | SPANS)
    def expire_or_persist_job(self, job_id: str, span: int | None) -> None:
        job = self.naive.jobs.get(job_id)
        command = c.PersistJob(job_id) if span is None else c.ExpireJob(job_id, span)
        assert self.perform(command) == (job is not None)
        if job is not None:
            job.expires = None if span is None else max(1, self.naive.lt + span)

    # queues

    @rule(queue=QUEUES, job_id=JOBS | st.just("ghost"), in_batch=st.booleans())
    def add_to_queue(self, queue: str, job_id: str, in_batch: bool) -> None:
        self.perform(c.AddToQueue(queue, job_id), in_batch)
        self.naive.queues.setdefault(queue, []).append(job_id)

    @rule(names=st.sampled_from([("q1",), ("q1", "q2"), ("q2", "q1")]), in_batch=st.booleans())
    def fetch(self, names: tuple[str, ...], in_batch: bool) -> None:
        found = self.perform(c.FetchNext(names), in_batch)
        expected = self.naive.fetch(names)
        assert (found and tuple(found[:2])) == expected
        if found and expected:
            assert found[2] > self.token
            self.token = found[2]
            self.naive.leases[self.token] = (*expected, self.naive.lt)

    def some_token(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from([*self.naive.leases, 1]))

    @rule(data=st.data(), requeue=st.booleans())
    def acknowledge_or_requeue(self, data: st.DataObject, requeue: bool) -> None:
        token = self.some_token(data)
        command = c.RequeueFetched(token) if requeue else c.AckFetched(token)
        lease = self.naive.leases.pop(token, None)
        assert self.perform(command) == (lease is not None)
        if lease is not None and requeue:
            self.naive.give_back(*lease[:2])

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        token = self.some_token(data)
        lease = self.naive.leases.pop(token, None)
        assert self.perform(c.RenewFetched(token)) == (lease is not None)
        if lease is not None:
            self.naive.leases[token] = (*lease[:2], self.naive.lt)

    @precondition(lambda self: self.naive.leases)
    @rule(data=st.data(), others=st.integers(0, 3))
    def leases_grow_old(self, data: st.DataObject, others: int) -> None:
        """One of them is renewed on the way."""
        for _ in range(others):
            self.fetch(("q1", "q2"), in_batch=False)
        self.time_passes(500)
        self.renew(data)
        self.time_passes(500)
        self.maintain()

    @rule()
    def maintain(self) -> None:
        evicted, _, reclaimed, *_ = self.perform(c.Maintain(INVISIBILITY_MS))
        assert (evicted, reclaimed) == self.naive.maintain(INVISIBILITY_MS)

    # locks

    @rule(resource=KEYS, owner=OWNERS, span=SPANS)
    def try_lock(self, resource: str, owner: str, span: int) -> None:
        token = self.perform(c.TryLock(resource, owner, span))
        held = self.naive.locks.get(resource)
        if held is not None and held[1] <= self.naive.lt:
            held = None
        if held is not None and held[0] != owner:
            assert token == 0
        elif held is not None:
            assert token == held[2]
            self.naive.locks[resource] = (owner, max(held[1], self.naive.lt + span), token)
        else:
            assert token > self.token
            self.token = token
            self.naive.locks[resource] = (owner, self.naive.lt + max(1, span), token)

    @rule(resource=KEYS, owner=OWNERS)
    def unlock(self, resource: str, owner: str) -> None:
        held = self.naive.locks.get(resource)
        mine = held is not None and held[0] == owner
        assert self.perform(c.Unlock(resource, owner)) == mine
        if mine:
            del self.naive.locks[resource]

    # sets, lists, hashes, counters

    @rule(key=KEYS, value=VALUES, score=SCORES, in_batch=st.booleans())
    def add_to_set(self, key: str, value: str, score: float, in_batch: bool) -> None:
        values = self.naive.sets.setdefault(key, {})
        assert self.perform(c.AddToSet(key, value, score), in_batch) == (value not in values)
        values[value] = score

    @rule(key=KEYS, some=st.lists(VALUES, min_size=1, max_size=3))
    def add_range_to_set(self, key: str, some: list[str]) -> None:
        values = self.naive.sets.setdefault(key, {})
        assert self.perform(c.AddRangeToSet(key, tuple(some))) == len(set(some) - set(values))
        values.update(dict.fromkeys(some, 0.0))

    @rule(key=KEYS, value=VALUES)
    def remove_from_set(self, key: str, value: str) -> None:
        values = self.naive.sets.get(key, {})
        assert self.perform(c.RemoveFromSet(key, value)) == (value in values)
        values.pop(value, None)
        if not values:
            self.naive.drop("sets", key)

    @rule(key=KEYS, value=VALUES)
    def insert_to_list(self, key: str, value: str) -> None:
        items = self.naive.lists.setdefault(key, [])
        items.insert(0, value)
        assert self.perform(c.InsertToList(key, value)) == len(items)

    @rule(key=KEYS, value=VALUES)
    def remove_from_list(self, key: str, value: str) -> None:
        items = self.naive.lists.get(key, [])
        self.keep(key, c.RemoveFromList(key, value), [item for item in items if item != value])

    @rule(key=KEYS, first=st.integers(-2, 4), last=st.integers(-2, 4))
    def trim_list(self, key: str, first: int, last: int) -> None:
        items = self.naive.lists.get(key, [])
        kept = [item for rank, item in enumerate(items) if first <= rank <= last]
        self.keep(key, c.TrimList(key, first, last), kept)

    def keep(self, key: str, command: c.Command, kept: list[str]) -> None:
        removed = len(self.naive.lists.get(key, [])) - len(kept)
        assert self.perform(command) == removed
        if kept:
            self.naive.lists[key] = kept
        else:
            self.naive.drop("lists", key)

    @rule(key=KEYS, fields=st.dictionaries(VALUES, st.none() | VALUES, max_size=2))
    def set_range_in_hash(self, key: str, fields: dict[str, str | None]) -> None:
        old = self.naive.hashes.get(key, {})
        assert self.perform(c.SetRangeInHash(key, tuple(fields.items()))) == len(set(fields) - set(old))
        if fields:
            self.naive.hashes[key] = old | fields

    @rule(key=KEYS, delta=st.sampled_from([-1, 1, 2**63 - 1]), span=st.none() | SPANS)
    def increment(self, key: str, delta: int, span: int | None) -> None:
        naive = self.naive
        value = min(naive.counters.get(key, 0) + delta, 2**63 - 1)
        assert self.perform(c.IncrementCounter(key, delta, span)) == value
        naive.counters[key] = value
        if span is not None:
            known = naive.expiries.get(("counters", key), 0)
            naive.expiries["counters", key] = max(known, naive.lt + span)
        elif value == 0 and ("counters", key) not in naive.expiries:
            naive.drop("counters", key)

    @rule(key=KEYS, kind=st.sampled_from(["sets", "lists", "hashes"]), span=SPANS)
    def expire_key(self, key: str, kind: str, span: int) -> None:
        command = {"sets": c.ExpireSet, "lists": c.ExpireList, "hashes": c.ExpireHash}[kind]
        assert self.perform(command(key, span)) == self.naive.expire(kind, key, span)

    @rule(key=KEYS, kind=st.sampled_from(["sets", "lists", "hashes"]))
    def persist_key(self, key: str, kind: str) -> None:
        command = {"sets": c.PersistSet, "lists": c.PersistList, "hashes": c.PersistHash}[kind]
        assert self.perform(command(key)) == self.naive.persist(kind, key)

    @rule(key=KEYS, kind=st.sampled_from(["sets", "hashes"]))
    def remove_key(self, key: str, kind: str) -> None:
        command = c.RemoveSet(key) if kind == "sets" else c.RemoveHash(key)
        assert self.perform(command) == self.naive.drop(kind, key)

    # servers

    @rule(server=OWNERS, what=st.sampled_from(["announce", "beat", "remove"]))
    def serve(self, server: str, what: str) -> None:
        known = server in self.naive.servers
        if what == "announce":
            self.perform(c.AnnounceServer(server, 1, ()))
            self.naive.servers[server] = self.naive.lt
        elif what == "beat":
            assert self.perform(c.Heartbeat(server)) == known
            if known:
                self.naive.servers[server] = self.naive.lt
        else:
            assert self.perform(c.RemoveServer(server)) == known
            self.naive.servers.pop(server, None)

    @precondition(lambda self: bool(self.naive.servers))
    @rule(timeout=SPANS)
    def remove_timed_out(self, timeout: int) -> None:
        gone = [name for name, beat in self.naive.servers.items() if beat < self.naive.lt - timeout]
        assert self.perform(c.RemoveTimedOutServers(timeout)) == len(gone)
        for name in gone:
            del self.naive.servers[name]

    # what must be equal at all times

    def read(self, name: str, /, **args: Any) -> Any:
        return self.store.query(name, args)

    @invariant()
    def jobs_are_equal(self) -> None:
        for job_id in ("j1", "j2", "j3"):
            expected = self.naive.jobs.get(job_id)
            details = self.read("job_details", job_id=job_id)
            assert (details is None) == (expected is None)
            if expected is not None:
                history = [record["name"] for record in details["history"]]
                assert (details["state"], details["parameters"]) == (expected.state, expected.parameters)
                assert history == expected.history[:-51:-1]
                assert (details["expires_in_ms"] is None) == (expected.expires is None)
        for state in ("Enqueued", "Processing", "Succeeded", "Odd", "Quarantined"):
            page = self.read("jobs_by_state", state=state, newest_first=False)
            assert [row["id"] for row in page["rows"]] == self.naive.in_state(state)

    @invariant()
    def queues_are_equal(self) -> None:
        for name in ("q1", "q2"):
            entries = self.read("enqueued_jobs", queue=name, count=1000)
            assert [job_id for job_id, _ in entries] == self.naive.queues.get(name, [])
            held = sorted(job_id for job_id, queue, _ in self.naive.leases.values() if queue == name)
            assert sorted(job_id for job_id, _ in self.read("fetched_jobs", queue=name, count=1000)) == held

    @invariant()
    def collections_are_equal(self) -> None:
        naive = self.naive
        self.reply(c.KeepAlive())  # refused outside a session; brings the store's clock up to date
        for key in ("k1", "k2"):
            ordered = sorted((score, value) for value, score in naive.sets.get(key, {}).items())
            scores = self.read("set_scores", key=key, first=0, last=99)
            assert [(score, value) for value, score in scores] == ordered
            assert self.read("list_items", key=key) == naive.lists.get(key, [])
            assert self.read("hash_entries", key=key) == naive.hashes.get(key)
            assert self.read("counter", key=key) == naive.counters.get(key, 0)
            assert self.read("set_ttl", key=key) == naive.ttl("sets", key)
            assert self.read("list_ttl", key=key) == naive.ttl("lists", key)
            assert self.read("hash_ttl", key=key) == naive.ttl("hashes", key)
            assert self.read("counter_ttl", key=key) == naive.ttl("counters", key)
        assert {row["server_id"]: row["heartbeat_lt"] for row in self.read("servers")} == naive.servers


ContractMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestContractOperations = ContractMachine.TestCase
