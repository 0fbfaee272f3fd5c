"""Keep documents of one language."""

from __future__ import annotations

from corecompress.errors import CorecompressError
from corecompress_text.cleaning.document import Document


class InLanguage:
    """By py3langid (Lui & Baldwin 2012), whose model of 97 languages is part of its package."""

    def __init__(self, language: str):
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self.language = language
        self.identifier = LanguageIdentifier.from_pickled_model(MODEL_FILE)
        known = set(self.identifier.nb_classes)
        if language not in known:
            raise CorecompressError(f"text(language={language}): is not known; known are {', '.join(sorted(known))}")

    def __call__(self, batch: list[Document]) -> list[Document]:
        return [document for document in batch if self.identifier.classify(document.text)[0] == self.language]
