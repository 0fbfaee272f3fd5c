"""Samples as files: text lines, or PNG images with a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corecompress.components import Sample
from corecompress.errors import CorecompressError

GAP = 2
"""Pixels between two images of a sheet."""
LEAST = 56
"""Pixels that the shorter edge of an image has on a sheet: small ones are shown larger."""
SHEET = "sheet.png"


def write_samples(samples: Sequence[Sample], out: Path) -> tuple[str, ...]:
    """Texts: one a line, to the file `out`. Images: NNNNN.png and a contact sheet into the folder `out`, or, where it
    is named *.png, the sheet alone. Returns the files. Raises CorecompressError where `out` can't be written."""
    if samples and samples[0].image is None:
        return _write_text("".join(f"{sample.text}\n" for sample in samples), out)
    images = [_image(sample) for sample in samples]
    if out.suffix.lower() == ".png":
        return _save({out: sheet(images)})
    _make_folder(out)
    files = {out / f"{number:05d}.png": image for number, image in enumerate(images)}
    return _save({**files, out / SHEET: sheet(images)})


def write_pairs(pairs: Sequence[tuple[Sample, Sample]], out: Path) -> tuple[str, ...]:
    """Texts: sample and reconstruction in two lines, an empty one behind. Images: a sheet, samples above their
    reconstructions. Returns the files."""
    if pairs[0][0].image is None:
        return _write_text("".join(f"{one.text}\n{other.text}\n\n" for one, other in pairs), out)
    target = out if out.suffix.lower() == ".png" else out / SHEET
    if target != out:
        _make_folder(out)
    across = min(len(pairs), 16)
    rows = [pairs[at : at + across] for at in range(0, len(pairs), across)]
    images = [
        _image(pair[side]) for row in rows for side in (0, 1) for pair in (*row, *[row[-1]] * (across - len(row)))
    ]
    return _save({target: sheet(images, across)})


def sheet(images: Sequence[NDArray[np.uint8]], across: int | None = None) -> NDArray[np.uint8]:
    """All of them on one picture, uint8 [height, width, 3], white between; across: images in a row."""
    across = across or math.ceil(math.sqrt(len(images)))
    height = max(image.shape[0] for image in images)
    width = max(image.shape[1] for image in images)
    zoom = max(1, round(LEAST / min(height, width)))
    rows = math.ceil(len(images) / across)
    shape = (rows * (height * zoom + GAP) + GAP, across * (width * zoom + GAP) + GAP, 3)
    whole = np.full(shape, 255, np.uint8)
    for number, image in enumerate(images):
        big = image.repeat(zoom, 0).repeat(zoom, 1)
        top = GAP + number // across * (height * zoom + GAP)
        left = GAP + number % across * (width * zoom + GAP)
        whole[top : top + big.shape[0], left : left + big.shape[1]] = big
    return whole


def _image(sample: Sample) -> NDArray[np.uint8]:
    assert sample.image is not None
    return np.asarray(np.broadcast_to(sample.image, (*sample.image.shape[:2], 3)), np.uint8)


def _make_folder(out: Path) -> None:
    if out.suffix.lower() == ".txt":
        raise CorecompressError(f"{out}: the model makes images; name a folder, or a file like {out.stem}.png")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise CorecompressError(f"{out}: can't be written ({problem.strerror}); give another -o") from None


def _save(files: dict[Path, Any]) -> tuple[str, ...]:
    try:
        from PIL import Image
    except ImportError as problem:
        raise CorecompressError(f'{problem}; writing images needs Pillow: pip install "corecompress[report]"') from None
    for path, values in files.items():
        scratch = path.with_suffix(".tmp")
        try:
            Image.fromarray(values).save(scratch, format="png")
            scratch.replace(path)
        except OSError as problem:
            scratch.unlink(missing_ok=True)
            raise CorecompressError(f"{path}: can't be written ({problem.strerror}); give another -o") from None
    return tuple(str(path) for path in files)


def _write_text(text: str, out: Path) -> tuple[str, ...]:
    if out.suffix.lower() == ".png":
        raise CorecompressError(f"{out}: the model writes text; name a file like {out.with_suffix('.txt').name}")
    scratch = out.with_name(out.name + ".tmp")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(out)
    except OSError as problem:
        scratch.unlink(missing_ok=True)
        raise CorecompressError(f"{out}: can't be written ({problem.strerror}); give a file for -o") from None
    return (str(out),)
