"""Cutting a corpus into calibration, training and evaluation, by document, before anything else happens to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import regex
import xxhash

from corecompress.errors import CorecompressError
from corecompress_text.options import Options
from corecompress_text.sources import Source

SPLITS = ("calibration", "training", "evaluation")

_SENTENCE = regex.compile(r"""(?<=[.!?…]["'”’)\]]*)\s+(?=\P{Ll})|(?<=[。！？；])\s*|\n{2,}""")


def splitter(source: Source, options: Options) -> Callable[[str, int], str]:
    """A function (text, characters before it) -> split.

    By hash, equal texts share a split, and a document stays in its split when others come or go. By order, the first
    documents are for calibration, the last for evaluation, cut where that share of the characters is reached.
    """
    early, late = options.calibration, 1 - options.evaluation

    def by_place(place: float) -> str:
        if place < early:
            return "calibration"
        return "evaluation" if place >= late - 1e-12 and options.evaluation else "training"

    if options.split == "hash":
        return lambda text, _: by_place(xxhash.xxh3_64_intdigest(text.strip().encode("utf-8", "replace")) / 2**64)
    total = sum(map(len, source.texts()))
    return lambda _, before: by_place(before / max(total, 1))


def sentences(text: str) -> Iterator[str]:
    """Sentences by their closing marks (Latin and Chinese); a piece under 20 characters stays with the next."""
    start = 0
    for mark in _SENTENCE.finditer(text):
        if mark.start() - start >= 20:
            yield text[start : mark.start()].strip()
            start = mark.end()
    if text[start:].strip():
        yield text[start:].strip()


def check_split(split: str) -> None:
    """Raises CorecompressError for a name that is no split."""
    if split not in SPLITS:
        raise CorecompressError(f"'{split}' is no split; there are {', '.join(SPLITS)}")
