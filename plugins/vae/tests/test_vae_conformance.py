"""The conformance kit on the installed plugin, as a stranger's would be held against it."""

from collections.abc import Callable

import pytest

from corecompress.testing import conformance


@pytest.mark.parametrize("check", conformance("corecompress-vae"), ids=str)
def test_conformance(check: Callable[[], object]) -> None:
    check()
