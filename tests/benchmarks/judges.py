"""What says how good generated images and texts are: a classifier of the real ones, retrieval and the Fréchet distance of
features, a language model of generated sentences; and what painter.py and emoji_painter.py share."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import markdown
from torch import nn

import corecompress
from corecompress.components import Sample

FEATURES = 64


def images_of(spec: str, *splits: str) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """(pixels [n, c, h, w], classes [n] or, where there are none, [0], captions) of some splits."""
    data = corecompress.open_data(spec)
    batches = [batch for split in splits for batch in data.batches(0, split)]
    pixels = torch.from_numpy(np.concatenate([batch["pixel_values"] for batch in batches]))
    labels = torch.from_numpy(np.concatenate([batch.get("label", np.empty(0, np.int64)) for batch in batches]))
    return pixels, labels, [str(caption) for batch in batches for caption in batch["caption"]]


def pixels_of(samples: list[Sample]) -> torch.Tensor:
    """[n, c, h, w], 0 … 1."""
    return torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2).float() / 255


class Classifier(nn.Module):
    """Two convolutions and a layer of FEATURES."""

    def __init__(self, channels: int, height: int, width: int, classes: int):
        super().__init__()
        inner = 64 * (height // 4) * (width // 4)
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(inner, FEATURES), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def train_classifier(pixels: torch.Tensor, labels: torch.Tensor, epochs: int = 8) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(*pixels.shape[1:], int(labels.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(pixels)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pixels[chosen]), labels[chosen]).backward()
            optimizer.step()
    return model.eval()


class LanguageModel(nn.Module):
    """The next word of a sentence, by an LSTM; word 0 stands in front of sentences and behind them."""

    def __init__(self, words: int):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(words, 64), nn.LSTM(64, 128, batch_first=True)
        self.head = nn.Linear(128, words)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """-log p of each word of ids [n, t] (0 behind the end), nats: [words that count]."""
        before = nn.functional.pad(ids, (1, 0))[:, :-1]
        logits = self.head(nn.functional.dropout(self.lstm(self.embedding(before))[0], 0.3, self.training))
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)
        counts = nn.functional.pad(ids != 0, (1, 0), value=True)[:, :-1]  # the first 0 is the sentence's end
        return losses[counts]


def reverse_perplexity(learned: list[str], real: list[str], vocabulary: dict[str, int], epochs: int = 8) -> float:
    """Perplexity of real sentences, of a word and the end, to a language model that has learned from others."""
    length = 1 + max(len(sentence.split()) for sentence in (*learned, *real))

    def ids_of(sentences: list[str]) -> torch.Tensor:
        rows = [[vocabulary[word] for word in sentence.split()] for sentence in sentences]
        return torch.tensor([row + [0] * (length - len(row)) for row in rows])

    torch.manual_seed(0)
    model, ids = LanguageModel(1 + len(vocabulary)), ids_of(learned)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(ids)).split(64):
            optimizer.zero_grad()
            model(ids[chosen]).mean().backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return float(model(ids_of(real)).mean().exp())


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """|μ − μ'|² + tr(Σ + Σ' − 2 (Σ Σ')^½) of rows of features."""
    a, b = np.cov(one.T), np.cov(other.T)
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()
    return float(np.square(one.mean(0) - other.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * cross)


def retrieved(drawn: np.ndarray, asked: list, real: np.ndarray, shown: list, k: int) -> float:
    """Share of the drawn pictures among whose k nearest real ones is one that shows what was asked; features [n, d]."""
    distances = np.square(drawn[:, None] - real[None]).sum(2)
    nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
    return float(np.mean([any(shown[j] == want for j in row) for row, want in zip(nearest, asked, strict=True)]))


def fitted_and_compressed(asked: argparse.Namespace, data: str) -> tuple[Path, Path]:
    """The folders of a model and of what compression, calibrated on the same data, made of it; those there are kept."""
    asked.out.mkdir(parents=True, exist_ok=True)
    whole, small = asked.out / "original", asked.out / "compressed"
    if not whole.exists():
        corecompress.fit(data, asked.encoder, "gaussian", whole, seed=asked.seed)
    if not small.exists():
        corecompress.compress(whole, small, asked.recipe, data=data, evaluated=False)
    return whole, small


def write_report(asked: argparse.Namespace, facts: dict[str, float], rows: dict[str, dict[str, Any]]) -> None:
    """report.json, and report.md as a table with a row a folder, printed as well."""
    said = {**vars(asked), "out": str(asked.out), **facts, "rows": rows}
    (asked.out / "report.json").write_text(json.dumps(said, indent=1))
    names = list(next(iter(rows.values())))
    lines = markdown(["", *names], [[folder, *(f"{row[name]:,.4g}" for name in names)] for folder, row in rows.items()])
    lines += ["", *(f"{name}: {value:.4f}" for name, value in facts.items())]
    (asked.out / "report.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
