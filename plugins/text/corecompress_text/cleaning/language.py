"""Keep documents of one language."""

from __future__ import annotations

import py3langid

from corecompress.errors import CorecompressError
from corecompress_text.cleaning.document import Document


class InLanguage:
    """By py3langid (Lui & Baldwin 2012), whose model of some hundred languages is part of its package."""

    def __init__(self, language: str):
        self.language = language
        known = sorted(name for name, _ in py3langid.rank("a word"))
        if language not in known:
            raise CorecompressError(f"text(language={language}): is not known; known are {', '.join(known)}")

    def __call__(self, batch: list[Document]) -> list[Document]:
        return [document for document in batch if py3langid.classify(document.text)[0] == self.language]
