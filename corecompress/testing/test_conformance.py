"""pytest --pyargs corecompress.testing --plugin NAME"""

from __future__ import annotations

import pytest

from corecompress.errors import CorecompressError
from corecompress.testing.pytest_plugin import LINES
from corecompress.testing.runner import Run, runs


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test a check."""
    names = metafunc.config.getoption("--plugin")
    if not names:
        raise pytest.UsageError("add --plugin NAME: the plugin or component that is checked")
    try:
        found = [run for name in names for run in runs(name)]
    except CorecompressError as problem:
        raise pytest.UsageError(str(problem)) from None
    metafunc.parametrize("run", found, ids=str)


def test_conformance(run: Run, request: pytest.FixtureRequest) -> None:
    outcome = run.act()
    request.config.stash[LINES].append(str(outcome))
    if outcome.status == "waived":
        pytest.skip(f"waived: {outcome.remark}")
    if outcome.status == "failed":
        pytest.fail(str(outcome), pytrace=False)
