"""The conformance kit on the installed plugin, minutes on one core, so it is one of the slow tests."""

from collections.abc import Callable

import pytest

from corecompress.testing import conformance


@pytest.mark.slow
@pytest.mark.parametrize("check", conformance("corecompress-generative"), ids=str)
def test_conformance(check: Callable[[], object]) -> None:
    check()
