"""The App: a name and a registry of tasks. Making one does no I/O; `app.node(...)` and `app.connect(...)` do. What must
not live here: how tasks run and how calls reach the store."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeGuard, TypeVar, overload

from quorker.app.batches import Batch, BatchHandle, Callbacks
from quorker.app.calls import Call, command_of
from quorker.app.errors import NotConnected
from quorker.app.filters import BUILT_IN, Filter, FilterChain
from quorker.app.front_door import FrontDoor, WorkPlan, open_member, open_outsider
from quorker.app.gateway import Gateway, inherited_gateway, refuse_blocking
from quorker.app.job_plans import carry_out, carry_out_blocking, make_jobs
from quorker.app.limits import Limit, Rate, read_limits
from quorker.app.location import import_attribute
from quorker.app.lock_line import LockWish
from quorker.app.locks import Lock
from quorker.app.monitoring import Monitoring
from quorker.app.payload import PAYLOAD_BYTES_MAX
from quorker.app.recurring import Declaration, declaration, read_timing
from quorker.app.results import JobHandle
from quorker.app.schedules import Schedules
from quorker.app.settings import (
    After,
    CallOptions,
    Duration,
    Misfire,
    Retry,
    RunsIn,
    checked_option,
    instant_ms,
    milliseconds,
    read_options,
)
from quorker.app.tasks import AsyncTask, PlainTask, RegisteredTask, Task
from quorker.app.worker_server import SHUTDOWN_SECONDS
from quorker.core.errors import ConfigurationError, InvalidInput
from quorker.core.jobs import bounds
from quorker.transport.node_config import NodeConfig, Profile
from quorker.transport.tls import TlsPaths

if TYPE_CHECKING:
    from quorker.app.testing import AppUnderTest

CONNECT_SECONDS: Final = 30.0

P = ParamSpec("P")
R = TypeVar("R")
AnyTask = TypeVar("AnyTask", bound=RegisteredTask)


class TaskDecorator(Protocol):
    """What `@app.task(...)` with options gives."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first match is meant: a coroutine function
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> PlainTask[P, R]: ...


class RecurringDecorator(Protocol):
    """What `@app.recurring(...)` gives: a task stays what it is, a function becomes one."""

    @overload
    def __call__(self, target: AnyTask) -> AnyTask: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first match is meant: a coroutine function
        self, target: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, target: Callable[P, R]) -> PlainTask[P, R]: ...


class App:
    """Tasks under one name. `imports` are modules that register tasks, imported when a member or a worker starts."""

    def __init__(
        self, name: str, *, imports: Sequence[str] = (), payload_bytes_max: int = PAYLOAD_BYTES_MAX
    ) -> None:
        self.name = checked_option("App(name)", name, bounds.text("name", 1, 64))
        self.payload_bytes_max = checked_option(
            "App(payload_bytes_max)", payload_bytes_max, bounds.whole("bytes", 1, bounds.ARGS_BYTES_MAX)
        )
        self._imports = tuple(imports)
        self._tasks: dict[str, RegisteredTask] = {}
        self._declared: dict[str, Declaration] = {}
        self._gateways: list[Gateway] = []
        self._filters: list[Filter] = []
        self._chains: dict[str, FilterChain] = {}

    def __repr__(self) -> str:
        return f"App({self.name!r}, {len(self._tasks)} tasks)"

    @property
    def tasks(self) -> Mapping[str, RegisteredTask]:
        """Every registered task by its name."""
        return MappingProxyType(self._tasks)

    @property
    def queues(self) -> tuple[str, ...]:
        """Queues of the registered tasks, in the order of registration, and "default" at the end."""
        named = [task.options.queue for task in self._tasks.values()]
        return tuple(dict.fromkeys([*(name for name in named if name != "default"), "default"]))

    @property
    def declared(self) -> Mapping[str, Declaration]:
        """Every recurring job that the code declares, by its id."""
        return MappingProxyType(self._declared)

    @property
    def schedules(self) -> Schedules:
        """The recurring jobs of the cluster: make them, change them, look at them."""
        return Schedules(self)

    @property
    def monitoring(self) -> Monitoring:
        """What is going on: jobs by any of their properties, queues, workers, figures of tasks."""
        return Monitoring(self)

    def job(self, job_id: str) -> JobHandle[Any]:
        """The handle of a job by its id, which may come from another process."""
        return JobHandle(checked_option("job id", job_id, bounds.JOB_ID), self)

    def enqueue_many(self, calls: Iterable[Call[R]]) -> list[JobHandle[R]]:
        """Make jobs of calls (`task.call(...)`), all or none: one command. Their handles, in order. For plain code.

        A call may wait for one that stands before it: `first.then(second)`. Raises what `task.enqueue` raises.
        """
        refuse_blocking("await app.aenqueue_many(...)")
        ids = carry_out_blocking(make_jobs(command_of(calls), self.filters_for), self.gateway())
        return [JobHandle(job_id, self) for job_id in ids]

    async def aenqueue_many(self, calls: Iterable[Call[R]]) -> list[JobHandle[R]]:
        """Like `enqueue_many`, for async code."""
        ids = await carry_out(make_jobs(command_of(calls), self.filters_for), self.gateway())
        return [JobHandle(job_id, self) for job_id in ids]

    def batch(
        self,
        name: str,
        *,
        then: Callbacks = None,
        on_failure: Callbacks = None,
        finally_: Callbacks = None,
        retention: Duration | None = None,
    ) -> Batch:
        """Jobs that belong together: `with` it in plain code, `async with` it on trio and asyncio. Gives a `Batch`.

        All that `task.using(batch=b).enqueue(...)` collects in the block is made at its end in one command, with the
        callbacks; when the block raises, nothing is. `then` runs when all members have succeeded, `on_failure` when none
        is pending and one has not, `finally_` in both cases; each is a task without arguments, a `task.call(...)`, or a
        list of them, and runs once. `retention`: how long the batch is known after its end. Raises `InvalidInput`.
        """
        callbacks: tuple[tuple[Callbacks, After], ...] = (
            (then, "success"),
            (on_failure, "failure"),
            (finally_, "any"),
        )
        kept_ms = 0 if retention is None else milliseconds(retention, "retention")
        return Batch(self, checked_option("batch(name)", name, bounds.NAME), callbacks, kept_ms)

    def batch_by_id(self, batch_id: str) -> BatchHandle:
        """The handle of a batch by its id, which may come from another process."""
        return BatchHandle(self, checked_option("batch id", batch_id, bounds.BATCH_ID))

    def lock(
        self,
        name: str,
        *,
        ttl: Duration | None = None,
        timeout: Duration | None = None,
        on_lost: Callable[[str], object] | None = None,
    ) -> Lock:
        """A lock of the whole cluster: `with` it in plain code, `async with` it on trio and asyncio. Gives a `HeldLock`.

        Who comes first gets it first; it is not re-entrant. `ttl`: how long it is held at most; without one, for as long
        as this process is connected. `timeout`: how long to wait for it, 0 to try once, None for ever; then `LockTimeout`
        is raised. `on_lost(reason)` is called on the thread of the connection when the lock is lost while it is held.
        """
        resource = checked_option("lock(name)", name, bounds.KEY)
        ttl_ms = 0 if ttl is None else milliseconds(ttl, "ttl")
        if ttl is not None and not ttl_ms:
            raise InvalidInput(f"ttl is {ttl!r}: give at least a millisecond, or None")
        seconds = None if timeout is None else milliseconds(timeout, "timeout") / 1000
        return Lock(self, LockWish(resource, ttl_ms, seconds), on_lost)

    # ------------------------------------------------------------------ filters

    def add_filter(self, added: Filter) -> None:
        """From now on, let every job of this app pass it. See `Filter`."""
        _require_filter(added, "add_filter")
        self._filters.append(added)
        self._chains.clear()

    def filters_for(self, task: str) -> FilterChain:
        """Those of the app and of the task, if there is such a task here, in order."""
        chain = self._chains.get(task)
        if chain is None:
            own = self._tasks[task].filters if task in self._tasks else ()
            chain = FilterChain((*BUILT_IN, *self._filters, *own))
            if task in self._tasks:
                self._chains[task] = chain
        return chain

    # ------------------------------------------------------------------ registering

    @overload
    def task(  # type: ignore[overload-overlap]  # the first match is meant: a coroutine function
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> PlainTask[P, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        timeout: Duration | None = None,
        retry: Retry | None = None,
        retention: Duration | None = None,
        concurrency: Limit | int | None = None,
        mutex: bool | None = None,
        rate: Rate | str | None = None,
        expires: Duration | datetime | None = None,
        runs_in: RunsIn | None = None,
        filters: Sequence[Filter] = (),
    ) -> TaskDecorator: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        timeout: Duration | None = None,
        retry: Retry | None = None,
        retention: Duration | None = None,
        concurrency: Limit | int | None = None,
        mutex: bool | None = None,
        rate: Rate | str | None = None,
        expires: Duration | datetime | None = None,
        runs_in: RunsIn | None = None,
        filters: Sequence[Filter] = (),
    ) -> Any:
        """Register a function as a task; `@app.task` or `@app.task(...)`.

        `name`: the function's own by default. An `async def` runs on the node's trio loop; a plain function runs in a
        worker process, or with `runs_in="thread"` in a thread of the node, which cannot be killed at its timeout.
        `concurrency` (`mutex=True` for one), `rate` ("10/s"): how many jobs may run at a time and start, in the whole
        cluster. `expires`: deleted unless started by then. `filters`: those that only jobs of this task pass. Durations are seconds or timedeltas. Raises
        `ConfigurationError` for a name that is taken.
        """
        given = {
            "queue": queue,
            "priority": priority,
            "timeout": timeout,
            "retry": retry,
            "retention": retention,
        }
        limits = read_limits(concurrency, mutex, rate, expires)
        options = CallOptions(**read_options(given), **limits)
        if function is not None:
            return self._register(function, name, options, runs_in, filters)

        def register(decorated: Callable[..., Any]) -> RegisteredTask:
            return self._register(decorated, name, options, runs_in, filters)

        return register

    def _register(
        self,
        function: Callable[..., Any],
        name: str | None,
        options: CallOptions,
        where: RunsIn | None,
        filters: Sequence[Filter] = (),
    ) -> RegisteredTask:
        for each in filters:
            _require_filter(each, "filters")
        name = checked_option("task name", name or function.__name__, bounds.TASK)
        is_async = inspect.iscoroutinefunction(function)
        runs_in: RunsIn = where or ("trio" if is_async else "process")
        if is_async != (runs_in == "trio"):
            raise ConfigurationError(
                f"task {name}: an async def runs in trio, a plain function in a process or a thread, not in {runs_in}"
            )
        fields = (self, name, function, runs_in, options, inspect.signature(function), tuple(filters))
        task: RegisteredTask = AsyncTask(*fields) if is_async else PlainTask(*fields)
        if name in self._tasks and not _is_same(self._tasks[name].function, function):
            raise ConfigurationError(
                f"two tasks are called {name!r}: {_whereabouts(self._tasks[name].function)} and "
                f"{_whereabouts(function)}; give one of them @app.task(name=...)"
            )
        self._tasks[name] = task
        self._chains.pop(name, None)
        return task

    def recurring(
        self,
        cron: str | None = None,
        /,
        *,
        every: Duration | None = None,
        tz: str | None = None,
        misfire: Misfire = "once",
        grace: Duration | None = None,
        id: str | None = None,  # noqa: A002  # what users call it
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        timeout: Duration | None = None,
        retry: Retry | None = None,
        unique: str | None = None,
        tags: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        retention: Duration | None = None,
        runs_in: RunsIn | None = None,
    ) -> RecurringDecorator:
        """Declare that a function or task is called again and again: `@app.recurring("0 3 * * *", tz="Europe/Berlin")`.

        A function becomes a task with the options given; of a task, they are those of the recurring calls. `cron`: minute,
        hour, day of month, month, day of week; six fields begin with the second. `every`: instead, so much time apart.
        `misfire` and `grace`: see `app.schedules.set`. `id`: the task's name by default. `args`, `kwargs`: of each call.
        `unique`: no second job while one with this key has not ended. Members make it so when they start. Raises
        `InvalidInput`, and `ConfigurationError` for an id that is taken.
        """
        timing = read_timing(cron, every, tz, misfire, grace)
        shared = {
            "queue": queue,
            "priority": priority,
            "timeout": timeout,
            "retry": retry,
            "retention": retention,
        }
        options, call = (
            read_options(shared),
            read_options({"unique": unique, "tags": tags, "headers": headers}),
        )

        def declare(target: Any) -> Any:
            task = self._as_task(target, name, options, runs_in)
            template = task.with_options(options | call).new_job(*args, **(kwargs or {}))
            self._declare(declaration(id or task.name, template, timing, self.name, task.function))
            return task

        return declare

    def _as_task(
        self, target: Any, name: str | None, options: dict[str, Any], where: RunsIn | None
    ) -> RegisteredTask:
        if not _is_task(target):
            return self._register(target, name, CallOptions(**options), where)
        if name is not None or where is not None:
            raise ConfigurationError(
                f"task {target.name}: give name= and runs_in= to @app.task, which made it"
            )
        return target

    def _declare(self, given: Declaration) -> None:
        """A module that is loaded again declares again; twice in one load is a mistake."""
        recurring_id = given.command.recurring_id
        known = self._declared.get(recurring_id)
        if known is not None:
            again = known.function is not given.function and _is_same(known.function, given.function)
            if not again:
                raise ConfigurationError(
                    f"two recurring jobs are called {recurring_id!r}: {_whereabouts(known.function)} and "
                    f"{_whereabouts(given.function)}; give one of them @app.recurring(..., id=...)"
                )
        self._declared[recurring_id] = given

    def load_imports(self) -> None:
        """Import the modules that register further tasks."""
        for module in self._imports:
            importlib.import_module(module)

    # ------------------------------------------------------------------ connecting

    def node(
        self,
        data_dir: str | Path | None = None,
        *,
        node_id: int = 1,
        listen: str = "127.0.0.1:0",
        members: Mapping[int, str] | None = None,
        cluster: str | None = None,
        secret: bytes | None = None,
        tls: TlsPaths | None = None,
        insecure_no_auth: bool = False,
        profile: Profile = "default",
        rejoin: bool = False,
        workers: int | None = None,
        queues: Sequence[str] | None = None,
        shutdown_timeout: float = SHUTDOWN_SECONDS,
        record: str | Path | None = None,
    ) -> FrontDoor:
        """Be a member of the cluster while the block runs: `with` in plain code, `async with` on trio and asyncio.

        `data_dir`: where this member keeps its log (default `.quorker/n<node_id>`). `members`: id to "host:port" of the
        first members, this one included; empty means this node is the whole cluster. `cluster`: a name that all members
        share (default: the app's). `rejoin`: see `quorker node --rejoin`. `workers`: jobs at a time (default min(5 * CPUs,
        20), 0 for none), from `queues`, the first most urgent (default: those of the app's tasks). `shutdown_timeout`:
        seconds that running jobs get at the end. `record`: a file for everything that this member is told, to be replayed elsewhere.
        """
        config = NodeConfig(
            data_dir=Path(data_dir) if data_dir is not None else Path(f".quorker/n{node_id}"),
            node_id=node_id,
            listen=listen,
            members=dict(members or {}),
            cluster=self.name if cluster is None else cluster,
            secret=secret,
            tls=tls,
            insecure_no_auth=insecure_no_auth,
            profile=profile,
            record=Path(record) if record is not None else None,
            rejoin=rejoin,
        )
        plan = self._plan(workers, queues, shutdown_timeout)
        return FrontDoor(lambda: open_member(self, config, plan))

    def connect(
        self,
        *addresses: str,
        cluster: str | None = None,
        secret: bytes | None = None,
        tls: TlsPaths | None = None,
        workers: int = 0,
        queues: Sequence[str] | None = None,
        shutdown_timeout: float = SHUTDOWN_SECONDS,
        timeout: Duration = CONNECT_SECONDS,
    ) -> FrontDoor:
        """Be a client of the cluster, no member, while the block runs: enqueue, read, and with `workers` run jobs too.

        `addresses`: "host:port" of one or more members, or "unix:/path"; one that does not answer is passed over.
        `timeout`: how long to wait for the first of them, and for each call that does not say; then `NotApplied` is raised.
        """
        if not addresses:
            raise ConfigurationError('connect() needs the address of a member: app.connect("127.0.0.1:7701")')
        plan = self._plan(workers, queues, shutdown_timeout)
        name = self.name if cluster is None else cluster
        seconds = milliseconds(timeout, "timeout") / 1000
        if not seconds:
            raise InvalidInput(f"timeout is {timeout!r}: give at least a millisecond")
        return FrontDoor(lambda: open_outsider(self, addresses, name, secret, tls, plan, seconds))

    def _plan(self, workers: int | None, queues: Sequence[str] | None, shutdown_timeout: float) -> WorkPlan:
        slots = WorkPlan.default_slots() if workers is None else workers
        checked_option("workers", slots, bounds.whole("workers", 0, bounds.SESSION_SLOTS_MAX))
        named = None if queues is None else checked_option("queues", tuple(queues), bounds.SOME_QUEUES)
        milliseconds(shutdown_timeout, "shutdown_timeout")
        return WorkPlan(slots, named, shutdown_timeout)

    def lifespan(
        self,
        door: FrontDoor | None = None,
        *,
        inner: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    ) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
        """A lifespan for FastAPI, Starlette and other ASGI apps: `FastAPI(lifespan=app.lifespan(app.node("data")))`.

        `door`: what is open meanwhile, `app.node()` by default. `inner`: a lifespan that runs inside, its state is kept.
        """
        from quorker.app.contrib.asgi import lifespan  # late: it needs this module

        return lifespan(self, self.node() if door is None else door, inner)

    def testing(self, *, start: datetime | None = None, queues: Sequence[str] | None = None) -> AppUnderTest:
        """A job store for a test: `with app.testing() as quorker:`, also in async code. See `AppUnderTest`.

        In memory, with no thread, process, socket or file. `start`: what its clock says first (a datetime with a time
        zone); without one it is the same instant in every test. `queues`: those that are worked on (default: those of
        the app's tasks, as everywhere).
        """
        from quorker.app.testing import AppUnderTest, open_memory  # late: production needs no store in memory

        named = None if queues is None else checked_option("queues", tuple(queues), bounds.SOME_QUEUES)
        return AppUnderTest(self, open_memory(None if start is None else instant_ms(start, "start")), named)

    # ------------------------------------------------------------------ the way into the store

    @property
    def is_connected(self) -> bool:
        """Is a way into a store open here: a node, a client, a test's store, or that of the node of this worker process."""
        return bool(self._gateways) or inherited_gateway() is not None

    def gateway(self) -> Gateway:
        """The way into the store that was opened last. Raises `NotConnected` when there is none."""
        if self._gateways:
            return self._gateways[-1]
        inherited = inherited_gateway()
        if inherited is None:
            raise NotConnected(
                f"app {self.name!r} has no way into a cluster here: run this inside `with app.node(...)` (be a member) "
                f"or `with app.connect(address)` (be a client); in async code, `async with`"
            )
        return inherited

    def add_gateway(self, gateway: Gateway) -> None:
        self._gateways.append(gateway)

    def remove_gateway(self, gateway: Gateway) -> None:
        self._gateways.remove(gateway)


def _is_task(target: object) -> TypeGuard[RegisteredTask]:
    return isinstance(target, Task)


def _is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """A module that is loaded again registers its tasks again."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _require_filter(given: object, where: str) -> None:
    if not isinstance(given, Filter):
        raise ConfigurationError(
            f"{where} got {given!r}: make an instance of a class that inherits quorker.app.Filter"
        )


def _whereabouts(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def load_app(target: str) -> App:
    """The App at MODULE:app, its imports done. Raises `ConfigurationError`."""
    app = import_attribute(target)
    if not isinstance(app, App):
        raise ConfigurationError(f"{target} is a {type(app).__name__}, not an App")
    app.load_imports()
    return app
