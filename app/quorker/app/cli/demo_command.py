"""`quorker demo`: see `quorker.app.demo`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import trio
from cyclopts import Parameter

from quorker.app.demo.story import Script, Story
from quorker.app.demo.verdict import Verdict
from quorker.core.errors import EXIT_OK, EXIT_REFUSED, InvalidInput


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    jobs: Annotated[int, Parameter(help="How many jobs are enqueued.")] = 2000
    kills: Annotated[int, Parameter(help="How often the leader is killed.")] = 2
    blackout: Annotated[bool, Parameter(help="Kill all members at once at the end.")] = True


def demo(*, options: DemoOptions = DemoOptions()) -> int:
    """Start three members, kill leaders and then everything while jobs run, and count what became of every job.

    Exits with 1 if an acknowledged job is lost, stuck or completed twice. Takes less than a minute; leaves nothing behind.
    """
    if options.jobs < 1 or options.kills < 0:
        raise InvalidInput("the demo needs at least one job, and no negative number of kills")
    default = Script()
    seconds = default.seconds * min(1.0, options.jobs / default.jobs)
    script = Script(jobs=options.jobs, kills=options.kills, blackout=options.blackout, seconds=seconds)
    verdict = trio.run(_run, script)
    print("nothing was lost, stuck or completed twice" if verdict.is_good else "THE PROMISES DID NOT HOLD")
    return EXIT_OK if verdict.is_good else EXIT_REFUSED


async def _run(script: Script) -> Verdict:
    return await Story(script, partial(print, flush=True)).run()
