"""A node or client that is opened once in each process that comes to need it, and closed when that process ends: for servers
that start their workers by fork and have no place to open something. What must not live here: any framework.
"""

from __future__ import annotations

import atexit
import os
import threading

from quorker.app.app import App
from quorker.app.front_door import FrontDoor


class ProcessDoor:
    """Opens the door of an app. Where the app is open already (`app.testing()`, `with app.node(...)`) it leaves that alone."""

    def __init__(self, app: App, door: FrontDoor) -> None:
        self._app = app
        self._door = door
        self._lock = threading.Lock()
        self._opened_by = 0
        os.register_at_fork(after_in_child=self._forget_lock)

    def open(self) -> None:
        """Returns once it is open; raises what opening raises. For plain code, any thread."""
        if self._is_open():
            return
        with self._lock:
            if not self._is_open():
                self._door.__enter__()
                self._opened_by = os.getpid()
                atexit.register(self.close)

    def close(self) -> None:
        """Close it if this process opened it; the next `open` opens it again."""
        with self._lock:
            if self._opened_by == os.getpid():
                self._opened_by = 0
                atexit.unregister(self.close)
                self._door.__exit__(None, None, None)

    def _is_open(self) -> bool:
        """What the parent of a forked process had opened is not open here: its thread was left behind."""
        return self._opened_by == os.getpid() or (not self._opened_by and self._app.is_connected)

    def _forget_lock(self) -> None:
        """Whoever held it is not here any more."""
        self._lock = threading.Lock()
