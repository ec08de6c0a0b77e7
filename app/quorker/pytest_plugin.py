"""The fixture `quorker`, which pytest loads where this package is installed. What must not live here: what it gives
(`quorker.app.testing`). It imports nothing of quorker until a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from quorker.app import App
    from quorker.app.testing import AppUnderTest

OPTION = "quorker_app"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(OPTION, "The App that the fixture `quorker` tests, as MODULE:app.", default="")


@pytest.fixture
def quorker_app(request: pytest.FixtureRequest) -> App:
    """The app that `quorker` tests: that of the option `quorker_app`. Define this fixture yourself for another one."""
    from quorker.app.app import load_app
    from quorker.core.errors import ConfigurationError

    target = str(request.config.getini(OPTION))
    if not target:
        raise pytest.UsageError(
            f'the fixture `quorker` does not know your app: write {OPTION} = "tasks:app" into [tool.pytest.ini_options] '
            f"of pyproject.toml, or define a fixture quorker_app that returns it"
        )
    try:
        return load_app(target)
    except ConfigurationError as error:
        raise pytest.UsageError(f"{OPTION}: {error}") from error


@pytest.fixture
def quorker(quorker_app: App) -> Iterator[AppUnderTest]:
    """The app with an empty job store in memory, on a clock that only moves when told. See docs/guide-testing.md."""
    with quorker_app.testing() as under_test:
        yield under_test
