"""`pytest --plugin NAME`: the option, and a line a check at the end. Loaded by every pytest where corecompress is
installed, so it imports nothing of it before it is asked for."""

from __future__ import annotations

from typing import Any

import pytest

LINES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--plugin NAME, several times if need be."""
    group = parser.getgroup("corecompress", "conformance of corecompress plugins")
    group.addoption(
        "--plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="With --pyargs corecompress.testing: the plugin or component that is checked.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """A place for the lines."""
    config.stash[LINES] = []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What `corecompress plugins check` prints."""
    if config.stash[LINES]:
        terminalreporter.section("conformance")
        for line in config.stash[LINES]:
            terminalreporter.write_line(line)
