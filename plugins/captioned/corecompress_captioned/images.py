"""What every source gives: images by number, and what is known of each."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image, ImageOps

from corecompress.errors import CorecompressError

Kind = tuple[str, int, int]
"""Mode (as Pillow names it), width, height."""


@dataclass(frozen=True)
class Images:
    """n images. read: image by number; where: what an error calls it.

    digests: hash of each content, uint64 [n]; groups: what splits and documents go by, uint64 [n], spread evenly (the
    digests, unless images of different content belong together). labels: int64 [n] into `classes`, or None. official:
    bool [n], whether the image is of the set's own test set, or None where it has none. unlisted: images that lie
    beside these and that the set's own list leaves out.
    """

    origin: str
    read: Callable[[int], Image.Image]
    where: Callable[[int], str]
    captions: list[str]
    digests: NDArray[np.uint64]
    kinds: list[Kind]
    groups: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    official: NDArray[np.bool_] | None = None
    unlisted: int = 0

    def __post_init__(self) -> None:
        if not len(self.groups):
            object.__setattr__(self, "groups", self.digests)

    def __len__(self) -> int:
        return len(self.digests)

    def take(self, numbers: NDArray[np.int64]) -> Images:
        """Some of them, in that order."""
        return replace(
            self,
            read=lambda n: self.read(int(numbers[n])),
            where=lambda n: self.where(int(numbers[n])),
            captions=[self.captions[n] for n in numbers],
            digests=self.digests[numbers],
            kinds=[self.kinds[n] for n in numbers],
            groups=self.groups[numbers],
            labels=None if self.labels is None else self.labels[numbers],
            official=None if self.official is None else self.official[numbers],
        )


def digest(content: bytes) -> int:
    return xxhash.xxh3_64_intdigest(content)


def kind_of(content: bytes, where: str) -> Kind:
    """What a file's head says. Raises CorecompressError for what is no image."""
    return _opened(io.BytesIO(content), where, lambda image: (image.mode, image.width, image.height))


def decode(file: Path | bytes, where: str) -> Image.Image:
    """The image, turned upright as its EXIF says. Raises CorecompressError for what can't be read."""
    opened = io.BytesIO(file) if isinstance(file, bytes) else file
    return _opened(opened, where, lambda image: ImageOps.exif_transpose(image.copy()))


def _opened(file: Any, where: str, use: Callable[[Image.Image], Any]) -> Any:
    try:
        with Image.open(file) as image:
            return use(image)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as problem:
        reason = " ".join(str(problem).split())[:120]
        raise CorecompressError(f"{where}: no image that can be read ({reason}); remove it or mend it") from None
