"""Documents through the steps that are on, in batches, each step counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corecompress_text.cleaning import characters, words
from corecompress_text.cleaning.document import Document
from corecompress_text.cleaning.options import CleaningOptions

BATCH, CHARACTERS = 1000, 4_000_000
"""Documents, or characters, that go through the steps together, so that memory is bounded by the longest document."""

Step = Callable[[list[Document]], list[Document]]


@dataclass
class StepReport:
    """What a step did. characters_removed: before − after, dropped documents included; below 0 where it adds blanks."""

    name: str
    documents_in: int = 0
    documents_out: int = 0
    characters_removed: int = 0
    seconds: float = 0.0


class Cleaner:
    """The steps that the options ask for. scratch: a folder for what would grow in memory."""

    def __init__(self, options: CleaningOptions, scratch: Path):
        self._steps = _steps(options, scratch)
        self._reports = [StepReport(name) for name, _ in self._steps]

    def run(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents that are left, in their order; without steps, the very same objects."""
        if not self._steps:
            yield from documents
            return
        for batch in batches(documents):
            for report, (_, step) in zip(self._reports, self._steps, strict=True):
                begun, size = time.perf_counter(), _characters(batch)
                report.documents_in += len(batch)
                batch = step(batch)
                report.documents_out += len(batch)
                report.characters_removed += size - _characters(batch)
                report.seconds += time.perf_counter() - begun
            yield from batch

    def report(self) -> list[StepReport]:
        """One entry a step, in their order."""
        return self._reports


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """The documents in lists."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if len(batch) == BATCH or size > CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _characters(batch: list[Document]) -> int:
    return sum(len(document.text) for document in batch)


def _steps(options: CleaningOptions, scratch: Path) -> list[tuple[str, Step]]:
    steps: list[tuple[str, Step]] = []
    for name, change in (
        ("markup", characters.strip_markup),
        ("unicode", characters.mend_unicode),
        ("noise", characters.remove_noise),
    ):
        if options.wants(name):
            steps.append((name, _on_text(change)))
    duplicates = options.duplicates or ("near" if options.clean == "all" else "off")
    if duplicates != "off":
        from corecompress_text.cleaning.duplicates import Duplicates

        steps.append(("duplicates", Duplicates(scratch, near=duplicates == "near")))
    if options.language is not None:
        from corecompress_text.cleaning.language import InLanguage

        steps.append(("language", InLanguage(options.language)))
    if options.wants("segment") or options.wants("tags") or options.wants("stopwords"):
        steps.append(("segment", words.Segment(tagged=options.wants("tags"))))
    if options.wants("tags"):
        from corecompress_text.cleaning.tags import tag

        steps.append(("tags", tag))
    if options.wants("punctuation"):
        steps.append(("punctuation", words.remove_punctuation))
    if options.wants("stopwords"):
        steps.append(("stopwords", words.StopWords()))
    if options.wants("lowercase"):
        steps.append(("lowercase", words.lower))
    if options.min_characters or options.max_characters is not None:
        steps.append(("bounds", words.Bounds(options.min_characters, options.max_characters)))
    if steps:
        steps.append(("empty", words.drop_empty))
    return steps


def _on_text(change: Callable[[str], str]) -> Step:
    def step(batch: list[Document]) -> list[Document]:
        for document in batch:
            document.text = change(document.text)
        return batch

    return step
