"""The data component `$distribution`: every line of a text file is a document, every byte a token."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corecompress import CorecompressError, option
from corecompress.components import DataReport

SPLITS = ("calibration", "training", "evaluation")


@dataclass(frozen=True)
class Options:
    """Options of `$distribution`."""

    length: int = option(128, "bytes of a sample; longer lines are cut, shorter ones padded with zeros")
    batch: int = option(16, "samples of a batch")
    evaluation: float = option(0.2, "share of the lines that is for evaluation; as much is for calibration")

    def __post_init__(self) -> None:
        if self.length < 1 or self.batch < 1:
            raise ValueError("length and batch are 1 or more")
        if not 0 < self.evaluation <= 0.5:
            raise ValueError(f"evaluation is {self.evaluation:g}; it takes a share above 0, up to 0.5")


class Lines:
    """Splits are cut by a hash of the line, so that equal lines share one and none moves when others come or go."""

    Options = Options

    def __init__(self, source, options):
        """source: a file's path, or `demo` for this plugin's own source code."""
        self.options, self.source = options, source
        try:
            text = Path(__file__ if source == "demo" else source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise CorecompressError(f"$distribution:{source}: can't be read ({problem}); give a text file") from None
        self.lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))

    def prepare(self, checkpoint):
        """Bytes are bytes, whatever the checkpoint."""

    def fingerprint(self):
        """Digest of the lines and of every option that changes a batch."""
        return hashlib.sha256(repr((self.lines, self.options)).encode()).hexdigest()

    def batches(self, seed, split="calibration", start=0):
        """input_ids and attention_mask int64 [n, length], document int64 [n] (the line's number)."""
        numbers = self.numbers(split)
        if not numbers:
            raise CorecompressError(f"$distribution: the {split} split holds no line; give more, or another share")
        order = np.random.default_rng([seed, SPLITS.index(split)]).permutation(numbers)
        for at in range(start * self.options.batch, len(order), self.options.batch):
            chosen = order[at : at + self.options.batch]
            ids = np.zeros((len(chosen), self.options.length), np.int64)
            for row, number in zip(ids, chosen, strict=True):
                line = self.lines[number].encode()[: self.options.length]
                row[: len(line)] = np.frombuffer(line, np.uint8)
            yield {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "document": chosen.astype(np.int64)}

    def numbers(self, split):
        """The lines of a split."""
        if split not in SPLITS:
            raise CorecompressError(f"'{split}' is no split; there are {', '.join(SPLITS)}")
        return [number for number, line in enumerate(self.lines) if self.split_of(line) == split]

    def split_of(self, line):
        """By the first eight bytes of its hash, as a number between 0 and 1."""
        place = int.from_bytes(hashlib.sha256(line.encode()).digest()[:8], "little") / 2**64
        share = self.options.evaluation
        return "evaluation" if place < share else "calibration" if place < 2 * share else "training"

    def report(self):
        """What a person should see before a model does."""
        rows = [(split, len(self.numbers(split))) for split in SPLITS]
        figures = {"source": self.source, "lines": len(self.lines)}
        return DataReport(figures, {"splits": (("split", "lines"), rows)}, self.lines[:3])
