"""The options of `text`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corecompress import option
from corecompress_text.cleaning.options import CleaningOptions

Form = Literal["windows", "sentences", "vectors"]


@dataclass(frozen=True)
class Options(CleaningOptions):
    """Reading, cleaning (inherited), splitting, tokenising, batching, in the order in which they happen."""

    document: Literal["auto", "file", "paragraph", "line"] = option(
        "auto", "what a document of running text is; auto: paragraphs where blank lines part them, else lines"
    )
    field: str | None = option(None, "column of .jsonl, .csv, .parquet, .arrow and hub sets (default: text)")
    encoding: str | None = option(None, "encoding of the files (default: detected)")
    documents: int | None = option(None, "read at most so many documents (default: all; 20000 of a hub set)")
    split: Literal["hash", "order"] = option(
        "hash", "cut documents into splits by a hash of their text, or in their order, evaluation last"
    )
    calibration: float = option(0.4, "share of the documents that is for calibration")
    evaluation: float = option(0.2, "share that is for evaluation; what is left is for training")
    tokenizer: str = option(
        "checkpoint", "checkpoint: its own; bpe, unigram or words: trained on the corpus; else a folder or hub id"
    )
    vocabulary: int = option(8192, "entries of a trained tokenizer, or of vectors")
    form: Literal["auto", "windows", "sentences", "vectors"] = option(
        "auto", "packed windows, padded sentences, or numeric vectors; auto: what the checkpoint's task wants"
    )
    weighting: Literal["counts", "tfidf"] = option("tfidf", "entries of vectors, which have length 1")
    length: int | None = option(None, "tokens of a window (default 512) or of the longest sentence (default 128)")
    batch: int = option(8, "windows, sentences or vectors a batch")

    def __post_init__(self) -> None:
        if not (self.calibration >= 0 and self.evaluation >= 0 and self.calibration + self.evaluation <= 1.0 + 1e-9):
            raise ValueError("calibration and evaluation are shares: not below 0, together not above 1")
        for name in ("documents", "length", "batch", "vocabulary"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it takes 1 or more")
