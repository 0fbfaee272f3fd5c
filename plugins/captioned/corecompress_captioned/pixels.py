"""Images to the numbers that a model takes, after its preprocessor_config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corecompress.checkpoint import Checkpoint
from corecompress.errors import CorecompressError

GREY = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L"))
"""Pillow's modes without colour."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize (shortest: only the shorter edge, to `resize`), cut `crop` (height, width) out of the middle, scale to
    0 … 1, normalise. channels: 1 or 3."""

    resize: tuple[int, int]
    shortest: bool
    crop: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    filter: int

    def shaped(self, image: Image.Image, where: str) -> NDArray[np.uint8]:
        """uint8 [height, width, channels]. Raises CorecompressError for a mode without an agreed range."""
        image = _eight_bits(image, where).convert("L" if self.channels == 1 else "RGB")
        height, width = self.resize
        if self.shortest:
            scale = height / min(image.size)
            height, width = round(image.height * scale), round(image.width * scale)
        if (width, height) != image.size:
            image = image.resize((width, height), Image.Resampling(self.filter))
        top, left = (height - self.crop[0]) // 2, (width - self.crop[1]) // 2
        image = image.crop((left, top, left + self.crop[1], top + self.crop[0]))
        return np.asarray(image).reshape(*self.crop, self.channels)

    def normalised(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [n, height, width, channels] as float32 [n, channels, height, width]."""
        values = (pixels.astype(np.float32) / 255 - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def _eight_bits(image: Image.Image, where: str) -> Image.Image:
    """Transparency laid on white, 16 bits scaled to 8: what Pillow's own conversion drops or cuts off."""
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("RGBA"))
        return ground
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
            raise CorecompressError(f"{where}: mode {image.mode} has no agreed range; save it with 8 or 16 bits")
        return Image.fromarray(np.round(values / 257).astype(np.uint8))
    return image


def preprocessing(
    checkpoint: Checkpoint | None, size: int | None, natural: tuple[int, int], grey: bool
) -> Preprocessing:
    """What the checkpoint asks for. size: another edge than that; natural, grey: size of the first image, and whether
    all are grey, for when no checkpoint says more. Raises CorecompressError for a preprocessor_config.json that can't
    be read."""
    config = {} if checkpoint is None else _image_config(checkpoint.config)
    path = None if checkpoint is None else Path(checkpoint.folder) / "preprocessor_config.json"
    said = _read(path) if path is not None and path.exists() else {}
    channels = int(config.get("num_channels") or (1 if grey and checkpoint is None else 3))
    edge = config.get("image_size")
    default = (size, size) if size else _extent(edge) or natural
    resize = _extent(said.get("size")) if said.get("do_resize", True) and not size else None
    crop = _extent(said.get("crop_size")) if said.get("do_center_crop") and not size else None
    shortest = isinstance(said.get("size"), dict) and "shortest_edge" in said["size"] and not size
    if shortest and crop is None:
        shortest = False  # a batch needs one shape
    normal = bool(said.get("do_normalize", False))
    mean = tuple(said.get("image_mean", [0.5])) if normal else (0.0,)
    std = tuple(said.get("image_std", [0.5])) if normal else (1.0,)
    return Preprocessing(
        resize or default, shortest, crop or resize or default, channels, mean, std, int(said.get("resample", 2))
    )


def _image_config(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("vision_config") or config


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise CorecompressError(f"{path}: is no JSON object; download it again")
    return said


def _extent(value: Any) -> tuple[int, int] | None:
    """(height, width) of what configurations write as a size."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, list) and len(value) == 2:
        return int(value[0]), int(value[1])
    if isinstance(value, dict):
        edge = value.get("shortest_edge")
        return (int(edge), int(edge)) if edge else (int(value["height"]), int(value["width"]))
    return None
