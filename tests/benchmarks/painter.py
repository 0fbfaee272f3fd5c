"""Text to image from end to end: fit, draw from prompts, compress, draw again; one table.

    python tests/benchmarks/painter.py -o DIR [--data captioned:digits] [--encoder text2image] [--recipe 'vae(bits=4)'] [--seed 0]

Compression is calibrated on the data's calibration split; prompts are the captions of the evaluation split. A classifier
trained on the real images of the other two says whether a picture shows what was asked; the Fréchet distance is that of
its features (64 numbers) between the evaluation split and as many drawn pictures; retrieval@1 the share of the drawn
pictures whose nearest real one by these features shows what was asked. Latency is that of `generate` with one
prompt, in this process, on one thread. Writes report.json, report.md and a sheet of pictures of each model; a folder
that is there already is not fitted again.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from judges import (
    Classifier,
    fitted_and_compressed,
    frechet,
    images_of,
    pixels_of,
    retrieved,
    train_classifier,
    write_report,
)

from corecompress.generation import open_fitted
from corecompress.report.samples import write_samples

DRAWN, TIMED = 1000, 200


@torch.no_grad()
def measure(
    folder: Path, judge: Classifier, real: np.ndarray, shown: list[int], asked: list[tuple[str, int]], seed: int
) -> dict:
    """Size, latency, prompt accuracy, retrieval and Fréchet distance of one folder."""
    encoder = open_fitted(folder)
    samples = [encoder.generate(1, prompt=prompt, seed=seed + n)[0] for n, (prompt, _) in enumerate(asked)]
    pixels = pixels_of(samples)
    said, features = judge(pixels).argmax(1), judge.body(pixels).numpy()
    labels = [label for _, label in asked]
    right = float((said == torch.tensor(labels)).float().mean())
    seconds = []
    for n in range(TIMED):
        begun = time.perf_counter()
        encoder.generate(1, prompt=asked[n][0], seed=n)
        seconds.append(time.perf_counter() - begun)
    order = np.argsort([label for _, label in asked], kind="stable")
    chosen = [samples[i] for i in order[:: max(1, len(order) // 100)][:100]]
    write_samples(chosen, folder.parent / f"{folder.name}.png")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "bytes": size,
        "latency, median ms": 1000 * float(np.median(seconds)),
        "latency, p95 ms": 1000 * float(np.percentile(seconds, 95)),
        "images a second": 1 / float(np.median(seconds)),
        "prompt accuracy": right,
        "retrieval@1": retrieved(features, labels, real, shown, 1),
        "Fréchet distance": frechet(real, features),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", default="captioned(batch=128):digits")
    parser.add_argument("--encoder", default="text2image")
    parser.add_argument("--recipe", default="vae(bits=4)")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    whole, small = fitted_and_compressed(asked, asked.data)
    pixels, labels, _ = images_of(asked.data, "training", "calibration")
    judge = train_classifier(pixels, labels)
    pixels, labels, captions = images_of(asked.data, "evaluation")
    with torch.no_grad():
        right = float((judge(pixels).argmax(1) == labels).float().mean())
        real = judge.body(pixels).numpy()
        half = len(real) // 2
        floor = frechet(real[:half], real[half:])
    prompts = [(captions[n % len(captions)], int(labels[n % len(labels)])) for n in range(DRAWN)]
    rows = {
        folder.name: measure(folder, judge, real, labels.tolist(), prompts, asked.seed) for folder in (whole, small)
    }
    facts = {"classifier's accuracy on real images": right, "Fréchet distance between halves of them": floor}
    write_report(asked, facts, rows)


if __name__ == "__main__":
    main()
