"""What users import: an App with tasks, handles of jobs, retry rules, and what a running task can know of its job.

from quorker.app import App, Retry, current_job
"""

from quorker.app.app import App
from quorker.app.calls import Call
from quorker.app.context import current_job
from quorker.app.errors import (
    BadPayload,
    BlockingCall,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobPending,
    LockLost,
    LockTimeout,
    NotConnected,
    NotInJob,
    RecurringNotFound,
)
from quorker.app.front_door import Attached
from quorker.app.locks import HeldLock
from quorker.app.recurring_job import RecurringJob
from quorker.app.results import JobHandle
from quorker.app.schedules import Schedules
from quorker.app.settings import NO_RETRY, Retry
from quorker.app.tasks import AsyncTask, PlainTask, Task

__all__ = [
    "NO_RETRY",
    "App",
    "AsyncTask",
    "Attached",
    "BadPayload",
    "BlockingCall",
    "Call",
    "HeldLock",
    "JobCancelled",
    "JobFailed",
    "JobHandle",
    "JobNotFound",
    "JobPending",
    "LockLost",
    "LockTimeout",
    "NotConnected",
    "NotInJob",
    "PlainTask",
    "RecurringJob",
    "RecurringNotFound",
    "Retry",
    "Schedules",
    "Task",
    "current_job",
]
