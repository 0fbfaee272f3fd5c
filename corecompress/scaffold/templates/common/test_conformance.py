"""The conformance kit of corecompress, on the installed plugin."""

import pytest

from corecompress.testing import conformance


@pytest.mark.parametrize("check", conformance("$distribution"), ids=str)
def test_conformance(check):
    check()
