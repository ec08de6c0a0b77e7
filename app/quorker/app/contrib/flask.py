"""Flask: the node or client is opened by the first request of each process. What must not live here: what Flask and other
WSGI servers have in common (`process_door.py`)."""

from __future__ import annotations

from typing import Final

from flask import Flask

from quorker.app.app import App
from quorker.app.contrib.process_door import ProcessDoor
from quorker.app.front_door import FrontDoor

EXTENSION: Final = "quorker"


def init_flask(flask_app: Flask, app: App, door: FrontDoor | None = None) -> ProcessDoor:
    """Let views enqueue: `init_flask(flask_app, app, app.connect("10.0.0.1:7701"))`. Without a door, `app.node()`.

    A member owns its directory, so a server of several processes wants `app.connect(...)`. What is returned, also as
    `flask_app.extensions["quorker"]`, can be opened before the first request and closed before the process ends.
    """
    opener = ProcessDoor(app, app.node() if door is None else door)
    flask_app.extensions[EXTENSION] = opener
    flask_app.before_request(opener.open)
    return opener
