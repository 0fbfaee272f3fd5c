"""A corpus to token ids on disk, once: read, cut into splits, clean, tokenise, store; found again by fingerprint.

source ─► split by document ─► sentences? ─► cleaning steps ─► tokenizer, in batches ─► an Arrow file a split
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corecompress.errors import CorecompressError
from corecompress_text import vocabulary
from corecompress_text.cleaning import Cleaner, Document, StepReport, batches
from corecompress_text.options import Form, Options
from corecompress_text.sources import Source, remove
from corecompress_text.splitting import SPLITS, sentences, splitter
from corecompress_text.store import Rows, Writer
from corecompress_text.vocabulary import Vocabulary

SAMPLES = 5

KEPT_SECONDS = 30 * 24 * 3600
"""A preparation that was not used for so long is removed from the cache."""


@dataclass(frozen=True)
class Wanted:
    """How the rows shall be: form; tokenizer: a folder, a hub id, or the kind of one to be trained."""

    form: Form
    tokenizer: str
    length: int


class Prepared:
    """A prepared corpus: rows by split, the vocabulary, and what happened on the way."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self.vocabulary = vocabulary.parse(self.meta["vocabulary"])
        self.steps = [StepReport(**step) for step in self.meta["steps"]]
        self.rows = {split: Rows(folder / f"{split}.arrow") for split in SPLITS}

    def room(self, length: int) -> int:
        """Tokens of a text in a window or sentence of this length, which the tokenizer's own ones are a part of."""
        own = len(self.vocabulary.prefix) + len(self.vocabulary.suffix)
        if length <= own:
            raise CorecompressError(f"text(length={length}): has no room beside {own} special tokens; make it longer")
        return length - own

    def samples(self, split: str, wanted: Wanted) -> int:
        """Windows, sentences or vectors of a split."""
        rows = self.rows[split]
        return rows.tokens // self.room(wanted.length) if wanted.form == "windows" else len(rows)

    def weights(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Inverse document frequencies, float32 [vocabulary]."""
        return np.load(self.folder / "idf.npy")  # type: ignore[no-any-return]


def prepared(folder: Path, source: Source, options: Options, wanted: Wanted) -> Prepared:
    """The prepared corpus in `folder`, made if it isn't there. Raises CorecompressError for an empty corpus."""
    if not (folder / "meta.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _forget(folder.parent)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix="making-"))
        try:
            _make(scratch, source, options, wanted)
            remove(scratch / "scratch")
            try:
                os.rename(scratch, folder)
            except OSError:
                if not (folder / "meta.json").exists():
                    raise
        finally:
            remove(scratch)
    os.utime(folder)
    return Prepared(folder)


def _forget(cache: Path) -> None:
    """Remove what nobody used for a while: preparations, what killed runs left, kept standard input."""
    for path in (*cache.iterdir(), *cache.glob("stdin/*")):
        if path.name != "stdin" and time.time() - path.stat().st_mtime > KEPT_SECONDS:
            remove(path)


def _make(folder: Path, source: Source, options: Options, wanted: Wanted) -> None:
    begun = time.perf_counter()
    split_of = splitter(source, options)
    where = wanted.tokenizer
    if where in vocabulary.TRAINED:
        where = str(folder / "tokenizer")
        documents, _ = _cleaned(source, options, wanted, split_of, folder)
        learn = ([d.text for d in batch if d.split != "evaluation"] for batch in batches(documents))
        segmented = any(map(options.wants, ("segment", "tags", "stopwords")))
        vocabulary.train(wanted.tokenizer, options.vocabulary, learn, segmented, Path(where))
    tokenizer = vocabulary.load(where)
    known = vocabulary.describe(tokenizer)
    documents, cleaner = _cleaned(source, options, wanted, split_of, folder)
    joiner = source.joiner if wanted.form == "windows" else None
    store = _Store(folder, tokenizer.backend_tokenizer, known, wanted, joiner, options.wants("tags"))
    for batch in batches(documents):
        store.add(batch)
    store.close()
    if not store.documents:
        cleaned = any(step.documents_in for step in cleaner.report())
        steps = "; the cleaning steps left nothing of it" if cleaned else ""
        raise CorecompressError(f"text:{source.describe()}: no document in it{steps}; give a file with text")
    meta = {
        "source": source.describe(),
        "encodings": sorted(set(source.tally.encodings.values())),
        "undecodable": source.tally.undecodable,
        "steps": [dataclasses.asdict(step) for step in cleaner.report()],
        "vocabulary": vocabulary.save(known),
        "characters": store.characters,
        "samples": store.samples,
        "seconds": round(time.perf_counter() - begun, 3),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")


def _cleaned(
    source: Source, options: Options, wanted: Wanted, split_of: Callable[[str, int], str], folder: Path
) -> tuple[Iterator[Document], Cleaner]:
    scratch = Path(tempfile.mkdtemp(dir=_folder(folder / "scratch")))
    cleaner = Cleaner(options, scratch)
    return cleaner.run(_documents(source, wanted.form, split_of)), cleaner


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _documents(source: Source, form: Form, split_of: Callable[[str, int], str]) -> Iterator[Document]:
    before = 0
    for number, text in enumerate(source.texts()):
        split = split_of(text, before)
        before += len(text)
        if form == "sentences":
            for sentence in sentences(text):
                yield Document(number, sentence, split)
        else:
            yield Document(number, text, split)


class _Store:
    """Tokenises batches of documents and appends them to their splits' files."""

    def __init__(self, folder: Path, backend: Any, known: Vocabulary, wanted: Wanted, joiner: str | None, tagged: bool):
        self.backend, self.known, self.wanted, self.joiner, self.tagged = backend, known, wanted, joiner, tagged
        self.writers = {split: Writer(folder / f"{split}.arrow", tagged) for split in SPLITS}
        self.documents = 0
        self.characters = dict.fromkeys(SPLITS, 0)
        self.samples: list[dict[str, Any]] = []
        self.occurs = np.zeros(known.size, np.int64)
        self.rows = 0
        self.folder = folder

    def add(self, batch: list[Document]) -> None:
        texts = [d.text + self.joiner for d in batch] if self.joiner else [d.text for d in batch]
        encode = self.backend.encode_batch if self.tagged else self.backend.encode_batch_fast
        encodings = encode(texts, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        tags = [_token_tags(d, e.offsets) for d, e in zip(batch, encodings, strict=True)] if self.tagged else []
        if self.wanted.form == "windows" and self.joiner is None and self.known.end is not None:
            ids = [[*row, self.known.end] for row in ids]
            tags = [[*row, 0] for row in tags]
        self._sample(batch, ids)
        if self.wanted.form == "vectors":
            self._count(batch, ids)
        for split, writer in self.writers.items():
            mine = [i for i, document in enumerate(batch) if document.split == split and ids[i]]
            if mine:
                characters = [len(batch[i].text) for i in mine]
                numbers = [batch[i].number for i in mine]
                writer.add(numbers, characters, [ids[i] for i in mine], [tags[i] for i in mine] if tags else [])
                self.characters[split] += sum(characters)
                self.documents += len(mine)

    def _sample(self, batch: list[Document], ids: list[list[int]]) -> None:
        for document, row in zip(batch[: SAMPLES - len(self.samples)], ids, strict=False):
            tokens = [self.backend.id_to_token(number) for number in row[:60]]
            self.samples.append({"split": document.split, "text": document.text[:400], "tokens": tokens})

    def _count(self, batch: list[Document], ids: list[list[int]]) -> None:
        for document, row in zip(batch, ids, strict=True):
            if document.split != "evaluation":
                self.occurs[np.unique(row).astype(np.int64)] += 1
                self.rows += 1

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()
        if self.wanted.form == "vectors":
            # Smoothed inverse document frequency, as scikit-learn's: ln((1 + n) / (1 + df)) + 1.
            idf = np.log((1 + self.rows) / (1 + self.occurs)) + 1
            np.save(self.folder / "idf.npy", idf.astype(np.float32))


def _token_tags(document: Document, offsets: list[tuple[int, int]]) -> list[int]:
    """The tag of the word that each token ends in; 0 beyond the words."""
    if not document.words or document.tags is None:
        return [0] * len(offsets)
    ends = np.cumsum([len(word) + 1 for word in document.words])
    at = np.searchsorted(ends, np.array([end - 1 for _, end in offsets]), "right")
    return np.append(np.array(document.tags, np.int64), 0)[np.minimum(at, len(document.tags))].tolist()  # type: ignore[no-any-return]
