"""How numbers are said."""

from __future__ import annotations

import pytest

from corecompress.report.units import human_seconds


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.44, "0.4 s"), (59.9, "60 s"), (119.6, "2 min 0 s"), (200, "3 min 20 s"), (419.9, "7 min 0 s")],
)
def test_seconds_carry_into_minutes(seconds: float, said: str) -> None:
    assert human_seconds(seconds) == said
