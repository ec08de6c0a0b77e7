"""When a failed job runs again: a pure function of its policy, its id and how often it has failed.

The jitter of Hangfire's curve is drawn from a hash of job and attempt, so every member draws the same.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from quorker.core.jobs.bounds import DURATION_MAX
from quorker.core.jobs.new_job import RetryPolicy

DEFAULT_POLICY: Final = RetryPolicy()
JITTER_STEPS: Final = 30
_DOUBLINGS_MAX: Final = 40  # 2**40 ms is the longest duration there is


def retry_delay_ms(policy: RetryPolicy | None, job_id: str, failures: int) -> int | None:
    """How long to wait after the `failures`-th failure (from 1), or None when no attempt is left."""
    policy = policy or DEFAULT_POLICY
    if failures > policy.attempts:
        return None
    if policy.delays_ms:
        return policy.delays_ms[min(failures, len(policy.delays_ms)) - 1]
    if policy.base_ms:
        delay = policy.base_ms << min(failures - 1, _DOUBLINGS_MAX)
        return min(delay, policy.cap_ms or DURATION_MAX, DURATION_MAX)
    return min(hangfire_delay_s(job_id, failures) * 1000, DURATION_MAX)


def hangfire_delay_s(job_id: str, failures: int) -> int:
    """round((n-1)**4 + 15 + r*n) seconds, r from 0 to 29: 15 to 44 s at first, about two hours at the tenth."""
    drawn = blake2b(f"{job_id}:{failures}".encode(), digest_size=8).digest()
    jitter = int.from_bytes(drawn, "big") % JITTER_STEPS
    return (failures - 1) ** 4 + 15 + jitter * failures
