"""The data component `text`: documents in, batches of token ids (or vectors) out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from corecompress.checkpoint import Checkpoint
from corecompress.components import Batch, DataReport
from corecompress.demo import cache_folder
from corecompress.errors import CorecompressError, EmptySplit, UnfitData
from corecompress_text import vocabulary
from corecompress_text.options import Form, Options
from corecompress_text.prepare import Prepared, Wanted, prepared
from corecompress_text.report import make_report
from corecompress_text.sources import open_source
from corecompress_text.splitting import check_split

FORMAT = 1
"""Of the prepared rows in the cache."""

LIBRARIES = ("corecompress-text", "tokenizers", "ftfy", "jieba", "stopwordsiso", "textblob", "py3langid")
"""Distributions whose version changes what comes out."""


class Text:
    """Text of any sort. Splits share no document; the same seed gives the same batches."""

    Options: ClassVar[type[Any]] = Options

    def __init__(self, source: str, options: Options):
        self.options = options
        self.source = open_source(source, options.document, options.field, options.encoding, options.documents)
        self.checkpoint: Checkpoint | None = None

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """Take form, length and tokenizer from the checkpoint where the options leave them open. Raises UnfitData for a
        model that no text goes into."""
        if self.options.tokenizer == "checkpoint":
            _check_reads_text(checkpoint)
        self.checkpoint = checkpoint
        self.__dict__.pop("wanted", None)
        self.__dict__.pop("corpus", None)

    @cached_property
    def wanted(self) -> Wanted:
        """What the options and the checkpoint ask for. Raises CorecompressError when they don't go together."""
        options, checkpoint = self.options, self.checkpoint
        form = _form(checkpoint) if options.form == "auto" else options.form
        tokenizer = options.tokenizer
        if tokenizer == "checkpoint":
            trained = "words" if form == "vectors" else "bpe"
            tokenizer = trained if checkpoint is None else str(checkpoint.folder)
        length = options.length or (512 if form == "windows" else 128)
        longest = _longest(checkpoint)
        if longest is not None and form != "vectors":
            if options.length is not None and length > longest:
                raise CorecompressError(f"text(length={length}): the model takes at most {longest} tokens")
            length = min(length, longest)
        return Wanted(form, tokenizer, length)

    def fingerprint(self) -> str:
        """Digest of the source's bytes, the options that change a batch, the tokenizer's files and the libraries."""
        return self._digest(length=self.wanted.length, batch=self.options.batch)

    def _digest(self, **batching: int) -> str:
        """The same without how rows are cut into batches, which preparation does not depend on."""
        name = self.wanted.tokenizer
        tokenizer = name if name in vocabulary.TRAINED else vocabulary.identity(name)
        options = dataclasses.asdict(self.options)
        kept = sorted((key, value) for key, value in options.items() if key not in ("tokenizer", "length", "batch"))
        asked = (FORMAT, self._source_digest, kept, self.wanted.form, tokenizer, _versions(), sorted(batching.items()))
        return xxhash.xxh3_128(repr(asked).encode()).hexdigest()

    @cached_property
    def _source_digest(self) -> str:
        return self.source.fingerprint()

    @cached_property
    def corpus(self) -> Prepared:
        """The prepared corpus, made on first use."""
        return prepared(cache_folder() / "text" / self._digest(), self.source, self.options, self.wanted)

    def save_preprocessing(self, folder: Path) -> None:
        """Write the tokenizer of the batches into `folder`, as an ordinary Hugging Face tokenizer; of vectors, none."""
        if self.wanted.form == "vectors":
            return
        trained = self.wanted.tokenizer in vocabulary.TRAINED
        where = str(self.corpus.folder / "tokenizer") if trained else self.wanted.tokenizer
        vocabulary.load(where).save_pretrained(str(folder))

    def batches(self, seed: int, split: str = "calibration", start: int = 0) -> Iterator[Batch]:
        """The split's batches from number `start` on, in an order that the seed gives.

        windows: input_ids, attention_mask and document (the document of each token, −1 for special ones), int64
        [n, length], and tags where they are on; sentences: the same, padded to the longest, document [n];
        vectors: vectors float32 [n, vocabulary] of length 1, document [n].
        Raises CorecompressError for a split that holds nothing, or less than one window.
        """
        check_split(split)
        rows = self.corpus.rows[split]
        count = self.corpus.samples(split, self.wanted)
        if count == 0:
            raise self._too_short(split, rows.tokens)
        order = np.random.default_rng([seed, len(split)]).permutation(count)
        size = self.options.batch
        make = {"windows": self._windows, "sentences": self._sentences, "vectors": self._vectors}[self.wanted.form]
        for at in range(start * size, count, size):
            yield make(split, order[at : at + size])

    def _too_short(self, split: str, tokens: int) -> EmptySplit:
        share = {"calibration": self.options.calibration, "evaluation": self.options.evaluation}
        part = share.get(split, 1 - sum(share.values()))
        if part <= 0:
            return EmptySplit(f"text: the {split} split has a share of 0; give it one, e.g. text({split}=0.2)")
        if self.wanted.form == "windows" and tokens:
            return EmptySplit(
                f"text: the {split} split ({part:.0%}) holds {tokens} tokens, less than one window of "
                f"{self.wanted.length}; give more text, or text(length={max(8, tokens // 2)})"
            )
        return EmptySplit(f"text: the {split} split ({part:.0%}) holds no document; give more text")

    def _windows(self, split: str, numbers: NDArray[np.int64]) -> Batch:
        known, rows = self.corpus.vocabulary, self.corpus.rows[split]
        inner = self.corpus.room(self.wanted.length)
        spans = [rows.span(int(n) * inner, (int(n) + 1) * inner) for n in numbers]
        head, tail = np.array(known.prefix, np.int64), np.array(known.suffix, np.int64)

        def framed(values: Any, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.concatenate([first, values.astype(np.int64), last])

        ids = np.stack([framed(span[0], head, tail) for span in spans])
        none = np.full_like(head, -1), np.full_like(tail, -1)
        batch = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "document": np.stack([framed(span[1], *none) for span in spans]),
        }
        if rows.tagged:
            batch["tags"] = np.stack([framed(span[2], head * 0, tail * 0) for span in spans])
        return batch

    def _sentences(self, split: str, numbers: NDArray[np.int64]) -> Batch:
        known, rows = self.corpus.vocabulary, self.corpus.rows[split]
        inner = self.corpus.room(self.wanted.length)
        found = [rows.row(int(n)) for n in numbers]
        longest = max(min(len(ids), inner) for _, ids, _ in found) + len(known.prefix) + len(known.suffix)
        shape = (len(found), longest)
        ids, mask = np.full(shape, known.pad, np.int64), np.zeros(shape, np.int64)
        tags = np.zeros(shape, np.int64)
        for at, (_, row, row_tags) in enumerate(found):
            whole = [*known.prefix, *row[:inner].tolist(), *known.suffix]
            ids[at, : len(whole)], mask[at, : len(whole)] = whole, 1
            if row_tags is not None:
                tags[at, len(known.prefix) : len(known.prefix) + len(row_tags[:inner])] = row_tags[:inner]
        batch = {"input_ids": ids, "attention_mask": mask, "document": np.array([d for d, _, _ in found], np.int64)}
        return {**batch, "tags": tags} if rows.tagged else batch

    def _vectors(self, split: str, numbers: NDArray[np.int64]) -> Batch:
        rows, size = self.corpus.rows[split], self.corpus.vocabulary.size
        found = [rows.row(int(n)) for n in numbers]
        vectors = np.stack([np.bincount(ids, minlength=size).astype(np.float32) for _, ids, _ in found])
        if self.options.weighting == "tfidf":
            vectors *= self.corpus.weights()
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return {"vectors": vectors / np.maximum(norms, 1e-12), "document": np.array([d for d, _, _ in found], np.int64)}

    def report(self) -> DataReport:
        """What a person should see before a model does."""
        return make_report(self.corpus, self.wanted, self.options)


def _form(checkpoint: Checkpoint | None) -> Form:
    """Windows for language models, sentences for all else."""
    if checkpoint is None:
        return "windows"
    architecture = (checkpoint.config.get("architectures") or [""])[0]
    language = architecture.endswith(("ForCausalLM", "LMHeadModel", "ForMaskedLM"))
    return "windows" if language and not checkpoint.config.get("is_encoder_decoder") else "sentences"


def _check_reads_text(checkpoint: Checkpoint | None) -> None:
    """Raises UnfitData for a model that no text goes into: it has no tokenizer, and no vocabulary or another input."""
    if checkpoint is None or vocabulary.has_files(checkpoint.folder):
        return
    parts = [part for part in (checkpoint.config, *checkpoint.config.values()) if isinstance(part, dict)]
    takes = _main_input(checkpoint)
    if takes == "input_ids" and any("vocab_size" in part for part in parts):
        return
    mend = "--data captioned:DIR gives it images" if takes == "pixel_values" else "leave --data out"
    what = "has neither a tokenizer nor a vocabulary" if takes == "input_ids" else f"takes {takes} and has no tokenizer"
    raise UnfitData(f"{checkpoint.name}: takes no text (it {what}); {mend}")


def _main_input(checkpoint: Checkpoint) -> str:
    """What the model's forward is given first, as transformers names it."""
    import transformers

    names = checkpoint.config.get("architectures") or []
    made = next((found for name in names if (found := getattr(transformers, name, None))), None)
    return str(getattr(made, "main_input_name", "input_ids"))


def _longest(checkpoint: Checkpoint | None) -> int | None:
    """Tokens that the model takes at most, where its config says so; RoBERTa's positions begin after the padding's."""
    if checkpoint is None:
        return None
    config = checkpoint.config.get("text_config") or checkpoint.config
    found = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(found, int) or found < 1:
        return None
    is_roberta = str(config.get("model_type", "")) in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
    return found - 2 if is_roberta else found


def _versions() -> list[str]:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} –")
    return found
