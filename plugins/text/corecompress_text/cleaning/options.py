"""Options of the cleaning steps; every step is off unless it, or clean=all, asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corecompress import option


@dataclass(frozen=True)
class CleaningOptions:
    """In the order of the steps. None follows `clean`."""

    clean: Literal["none", "all"] = option("none", "all: every step below but language is on unless it says otherwise")
    markup: bool | None = option(None, "strip HTML and Markdown, resolve character references")
    unicode: bool | None = option(None, "mend mojibake and normalise to NFC, with ftfy")
    noise: bool | None = option(None, "drop control and invisible characters; shorten runs of blanks and of one sign")
    duplicates: Literal["off", "exact", "near"] | None = option(
        None, "drop repeated documents; near: MinHash, Jaccard similarity of character 5-grams of about 0.8 or more"
    )
    language: str | None = option(None, "keep only documents in this language (en, zh, …), by py3langid")
    segment: bool | None = option(None, "cut into words: Chinese by jieba, others by Unicode classes")
    tags: bool | None = option(None, "part-of-speech tags (UPOS ids) as a parallel sequence; segments as well")
    punctuation: bool | None = option(None, "remove punctuation")
    stopwords: bool | None = option(None, "remove stop words (stopwordsiso) of English and Chinese; segments as well")
    lowercase: bool | None = option(None, "lower-case")
    min_characters: int = option(0, "drop documents shorter than this, after all other steps")
    max_characters: int | None = option(None, "drop documents longer than this, after all other steps")

    def wants(self, step: str) -> bool:
        """Whether a step is on."""
        value = getattr(self, step)
        return self.clean == "all" if value is None else bool(value)
