"""What calls of `quorker.app` raise beyond `quorker.core.errors`.

QuorkerError
├── InvalidInput
│   └── BadPayload             arguments or a result cannot be encoded, with the place inside the value
├── JobFailed                  the job failed for good (or was quarantined); carries the error of its last attempt
├── JobCancelled               the job was deleted
├── JobNotFound                no such job: never enqueued here, or expired
├── RecurringNotFound          no recurring job has this id
├── JobPending                 (a TimeoutError) the job had not ended when the time was up
├── BatchNotFound              no such batch: never made here, or expired
├── BatchPending               (a TimeoutError) the batch had not ended when the time was up
├── LockTimeout                (a TimeoutError) the lock did not become free in time
├── LockLost                   somebody else may have the lock by now
├── NotConnected               no `app.node(...)` or `app.connect(...)` is open in this process
├── BlockingCall               (a RuntimeError) a blocking call in async code, which would stop its loop
└── NotInJob                   (a RuntimeError) `current_job` was read where no job runs
"""

from __future__ import annotations

from quorker.core.errors import EXIT_CORRUPT, EXIT_TIMEOUT, InvalidInput, QuorkerError


class BadPayload(InvalidInput):
    """Arguments or a result cannot be encoded or decoded."""


class JobFailed(QuorkerError):
    """The job failed for good. `error_type`, `message` and `trace` are the text of its last attempt."""

    def __init__(self, job_id: str, error_type: str, message: str, trace: str = "") -> None:
        super().__init__(job_id, error_type, message, trace)
        self.job_id = job_id
        self.error_type = error_type
        self.message = message
        self.trace = trace

    def __str__(self) -> str:
        return f"job {self.job_id} failed: {self.error_type}: {self.message}"


class JobCancelled(QuorkerError):
    """The job was deleted before it could succeed."""


class JobNotFound(QuorkerError):
    """No job has this id: it was never enqueued in this cluster, or it has expired."""

    exit_code = EXIT_CORRUPT


class RecurringNotFound(QuorkerError):
    """No recurring job has this id in this cluster."""

    exit_code = EXIT_CORRUPT


class JobPending(QuorkerError, TimeoutError):
    """The job had not ended when the time was up. It goes on; asking again is fine."""

    exit_code = EXIT_TIMEOUT


class BatchNotFound(QuorkerError):
    """No batch has this id: it was never made in this cluster, or it has expired."""

    exit_code = EXIT_CORRUPT


class BatchPending(QuorkerError, TimeoutError):
    """Members of the batch had not ended when the time was up. They go on; asking again is fine."""

    exit_code = EXIT_TIMEOUT


class LockTimeout(QuorkerError, TimeoutError):
    """The lock did not become free in time. Nothing is held, and nobody stands in line any more."""

    exit_code = EXIT_TIMEOUT


class LockLost(QuorkerError):
    """Somebody else may have the lock by now. `name` of the lock, and the `reason`."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"lock {self.name} is lost: {self.reason}"


class NotConnected(QuorkerError):
    """This process has no open way into the cluster for this app."""


class BlockingCall(QuorkerError, RuntimeError):
    """A blocking call was made in async code, where it would stop the event loop."""


class NotInJob(QuorkerError, RuntimeError):
    """`current_job` was read where no job runs."""
