"""Checks of encoders that become generative models. Each is fitted once, as its example says, under a Gaussian."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from corecompress import api
from corecompress.components import GenerativeEncoder, Sample
from corecompress.errors import CorecompressError
from corecompress.generation import open_fitted
from corecompress.testing import fresh
from corecompress.testing.kit import Subject, check, need

PRIOR = "gaussian"
"""What it is fitted under; of the bundled plugin corecompress-vae."""


def fit(spec: str, data: str, folder: str) -> dict[str, Any]:
    """Fit it into `folder`, seed 3: its figures."""
    return dict(api.fit(data, spec, PRIOR, folder, seed=3, force=True).figures)


def fitted(subject: Subject) -> Path:
    """The folder of all checks."""

    def make() -> Path:
        need(subject.data, f"its example, {subject.example!r}, has no --data behind it to be fitted on")
        folder = subject.place("fitted")
        subject.kept["figures"] = fit(str(subject.spec), subject.data or "", str(folder))
        return folder

    return subject.once("folder", make)


def digest(samples: list[Sample]) -> str:
    """SHA-256 of samples."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(repr((sample.text, sample.caption)).encode())
        found.update(b"" if sample.image is None else repr(sample.image.shape).encode() + sample.image.tobytes())
    return found.hexdigest()


def weights_digest(folder: Path) -> str:
    """SHA-256 of its weight files."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()


def drawn(folder: Path, n: int, seed: int) -> list[Sample]:
    """n samples of a fitted folder."""
    return open_fitted(folder).generate(n, seed=seed)


@check("fits", "it learns from its example's data, into an ordinary checkpoint", "generative")
def fits(subject: Subject) -> str:
    folder = fitted(subject)
    need((folder / "config.json").is_file(), "no config.json is written")
    need(list(folder.glob("*.safetensors")), "no safetensors file is written")
    need(not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pkl")), "it writes pickles")
    figures = {name: value for name, value in subject.kept["figures"].items() if isinstance(value, float)}
    need(figures, "fit returns no figures that a person could read")
    wrong = [name for name, value in figures.items() if not math.isfinite(value)]
    need(not wrong, f"the figure '{wrong[:1]}' is not finite")
    return f"{sum(path.stat().st_size for path in folder.iterdir()):,} bytes"


@check("repeats", "the same data and seed give the same weights, in another process as well", "generative")
def repeats(subject: Subject) -> None:
    mine, other = weights_digest(fitted(subject)), subject.place("other")
    fresh.call(
        "corecompress.testing.generative:fit", spec=str(subject.spec), data=subject.data or "", folder=str(other)
    )
    need(weights_digest(other) == mine, "its weights differ there")


@check("loads", "plain from_pretrained loads it in another process, without an import of the plugin", "generative")
def loads(subject: Subject) -> str:
    found = fresh.call("corecompress.testing.generative:load_plainly", folder=str(fitted(subject)))
    need(found["parameters"] > 0, "what is loaded has no parameters")
    return f"{found['class']}, {found['parameters']:,} parameters"


def load_plainly(folder: str) -> dict[str, Any]:
    """In another process: what AutoModel makes of the folder."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder)
    return {"class": type(model).__name__, "parameters": sum(p.numel() for p in model.parameters())}


@check("generates", "new samples are as many as asked for, and the same for the same seed", "generative")
def generates(subject: Subject) -> str:
    folder = fitted(subject)
    samples = drawn(folder, 5, 1)
    need(len(samples) == 5, f"asked for 5 samples, it gives {len(samples)}")
    need(all((one.text is None) != (one.image is None) for one in samples), "a sample is neither a text nor an image")
    need(digest(drawn(folder, 5, 1)) == digest(samples), "the same seed draws something else")
    return "images" if samples[0].text is None else f"texts, the first {samples[0].text!r}"


@check("reconstructs", "every sample of a batch has its reconstruction beside it", "generative")
def reconstructs(subject: Subject) -> None:
    encoder: GenerativeEncoder = open_fitted(fitted(subject))
    batch = next(iter(api.open_data(subject.data or "").batches(0, "evaluation")))
    pairs, n = encoder.reconstruct(batch), len(next(iter(batch.values())))
    need(len(pairs) == n, f"a batch of {n} has {len(pairs)} reconstructions")
    for one, other in pairs:
        need((one.text is None) == (other.text is None), "a text is reconstructed as an image, or the other way round")


@check("compresses", "losslessly compressed, it draws the very same samples", "generative")
def compresses(subject: Subject) -> None:
    folder, small = fitted(subject), subject.place("small")
    api.compress(folder, small, "lossless")
    need(digest(drawn(small, 3, 1)) == digest(drawn(folder, 3, 1)), "it draws something else after compression")


@check("refuses", "data of another kind, and a prompt that it can't follow, are an error of one line", "generative")
def refuses(subject: Subject) -> str:
    said = []
    sample = drawn(fitted(subject), 1, 0)[0]
    other = "captioned:digits" if sample.text is not None else "text(form=sentences):demo"
    try:
        api.fit(other, str(subject.spec), PRIOR, subject.place("wrong"), seed=3)
    except CorecompressError as problem:
        said.append(str(problem))
    need(said, f"it fits on {other}, which is no data for it")
    need("\n" not in said[0], "the error has more than one line")
    return said[0]
