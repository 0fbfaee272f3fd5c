"""The data component `captioned`: images and captions in, batches of pixels out."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from corecompress.checkpoint import Checkpoint
from corecompress.components import Batch, DataReport
from corecompress.errors import CorecompressError
from corecompress_captioned.images import Images
from corecompress_captioned.options import Options
from corecompress_captioned.pixels import GREY, Preprocessing, preprocessing
from corecompress_captioned.sources import open_source

SPLITS = ("calibration", "training", "evaluation")

KEPT = 1 << 28
"""Bytes of pixels that are kept in memory, so that a second pass decodes nothing; larger sets are decoded each time."""

_told: set[str] = set()


class Captioned:
    """Images with captions. Splits go by a hash of the image (of emoji: of what it shows), so that equal images, or
    variants of one, share a split."""

    Options: ClassVar[type[Any]] = Options

    def __init__(self, source: str, options: Options):
        self.name, self.options = source, options
        self.source = _limited(open_source(source, options), options.images)
        self.has_captions = _has_captions(self.source, options.captions, source)
        self.checkpoint: Checkpoint | None = None

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """Take size, channels and normalisation from the checkpoint."""
        self.checkpoint = checkpoint
        self.__dict__.pop("preprocessing", None)
        self.__dict__.pop("_kept", None)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        _, width, height = self.source.kinds[0]
        grey = all(mode in GREY for mode, _, _ in self.source.kinds)
        found = preprocessing(self.checkpoint, self.options.size, (height, width), grey)
        if self.options.colours == "auto":
            return found
        return dataclasses.replace(found, channels=1 if self.options.colours == "grey" else 3)

    def fingerprint(self) -> str:
        """Digest of the images, the captions, the classes, the options and the preprocessing."""
        digest = xxhash.xxh3_128(np.ascontiguousarray(self.source.digests).tobytes())
        digest.update(np.ascontiguousarray(self.source.groups).tobytes())
        labels = None if self.source.labels is None else self.source.labels.tobytes()
        digest.update(
            repr((self.source.captions, labels, self.source.classes, self.options, self.preprocessing)).encode()
        )
        return digest.hexdigest()

    @cached_property
    def _split(self) -> NDArray[np.int64]:
        """The number of each image's split; −1 for the images of no split."""
        place = self.source.groups.astype(np.float64) / 2**64
        early, late = self.options.calibration, 1 - self.options.evaluation
        if self.options.split == "hash":
            return np.where(place < early, 0, np.where(place >= late, 2, 1))
        test = self.source.official
        assert test is not None
        copies = np.isin(self.source.groups, self.source.groups[test])  # of test images, among those for training
        return np.where(test, 2, np.where(copies, -1, np.where(place < early, 0, 1)))

    def numbers(self, split: str) -> NDArray[np.int64]:
        """The images of a split, in the source's order. Raises CorecompressError for an unknown split."""
        if split not in SPLITS:
            raise CorecompressError(f"'{split}' is no split; there are {', '.join(SPLITS)}")
        return np.flatnonzero(self._split == SPLITS.index(split))

    def batches(self, seed: int, split: str = "calibration", start: int = 0) -> Iterator[Batch]:
        """pixel_values float32 [n, channels, height, width], document int64 [n] (the number of the first image of a
        group that no split cuts: equal images, variants of an emoji), caption str [n] where images have captions,
        label int64 [n] where they have classes. Raises CorecompressError for a split without images."""
        numbers = self.numbers(split)
        if not len(numbers):
            raise CorecompressError(f"captioned: the {split} split holds no image; give more, or another share")
        self._tell()
        order = np.random.default_rng([seed, len(split)]).permutation(numbers)
        _, first, group = np.unique(self.source.groups, return_index=True, return_inverse=True)
        document = first[group].astype(np.int64)
        for at in range(start * self.options.batch, len(order), self.options.batch):
            chosen = order[at : at + self.options.batch]
            batch = {"pixel_values": self.preprocessing.normalised(self._pixels(chosen)), "document": document[chosen]}
            if self.has_captions:
                batch["caption"] = np.array([self.source.captions[n] for n in chosen])
            if self.source.labels is not None:
                batch["label"] = self.source.labels[chosen]
            yield batch

    @cached_property
    def _kept(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        shape = (len(self.source), *self.preprocessing.crop, self.preprocessing.channels)
        if np.prod(shape, dtype=np.int64) > KEPT:
            return None
        return np.empty(shape, np.uint8), np.zeros(len(self.source), bool)

    def _pixels(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 [n, height, width, channels]."""
        if self._kept is None:
            return np.stack([self._read(int(n)) for n in numbers])
        pixels, there = self._kept
        for n in numbers[~there[numbers]]:
            pixels[n], there[n] = self._read(int(n)), True
        return pixels[numbers]

    def _read(self, number: int) -> NDArray[np.uint8]:
        return self.preprocessing.shaped(self.source.read(number), self.source.where(number))

    def _converted(self) -> str:
        """How many images differ from what a batch holds, and how."""
        made = self.preprocessing
        sizes = Counter((height, width) for _, width, height in self.source.kinds)
        modes = Counter(mode for mode, _, _ in self.source.kinds)
        resized = len(self.source) - sizes[made.crop]
        other = {mode: count for mode, count in modes.most_common() if mode != ("L" if made.channels == 1 else "RGB")}
        parts = [f"{resized:,} resized"] if resized else []
        return ", ".join(parts + [f"{count:,} from mode {mode}" for mode, count in other.items()])

    def _tell(self) -> None:
        """Once, a line when the images differ among themselves, and one when some are not in the set's list."""
        if self.name in _told:
            return
        _told.add(self.name)
        if self.source.unlisted:
            print(
                f"captioned:{self.name}: {self.source.unlisted:,} images are not in its metadata and left out",
                file=sys.stderr,
            )
        kinds = set(self.source.kinds)
        if len(kinds) > 1:
            made = self.preprocessing
            print(
                f"captioned:{self.name}: {len(self.source):,} images of {len({k[1:] for k in kinds})} sizes and "
                f"{len({k[0] for k in kinds})} modes, all made {made.crop[0]} × {made.crop[1]} "
                f"{'grey' if made.channels == 1 else 'RGB'}: {self._converted()}",
                file=sys.stderr,
            )

    def report(self) -> DataReport:
        """What a person should see before a model does."""
        made, source = self.preprocessing, self.source
        figures: dict[str, Any] = {"source": f"{source.origin}, {len(source):,} images"}
        figures["captions"] = len(set(source.captions)) if self.has_captions else "none"
        if source.classes:
            figures["classes"] = f"{len(source.classes)}: {', '.join(source.classes[:12])}"
        figures["equal images"] = len(source.digests) - len(np.unique(source.digests))
        figures["groups that no split cuts"] = len(np.unique(source.groups))
        if source.unlisted:
            figures["not in the metadata, left out"] = source.unlisted
        figures["converted"] = self._converted() or "none"
        figures["pixels"] = f"{made.channels} × {made.crop[0]} × {made.crop[1]}"
        figures["mean, deviation"] = f"{made.mean}, {made.std}"
        splits = [(split, len(self.numbers(split))) for split in SPLITS]
        samples = [f"[{split}] {source.captions[n]}" for split in SPLITS for n in self.numbers(split)[:2]]
        return DataReport(figures, {"splits": (("split", "images"), splits)}, samples if self.has_captions else [])


def _limited(source: Images, images: int | None) -> Images:
    """The first `images` in the order of the lower half of their hash (splits go by the upper half), in the source's
    order."""
    if images is None or images >= len(source):
        return source
    order = np.argsort(source.digests & np.uint64(0xFFFFFFFF), kind="stable")
    return source.take(np.sort(order[:images]).astype(np.int64))


def _has_captions(source: Images, wanted: str, name: str) -> bool:
    """Whether batches hold captions. Raises CorecompressError where only some images have one."""
    if wanted == "off":
        return False
    missing = [n for n, caption in enumerate(source.captions) if not caption]
    if not missing or (wanted == "auto" and len(missing) == len(source)):
        return not missing
    mend = "" if wanted == "required" else ", or captions=off"
    raise CorecompressError(
        f"{source.where(missing[0])}: has no caption, like {len(missing):,} of {len(source):,} images of "
        f"captioned:{name}; give it a 'text' in metadata.jsonl or a .txt beside it{mend}"
    )
