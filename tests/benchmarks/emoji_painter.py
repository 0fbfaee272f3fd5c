"""Emoji from captions, seen and unseen: fit text2image, draw, compress, draw again; one table.

    python tests/benchmarks/emoji_painter.py -o DIR [--encoder 'text2image(likelihood=gaussian)'] [--language en] [--recipe 'vae(bits=4)'] [--seed 0]

Every caption has one picture, so there are no classes to judge by. Retrieval instead: of 500 drawn pictures, the share
among whose 1 (or 10) nearest real ones is that of the caption that was asked; near in 64 principal components of the
pictures that it learned from. `seen` captions are of those pictures; `unseen` ones of the evaluation split, whose
concepts it never saw, as far as it knows all their words. Of `--language both`, captions of either language are judged
apart, among the same pictures. The Fréchet distance is that of the same components, seen captions, against the pictures
learned from. A folder that is there already is not fitted again. Writes report.json, report.md and sheets of what was
asked, real beside drawn.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from judges import fitted_and_compressed, frechet, images_of, pixels_of, retrieved, write_report

from corecompress.components import Sample
from corecompress.generation import open_fitted
from corecompress.report.samples import write_samples
from corecompress_generative.images.text2image import words_of

COMPONENTS, DRAWN, SHOWN = 64, 500, 50


class Components:
    """Pictures as numbers along the directions in which the real ones differ most."""

    def __init__(self, pixels: torch.Tensor):
        flat = pixels.flatten(1)
        self.mean = flat.mean(0)
        self.axes = torch.linalg.svd(flat - self.mean, full_matrices=False).Vh[:COMPONENTS]

    def __call__(self, pixels: torch.Tensor) -> np.ndarray:
        return ((pixels.flatten(1) - self.mean) @ self.axes.T).numpy()


def chosen_of(known: set[str], captions: list[str]) -> list[int]:
    """Numbers of up to DRAWN captions, spread evenly, all of whose words are known."""
    spread = range(0, len(captions), max(1, len(captions) // DRAWN))
    return [number for number in spread if known.issuperset(words_of(captions[number]))][:DRAWN]


def measure(
    folder: Path, space: Components, real: dict[str, tuple[torch.Tensor, list[str]]], seed: int
) -> dict[str, float]:
    """Retrieval of seen and unseen captions, and the Fréchet distance."""
    encoder = open_fitted(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    row: dict[str, float] = {"bytes": size}
    for name, (pixels, captions) in real.items():
        numbers = chosen_of(set(encoder.words), captions)
        drawn = [encoder.generate(1, prompt=captions[n], seed=seed + n)[0] for n in numbers]
        points, among = space(pixels_of(drawn)), space(pixels)
        asked = [captions[n] for n in numbers]
        for k in (1, 10):
            row[f"{name}: retrieval@{k}"] = retrieved(points, asked, among, captions, k)
        row[f"{name}: prompts"] = len(numbers)
        if name.startswith("seen"):
            row[f"{name}: Fréchet distance"] = frechet(among, points)
        step = max(1, len(numbers) // SHOWN)
        pairs = [sample for at in range(0, len(numbers), step) for sample in (_real(pixels, numbers[at]), drawn[at])]
        write_samples(pairs[: 2 * SHOWN], folder.parent / f"{folder.name}-{name.replace(', ', '-')}.png")
    return row


def _real(pixels: torch.Tensor, number: int) -> Sample:
    return Sample(image=(pixels[number] * 255).round().byte().permute(1, 2, 0).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--encoder", default="text2image(likelihood=gaussian)")
    parser.add_argument("--language", default="en", choices=["en", "zh", "both"])
    parser.add_argument("--recipe", default="vae(bits=4)")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = "captioned(size=32, batch=128, language={}):emoji"
    whole, small = fitted_and_compressed(asked, data.format(asked.language))
    languages = ("en", "zh") if asked.language == "both" else (asked.language,)
    splits = {"seen": ("training", "calibration"), "unseen": ("evaluation",)}
    real = {
        f"{name}, {language}": images_of(data.format(language), *which)[::2]
        for name, which in splits.items()
        for language in languages
    }
    space = Components(real[f"seen, {languages[0]}"][0])
    points = space(real[f"seen, {languages[0]}"][0])
    facts = {
        "Fréchet distance between halves of the real ones": frechet(points[::2], points[1::2]),
        **{
            f"retrieval@{k} by chance, {name}": k / len(captions)
            for name, (_, captions) in real.items()
            for k in (1, 10)
        },
    }
    rows = {folder.name: measure(folder, space, real, asked.seed) for folder in (whole, small)}
    write_report(asked, facts, rows)


if __name__ == "__main__":
    main()
