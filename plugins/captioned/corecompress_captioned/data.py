"""The data component `captioned`: images and captions in, batches of pixels out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from corecompress import option
from corecompress.checkpoint import Checkpoint
from corecompress.components import Batch, DataReport
from corecompress.errors import CorecompressError
from corecompress_captioned.pixels import Preprocessing, preprocessing
from corecompress_captioned.sources import open_source

SPLITS = ("calibration", "training", "evaluation")


@dataclass(frozen=True)
class Options:
    """Splits, sizes, batches."""

    calibration: float = option(0.4, "share of the images that is for calibration")
    evaluation: float = option(0.2, "share that is for evaluation; what is left is for training")
    size: int | None = option(None, "height and width of an image (default: what the checkpoint takes)")
    colours: Literal["auto", "grey", "rgb"] = option("auto", "auto: what the checkpoint takes, else as the images are")
    batch: int = option(32, "images a batch")

    def __post_init__(self) -> None:
        if not (self.calibration >= 0 and self.evaluation >= 0 and self.calibration + self.evaluation <= 1.0 + 1e-9):
            raise ValueError("calibration and evaluation are shares: not below 0, together not above 1")
        for name in ("size", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it takes 1 or more")


class Captioned:
    """Images with captions. Splits go by a hash of the image, so that equal images share one."""

    Options: ClassVar[type[Any]] = Options

    def __init__(self, source: str, options: Options):
        self.name, self.options = source, options
        self.source = open_source(source)
        self.checkpoint: Checkpoint | None = None

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """Take size, channels and normalisation from the checkpoint."""
        self.checkpoint = checkpoint
        self.__dict__.pop("preprocessing", None)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        first = self.source.image(0)
        natural = (first.height, first.width)
        found = preprocessing(self.checkpoint, self.options.size, natural, first.mode in ("1", "L", "I"))
        if self.options.colours == "auto":
            return found
        return dataclasses.replace(found, channels=1 if self.options.colours == "grey" else 3)

    def fingerprint(self) -> str:
        """Digest of the images, the captions, the options and the preprocessing."""
        digest = xxhash.xxh3_128(np.ascontiguousarray(self.source.digests).tobytes())
        digest.update(repr((self.source.captions, self.options, self.preprocessing)).encode())
        return digest.hexdigest()

    def numbers(self, split: str) -> NDArray[np.int64]:
        """The images of a split, in the source's order. Raises CorecompressError for an unknown or empty split."""
        if split not in SPLITS:
            raise CorecompressError(f"'{split}' is no split; there are {', '.join(SPLITS)}")
        place = self.source.digests.astype(np.float64) / 2**64
        early, late = self.options.calibration, 1 - self.options.evaluation
        of = np.where(place < early, 0, np.where(place >= late, 2, 1))
        return np.flatnonzero(of == SPLITS.index(split))

    def batches(self, seed: int, split: str = "calibration", start: int = 0) -> Iterator[Batch]:
        """pixel_values float32 [n, channels, height, width], document int64 [n] (the image's number; equal images
        share one) and caption str [n]. Raises CorecompressError for a split without images."""
        numbers = self.numbers(split)
        if not len(numbers):
            raise CorecompressError(f"captioned: the {split} split holds no image; give more, or another share")
        order = np.random.default_rng([seed, len(split)]).permutation(numbers)
        first = np.unique(self.source.digests, return_index=True, return_inverse=True)
        document = first[1][first[2]]
        for at in range(start * self.options.batch, len(order), self.options.batch):
            chosen = order[at : at + self.options.batch]
            yield {
                "pixel_values": np.stack([self.preprocessing(self.source.image(int(n))) for n in chosen]),
                "document": document[chosen].astype(np.int64),
                "caption": np.array([self.source.captions[n] for n in chosen]),
            }

    def report(self) -> DataReport:
        """What a person should see before a model does."""
        made = self.preprocessing
        figures = {
            "source": f"{self.name}, {len(self.source.captions)} images",
            "captions": len({c for c in self.source.captions if c}),
            "equal images": len(self.source.digests) - len(np.unique(self.source.digests)),
            "pixels": f"{made.channels} × {made.crop[0]} × {made.crop[1]}",
            "mean, deviation": f"{made.mean}, {made.std}",
        }
        splits = [(split, len(self.numbers(split))) for split in SPLITS]
        samples = [f"[{split}] {self.source.captions[n]}" for split in SPLITS for n in self.numbers(split)[:2]]
        return DataReport(figures, {"splits": (("split", "images"), splits)}, samples)
