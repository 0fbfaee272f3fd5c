"""The conformance kit: what a plugin's author runs, and whoever wants to trust a stranger's plugin.

    corecompress plugins check NAME                         a line a check
    pytest --pyargs corecompress.testing --plugin NAME      the same checks as tests

In a plugin's own tests:

    import pytest
    from corecompress.testing import conformance

    @pytest.mark.parametrize("check", conformance("acme-half"), ids=str)
    def test_conformance(check):
        check()

A file a kind: common.py (all), data.py, encoder.py, generative.py, prior.py, compressor.py and robustness.py
(those that code tensors), model_compressor.py. A check is a function
that raises CheckFailed; kit.py says what it gets. Importing this module imports nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["conformance"]


def conformance(name: str) -> list[Callable[[], Any]]:
    """The checks of a plugin (by distribution, entry point or component) as functions without arguments; `str` of one
    is its name. Each raises AssertionError with its line when it fails. Raises CorecompressError for an unknown one."""
    from corecompress.testing.runner import runs

    return list(runs(name))
