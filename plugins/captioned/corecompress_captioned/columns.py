"""Which columns hold images, captions and classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CAPTIONS = ("text", "caption", "captions", "prompt")
"""Names that captions have where none is given, the first that is there."""


@dataclass(frozen=True)
class Columns:
    """Names of columns that were given; None: found by name and kind."""

    image: str | None = None
    caption: str | None = None
    label: str | None = None


def text_of(value: Any) -> str:
    """A caption; of a list of captions the first."""
    if isinstance(value, list):
        value = value[0] if value else None
    return "" if value is None else " ".join(str(value).split())
