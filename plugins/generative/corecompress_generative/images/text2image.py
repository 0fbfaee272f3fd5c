"""The encoder `text2image`: an image VAE that is told captions, refined by an adversary that reads them too."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from corecompress.components import Batch, Data, Sample, option
from corecompress.errors import CorecompressError
from corecompress_generative.feed import SPLITS
from corecompress_generative.images.encoders import VaeGan, VaeGanOptions
from corecompress_generative.images.likelihood import Kind
from corecompress_generative.images.model import ImageVae
from corecompress_generative.model import Inputs

CAPTIONS = "captions.json"
"""Words by their number from 1 on, and some of the captions."""
KEPT = 64
"""Captions that are kept, to draw from where no prompt is given."""
LONGEST = 24
"""Words of a caption."""


@dataclass(frozen=True)
class Options(VaeGanOptions):
    """Options of `text2image`."""

    latents: int = option(8, "numbers that an image is encoded in; the more, the less the caption decides")
    likelihood: Kind = option("bernoulli", "of a pixel")
    steps: int = option(3000, "updates")
    words: int = option(64, "width of what a caption becomes")
    captions: Literal["gru", "lstm"] = option("gru", "what reads them, word after word")
    begin: float = option(0.5, "share of the training with the likelihood alone")


class Text2Image(VaeGan):
    """Captions and images in, images out."""

    Options: ClassVar[type[Any]] = Options
    name = "text2image"

    def __init__(self, options: Any = None):
        super().__init__(options)
        self.words: list[str] = []
        self.known: list[str] = []

    def study(self, data: Data, seed: int) -> None:
        """The vocabulary of the captions. Raises CorecompressError where captions are missing."""
        found = {caption for split in SPLITS for caption in _captions(data, seed, split)}
        self.words = sorted({word for caption in found for word in words_of(caption)})
        ordered = sorted(found)
        self.known = ordered[:: max(1, len(ordered) // KEPT)][:KEPT]

    def take(self, batch: Batch) -> Inputs:
        _check_captions(batch)
        return {**super().take(batch), "caption_ids": self._ids([str(c) for c in batch["caption"]])}

    def captioned(self) -> dict[str, Any]:
        return {"caption_width": self.options.words, "caption_words": len(self.words) + 1}

    def _ids(self, captions: list[str]) -> torch.Tensor:
        """Numbers of the words, 0 for padding; words that are not known are left out."""
        number = {word: n for n, word in enumerate(self.words, 1)}
        ids = np.zeros((len(captions), LONGEST), np.int64)
        for row, caption in zip(ids, captions, strict=True):
            found = [number[word] for word in words_of(caption) if word in number][:LONGEST]
            row[: len(found)] = found
        return torch.from_numpy(ids)

    def save(self, folder: Path) -> None:
        super().save(folder)
        text = json.dumps({"words": self.words, "captions": self.known}, ensure_ascii=False)
        (folder / CAPTIONS).write_text(text, encoding="utf-8")

    def loaded(self, folder: Path) -> None:
        path = folder / CAPTIONS
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.words, self.known = list(found["words"]), list(found["captions"])
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise CorecompressError(f"{path}: can't be read ({problem}); fit the model again") from None

    def generate(self, n: int, *, prompt: str | None = None, seed: int = 0) -> list[Sample]:
        """Images of the prompt; without one, of captions that were seen in training."""
        assert isinstance(self.model, ImageVae)
        if prompt is None:
            chosen = np.random.default_rng(seed).integers(len(self.known), size=n)
            captions = [self.known[int(number)] for number in chosen]
        else:
            self._check_prompt(prompt)
            captions = [prompt] * n
        with torch.no_grad():
            z = self._draw(n, seed)
            images = self.show(self.model.paint(z, {"caption_ids": self._ids(captions)}))
        return [Sample(image=sample.image, caption=c) for sample, c in zip(images, captions, strict=True)]

    def _check_prompt(self, prompt: str) -> None:
        words = words_of(prompt)
        unknown = list(dict.fromkeys(word for word in words if word not in self.words))
        if not words:
            raise CorecompressError("--prompt: holds no word; say what the image should show")
        if unknown:  # the first three: more would not be one line
            raise CorecompressError(f"--prompt: {'; '.join(map(self._mend, unknown[:3]))}")

    def _mend(self, word: str) -> str:
        near = difflib.get_close_matches(word, self.words, n=3, cutoff=0.3)
        known = f"the nearest are {', '.join(near)}" if near else f"they are like “{self.known[0]}”"
        return f"'{word}' is no word of the captions; {known}"


def words_of(caption: str) -> list[str]:
    """Lower-case words; each Chinese character is one."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W_]+", caption.lower())


def _captions(data: Data, seed: int, split: str) -> Iterator[str]:
    try:
        for batch in data.batches(seed, split):
            _check_captions(batch)
            yield from map(str, batch["caption"])
    except CorecompressError as problem:
        if "captions" in str(problem) or split == SPLITS[-1]:  # one of the two splits may be empty
            raise


def _check_captions(batch: Batch) -> None:
    if "pixel_values" in batch and ("caption" not in batch or not all(map(str, batch["caption"]))):
        raise CorecompressError(
            "--data: images without captions; give metadata.jsonl with file_name and text, or a folder a class"
        )
    if "caption" not in batch:
        raise CorecompressError(f"--data: gives {', '.join(batch)}; text2image learns from images with captions")
