"""A document on its way through the steps."""

from __future__ import annotations

from dataclasses import dataclass

UPOS = tuple("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())
"""The universal part-of-speech tags (universaldependencies.org/u/pos). A tag's id is its index + 1; 0 is no tag."""


@dataclass(slots=True)
class Document:
    """number: its place in the source; split: cut before anything else; words and tags run in parallel, where the
    steps that make them are on, and `text` is then the words with spaces between."""

    number: int
    text: str
    split: str = ""
    words: list[str] | None = None
    tags: list[int] | None = None
