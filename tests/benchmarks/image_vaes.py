"""Image VAEs beside each other and beside Pythae 0.1.2 (pip install pythae==0.1.2), on Fashion-MNIST.

    python tests/benchmarks/image_vaes.py -o DIR [--seeds 0 1 2] [--images 23333] [--steps 938] [--only NAME…]

The images are the set's own, test images for evaluation. Black and white (border at one half): −ELBO and −ln p with 32
importance weights, nats an image, on the first 512 images of the evaluation split, by one function for all. Grey: squared
error of a pixel of reconstructions, and the Fréchet distance of 2,000 new images in the features of a classifier that
was trained on the real ones (floor: one half of the test images against the other). Pythae trains the networks of our
`cnn` for as many epochs as our updates are, at the same batch and learning rate. One thread; what is in DIR already is
not trained again. Writes table.md, results.json and a sheet of new images of each.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from judges import Classifier, frechet, images_of, pixels_of, train_classifier
from measuring import markdown

import corecompress
from corecompress.generation import open_fitted
from corecompress.report.samples import write_samples
from corecompress_generative.bounds import judge
from corecompress_generative.images.encoders import ImageEncoder
from corecompress_generative.images.model import ImageVae

BATCH, JUDGED, DRAWN = 128, 512, 2000
LIKELIHOOD = "-log-likelihood, 32 importance weights (nats a sample)"
FITS = {
    "cnn": ("cnn(steps={steps})", "gaussian"),
    "cnn, Hadamard prior": ("cnn(steps={steps})", "hadamard"),
    "cnn, as large as nvae": ("cnn(steps={steps}, channels=16, hidden=78)", "gaussian"),
    "nvae, hierarchical": ("nvae(steps={steps}, batch=128)", "hierarchical"),
    "nvae, Gaussian": ("nvae(steps={steps}, batch=128)", "gaussian"),
    "nvae, Hadamard prior": ("nvae(steps={steps}, batch=128)", "hadamard"),
    "vae-gan, black and white": ("vae-gan(steps={steps}, likelihood=bernoulli)", "gaussian"),
    "vae-gan, Hadamard prior": ("vae-gan(steps={steps}, likelihood=bernoulli)", "hadamard"),
    "text2image": ("text2image(steps={steps})", "gaussian"),
    "text2image, Hadamard prior": ("text2image(steps={steps})", "hadamard"),
    "vae-gan": ("vae-gan(steps={steps})", "gaussian"),
    "vae-gan, non-saturating": ("vae-gan(steps={steps}, loss=non-saturating)", "gaussian"),
    "cnn, grey": ("cnn(steps={steps}, likelihood=gaussian)", "gaussian"),
}
"""What is fitted by our encoders, under its name in the table."""
PEERS = ("Pythae VAE", "Pythae VAEGAN")
GREY = ("vae-gan", "vae-gan, non-saturating", "cnn, grey", "Pythae VAEGAN")


def ours(spec: str, name: str, folder: Path, steps: int, seed: int) -> float:
    """Fit into `folder`; seconds."""
    encoder, prior = FITS[name]
    begun = time.perf_counter()
    corecompress.fit(spec, encoder.format(steps=steps), prior, folder, seed=seed)
    return time.perf_counter() - begun


def theirs(pixels: torch.Tensor, name: str, like: Path, folder: Path, steps: int, seed: int) -> float:
    """Pythae's training of a new model with the networks of the fitted one `like`, as a checkpoint in `folder`; seconds."""
    from peers.pythae_vaes import train_vae, train_vae_gan

    encoder = open_fitted(like)
    torch.manual_seed(seed)
    fresh = ImageVae(encoder.model.config)
    train = train_vae if name == "Pythae VAE" else train_vae_gan
    data = (pixels > 0.5).float() if name == "Pythae VAE" else pixels
    begun = time.perf_counter()
    train(fresh, data, round(steps * BATCH / len(pixels)), BATCH, encoder.options.learning_rate, seed)
    seconds = time.perf_counter() - begun
    encoder.model.load_state_dict(fresh.state_dict())
    encoder.save(folder)
    shutil.copy(like / "encoder.json", folder)  # so that it opens like what `fit` makes
    return seconds


@torch.no_grad()
def bounds(encoder: ImageEncoder, batches: list[dict]) -> dict[str, float]:
    taken = [encoder.take(batch) for batch in batches[: JUDGED // BATCH]]
    found = judge(encoder.model.eval(), encoder.prior, taken, 32, 0)
    return {"−ELBO": found["-ELBO (nats a sample)"], "−ln p": found[LIKELIHOOD], "rate": found["rate (nats a sample)"]}


@torch.no_grad()
def looks(encoder: ImageEncoder, batches: list[dict], classifier: Classifier, real: np.ndarray) -> dict[str, float]:
    taken = [encoder.take(batch) for batch in batches]
    error = encoder.figures(taken)["squared error of a pixel"]
    drawn = classifier.body(pixels_of(encoder.generate(DRAWN, seed=0))).numpy()
    return {"pixel error": error, "Fréchet distance": frechet(real, drawn)}


def table(rows: dict[str, list[dict[str, float]]], columns: list[str]) -> list[str]:
    lines = []
    for name, found in rows.items():
        cells = []
        for column in columns:
            values = [row[column] for row in found]
            spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 and column != "parameters" else ""
            cells.append(f"{np.mean(values):,.4g}{spread}" if column != "parameters" else f"{values[0]:,.0f}")
        lines.append([name, *cells])
    return markdown(["", *columns], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=23333)
    parser.add_argument("--steps", type=int, default=938)
    parser.add_argument("--only", nargs="*", default=[*FITS, *PEERS])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    spec = f"captioned(split=official, images={asked.images}, batch={BATCH}):fashion"
    pixels, labels, _ = images_of(spec, "training", "calibration")
    tested, _, _ = images_of(spec, "evaluation")
    classifier = train_classifier(pixels, labels, epochs=4)
    with torch.no_grad():
        real = classifier.body(tested).numpy()
    half = len(real) // 2
    mean_image = float((tested - pixels.mean(0)).square().mean())
    batches = list(corecompress.open_data(spec).batches(0, "evaluation"))
    facts = {"pixel error of the mean image": mean_image, "Fréchet floor": frechet(real[:half], real[half:])}

    def trained(name: str, seed: int) -> tuple[Path, float]:
        folder = asked.out / f"{name}-{seed}".replace(" ", "-").replace(",", "")
        clock = folder.with_suffix(".seconds")
        if not clock.exists():
            if name in FITS:
                seconds = ours(spec, name, folder, asked.steps, seed)
            else:
                like, _ = trained("cnn" if name == "Pythae VAE" else "vae-gan", seed)
                seconds = theirs(pixels, name, like, folder, asked.steps, seed)
            clock.write_text(str(seconds))
        return folder, float(clock.read_text())

    measured: dict[str, list[dict[str, float]]] = {}
    for name in asked.only:
        for seed in asked.seeds:
            folder, seconds = trained(name, seed)
            encoder = open_fitted(folder)
            figures = looks(encoder, batches, classifier, real) if name in GREY else bounds(encoder, batches)
            parameters = sum(p.numel() for p in encoder.model.parameters())
            measured.setdefault(name, []).append({"parameters": parameters, **figures, "seconds": seconds})
            write_samples(encoder.generate(64, seed=seed), folder.with_suffix(".png"))
        report(asked.out, spec, facts, measured)


def report(out: Path, spec: str, facts: dict[str, float], measured: dict[str, list[dict[str, float]]]) -> None:
    lines = []
    for grey in (False, True):
        rows = {name: found for name, found in measured.items() if (name in GREY) == grey}
        if rows:
            lines += [*table(rows, list(next(iter(rows.values()))[0])), ""]
    lines += [f"{name}: {value:.4f}" for name, value in facts.items()]
    (out / "table.md").write_text("\n".join(lines) + "\n")
    (out / "results.json").write_text(json.dumps({"data": spec, **facts, "rows": measured}, indent=1))
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
