"""The options of `captioned`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corecompress import option


@dataclass(frozen=True)
class Options:
    """Reading, splits, sizes, batches."""

    images: int | None = option(
        None, "use so many images, chosen by their hash; of a hub set its first rows (default: all; 20000 of a hub set)"
    )
    captions: Literal["auto", "required", "off"] = option(
        "auto", "auto: in the batches where every image has one; required: refused where one lacks; off: left out"
    )
    language: Literal["en", "zh", "both"] = option("en", "of the captions of emoji; both: each picture twice")
    image_column: str | None = option(None, "column with the images, of sets that have columns (default: found)")
    caption_column: str | None = option(None, "column with the captions (default: found)")
    label_column: str | None = option(None, "column with the classes (default: found)")
    split: Literal["hash", "official"] = option(
        "hash", "hash: splits by a hash of the image; official: evaluation is the set's own test set (fashion)"
    )
    calibration: float = option(0.4, "share of the images that is for calibration")
    evaluation: float = option(0.2, "share that is for evaluation; what is left is for training")
    size: int | None = option(None, "height and width of an image (default: what the checkpoint takes)")
    colours: Literal["auto", "grey", "rgb"] = option("auto", "auto: what the checkpoint takes, else as the images are")
    batch: int = option(32, "images a batch")

    def __post_init__(self) -> None:
        if not (self.calibration >= 0 and self.evaluation >= 0 and self.calibration + self.evaluation <= 1.0 + 1e-9):
            raise ValueError("calibration and evaluation are shares: not below 0, together not above 1")
        for name in ("images", "size", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it takes 1 or more")
