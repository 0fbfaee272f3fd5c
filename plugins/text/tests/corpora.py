"""Texts for tests, and the component opened on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import corecompress.api

WORDS = "the quick brown fox jumps over a lazy dog while seven wise owls watch from their old oak".split()


def paragraphs(count: int, seed: int = 0, length: int = 30) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) + f" number {n}." for n in range(count)]


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return path


def data(spec: str, checkpoint: Path | None = None) -> Any:
    return corecompress.api.open_data(spec, checkpoint)


def documents_of(component: Any, split: str) -> set[int]:
    found = {int(d) for batch in component.batches(0, split) for d in np.unique(batch["document"])}
    return found - {-1}


def texts_of(spec: str) -> list[str]:
    return list(data(spec).source.texts())
