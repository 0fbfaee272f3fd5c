"""Data for the tests of distill, and the way to the core's helpers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))
os.environ["HF_HUB_OFFLINE"] = "1"

import tiny


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data SPEC of made-up sentences."""
    return f"text(length=24):{tiny.corpus(tmp_path_factory.mktemp('text') / 'corpus.txt', documents=160)}"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data SPEC of coloured noise."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return f"captioned:{folder}"
