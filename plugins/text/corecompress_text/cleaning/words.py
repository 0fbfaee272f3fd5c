"""Steps on words: segmentation, punctuation, stop words, case, bounds."""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any

import regex

from corecompress.demo import cache_folder
from corecompress_text.cleaning.document import Document

HAN = regex.compile(r"[\p{Han}]+")
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+(?:['.\-_@/][A-Za-z0-9]+)*|[^\sA-Za-z0-9]")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}_]+(?:['’.\-·@/][\p{L}\p{M}\p{N}_]+)*|[^\s\p{L}\p{M}\p{N}_]")


@cache
def jieba() -> Any:
    """jieba with its own dictionary, its compiled form kept in our cache, its log silent."""
    import jieba as module

    module.setLogLevel(logging.WARNING)
    folder = cache_folder() / "jieba"
    folder.mkdir(parents=True, exist_ok=True)
    module.dt.tmp_dir = str(folder)
    module.initialize()
    return module


def split_words(text: str) -> list[str]:
    """Words and single signs, in order; Chinese runs by jieba (hidden Markov model for unknown words on)."""
    if text.isascii():
        return _ASCII_WORD.findall(text)
    if not HAN.search(text):
        return _WORD.findall(text)  # type: ignore[no-any-return]
    words: list[str] = []
    at = 0
    for run in HAN.finditer(text):
        words += _WORD.findall(text[at : run.start()])
        words += jieba().lcut(run.group())
        at = run.end()
    return words + _WORD.findall(text[at:])  # type: ignore[no-any-return]


class Segment:
    """Cut into words; `text` becomes the words with single spaces between."""

    def __init__(self, tagged: bool):
        self.tagged = tagged

    def __call__(self, batch: list[Document]) -> list[Document]:
        for document in batch:
            if self.tagged and not document.text.isascii() and HAN.search(document.text):
                from corecompress_text.cleaning.tags import split_and_tag_chinese

                document.words, document.tags = split_and_tag_chinese(document.text)
            else:
                document.words = split_words(document.text)
            document.text = " ".join(document.words)
        return batch


def _filter(document: Document, keep: list[bool]) -> None:
    assert document.words is not None
    document.words = [word for word, kept in zip(document.words, keep, strict=True) if kept]
    if document.tags is not None:
        document.tags = [tag for tag, kept in zip(document.tags, keep, strict=True) if kept]
    document.text = " ".join(document.words)


_ASCII_MARKS = re.compile(r"[!-/:-@\[-`{-~]+")
_MARKS = regex.compile(r"[\p{P}\p{S}]+")
_BLANKS = re.compile(r"[ \t]{2,}")


def remove_punctuation(batch: list[Document]) -> list[Document]:
    """Words that are signs go; in running text signs become a blank, but for those inside of words (don't, e-mail)."""
    for document in batch:
        if document.words is not None:
            _filter(document, [any(map(str.isalnum, word)) for word in document.words])
        else:
            words = _ASCII_WORD.findall(document.text) if document.text.isascii() else _WORD.findall(document.text)
            document.text = " ".join(word for word in words if any(map(str.isalnum, word)))
    return batch


class StopWords:
    """English and Chinese lists of stopwordsiso."""

    def __init__(self) -> None:
        import stopwordsiso

        self.words = frozenset(stopwordsiso.stopwords(["en", "zh"]))

    def __call__(self, batch: list[Document]) -> list[Document]:
        for document in batch:
            words = document.words or []
            _filter(document, [word.lower().replace("’", "'") not in self.words for word in words])
        return batch


def lower(batch: list[Document]) -> list[Document]:
    """Lower-case text and words alike."""
    for document in batch:
        document.text = document.text.lower()
        if document.words is not None:
            document.words = [word.lower() for word in document.words]
            document.text = " ".join(document.words)
    return batch


class Bounds:
    """Documents between two lengths in characters."""

    def __init__(self, least: int, most: int | None):
        self.least, self.most = least, most if most is not None else 1 << 62

    def __call__(self, batch: list[Document]) -> list[Document]:
        return [document for document in batch if self.least <= len(document.text) <= self.most]


def drop_empty(batch: list[Document]) -> list[Document]:
    """Documents that the steps left nothing of."""
    return [document for document in batch if document.text.strip()]
