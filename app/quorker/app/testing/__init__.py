"""Testing code that uses quorker: `app.testing()` and what it gives. In memory, on a clock that only moves when told, with
no thread, process, socket or file; the job store and the worker are the real ones. `quorker.pytest_plugin` has the fixture.
"""

from quorker.app.testing.app_under_test import AppUnderTest, open_memory
from quorker.app.testing.inline import TestingStopped
from quorker.app.testing.job_rows import JobRow

__all__ = ["AppUnderTest", "JobRow", "TestingStopped", "open_memory"]
