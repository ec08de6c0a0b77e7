"""What users import: an App with tasks, handles of jobs, retry rules, and what a running task can know of its job.

from quorker.app import App, Retry, current_job
"""

from quorker.app.app import App
from quorker.app.batch_plans import BatchCounts
from quorker.app.batches import Batch, BatchHandle
from quorker.app.calls import Call
from quorker.app.context import current_job
from quorker.app.errors import (
    BadPayload,
    BatchNotFound,
    BatchPending,
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
from quorker.app.filters import Filter
from quorker.app.front_door import Attached
from quorker.app.hook_arguments import Applied, Election, Enqueued, Enqueuing, Performed, Performing
from quorker.app.limits import Limit, Rate
from quorker.app.locks import HeldLock
from quorker.app.outcomes import Delete, Fail, GiveBack, Succeed
from quorker.app.recurring_job import RecurringJob
from quorker.app.results import JobHandle
from quorker.app.schedules import Schedules
from quorker.app.settings import NO_RETRY, Retry
from quorker.app.tasks import AsyncTask, PlainTask, Task

__all__ = [
    "NO_RETRY",
    "App",
    "Applied",
    "AsyncTask",
    "Attached",
    "BadPayload",
    "Batch",
    "BatchCounts",
    "BatchHandle",
    "BatchNotFound",
    "BatchPending",
    "BlockingCall",
    "Call",
    "Delete",
    "Election",
    "Enqueued",
    "Enqueuing",
    "Fail",
    "Filter",
    "GiveBack",
    "HeldLock",
    "JobCancelled",
    "JobFailed",
    "JobHandle",
    "JobNotFound",
    "JobPending",
    "Limit",
    "LockLost",
    "LockTimeout",
    "NotConnected",
    "NotInJob",
    "Performed",
    "Performing",
    "PlainTask",
    "Rate",
    "RecurringJob",
    "RecurringNotFound",
    "Retry",
    "Schedules",
    "Succeed",
    "Task",
    "current_job",
]
