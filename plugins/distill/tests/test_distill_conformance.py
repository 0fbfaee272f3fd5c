"""The conformance kit on the installed plugin."""

from collections.abc import Callable

import pytest

from corecompress.testing import conformance


@pytest.mark.parametrize("check", conformance("corecompress-distill"), ids=str)
def test_conformance(check: Callable[[], object]) -> None:
    check()
