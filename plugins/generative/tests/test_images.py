"""Image VAEs from the command line to a compressed folder, on handwritten digits."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import COMMAND, weights_of_both
from PIL import Image

import corecompress
from corecompress.errors import CorecompressError
from corecompress.generation import open_fitted
from corecompress.plugins import registry
from corecompress.recipe import build, parse_spec
from corecompress_generative.density import log_density, log_normal
from corecompress_generative.images.likelihood import LEVELS, log_likelihood, log_logistic, means, outputs_of

DIGITS = "captioned(batch=64, calibration=0.1, evaluation=0.02):digits"
SMALL = {
    "cnn": "cnn(steps=60, channels=8, hidden=64, latents=8, batch=64)",
    "nvae": "nvae(steps=20, channels=8, maps=2, groups=1, cells=1, batch=32)",
    "vae-gan": "vae-gan(steps=30, channels=8, hidden=64, latents=8, batch=32, begin=0.5)",
    "text2image": "text2image(steps=30, channels=8, hidden=64, latents=8, batch=32, begin=0.5)",
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "cnn"
    corecompress.fit(DIGITS, "cnn(steps=400, channels=8, hidden=64, latents=8)", "gaussian", folder)
    return folder


def test_a_fitted_vae_is_better_than_independent_pixels(fitted: Path) -> None:
    figures = json.loads((fitted / "encoder.json").read_text())["figures"]
    pixels = np.concatenate([b["pixel_values"] for b in corecompress.open_data(DIGITS).batches(0, "evaluation")]) > 0.5
    share = pixels.mean(0).clip(1e-3, 1 - 1e-3)
    alone = -(share * np.log(share) + (1 - share) * np.log(1 - share)).sum()
    assert figures["-log-likelihood, 32 importance weights (nats a sample)"] < 0.8 * alone
    assert figures["-log-likelihood, 32 importance weights (nats a sample)"] < figures["-ELBO (nats a sample)"]
    assert figures["active units"] == "8 of 8"
    assert figures["squared error of a pixel"] < 0.06


def test_sheets_before_and_after_compression(fitted: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    # half of it is files: at 8 bits the error is 0.2, a machine's rounding more or less
    corecompress.compress(fitted, small, "vae(bits=10)")
    drawn = []
    for folder in (fitted, small):
        out = tmp_path / f"{folder.name}-new"
        done = subprocess.run([COMMAND, "generate", folder, "-n", "5", "-o", out], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in out.iterdir()) == [*(f"{n:05d}.png" for n in range(5)), "sheet.png"]
        drawn.append(np.stack([np.asarray(Image.open(out / f"{n:05d}.png")) for n in range(5)]).astype(int))
        pairs = tmp_path / f"{folder.name}.png"
        corecompress.reconstruct(folder, DIGITS, pairs, n=20)
        assert Image.open(pairs).size == (16 * 58 + 2, 4 * 58 + 2)
    assert drawn[0].shape == (5, 28, 28, 3)
    assert drawn[0].std() > 30
    assert np.abs(drawn[0] - drawn[1]).mean() < 12
    found = corecompress.evaluate(fitted, small, DIGITS, samples=64)
    assert 0 < found.metrics["relative_error"].value < 0.1
    nll = found.metrics["nll"]
    assert nll.original is not None
    assert nll.original < nll.value < nll.original + 5  # nats of an image of 784 pixels


def test_calibration_on_its_own_images_pays(fitted: Path, tmp_path: Path) -> None:
    errors = []
    for data in (None, DIGITS):
        small = tmp_path / f"calibrated-{data is not None}"
        corecompress.compress(fitted, small, "vae(bits=8)", data=data, evaluated=False)
        errors.append(corecompress.evaluate(fitted, small, DIGITS, samples=64).metrics["relative_error"].value)
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("encoder", ["nvae", "vae-gan", "text2image"])
def test_the_others_learn_are_loaded_and_draw(encoder: str, tmp_path: Path) -> None:
    found = corecompress.fit(DIGITS, SMALL[encoder], "gaussian", tmp_path / "model", seed=1)
    assert math.isfinite(found.figures["the same, bits a value"])
    code = (
        "import sys; from transformers import AutoModel; print(type(AutoModel.from_pretrained(sys.argv[1])).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True)
    assert done.stdout.strip() in ("ImageVae", "Nvae"), done.stderr[-300:]
    encoder_ = open_fitted(tmp_path / "model")
    samples = encoder_.generate(4, seed=2)
    assert all(sample.image.shape == (28, 28, 1) for sample in samples)
    assert len({sample.image.tobytes() for sample in samples}) == 4


@pytest.mark.parametrize(
    "encoder",
    ["vae-gan", *(pytest.param(name, marks=pytest.mark.slow) for name in ("nvae", "text2image"))],
)
def test_a_killed_training_of_images_resumes_to_the_same_bytes(encoder: str, tmp_path: Path) -> None:
    """The game of two players too: a discriminator is not only its weights."""
    spec = (
        SMALL[encoder].replace("begin=0.5", "begin=0").replace("steps=30", "steps=60").replace("steps=20", "steps=60")
    )
    whole, resumed = weights_of_both(DIGITS, spec, tmp_path)
    assert whole == resumed


@pytest.mark.parametrize("prior", ["hadamard", "laplace", "hierarchical", "gan(steps=10)"])
def test_nvae_and_cnn_under_other_priors(prior: str, tmp_path: Path) -> None:
    for encoder in ("cnn", "nvae"):
        found = corecompress.fit(DIGITS, SMALL[encoder], prior, tmp_path / encoder)
        assert math.isfinite(found.figures["-ELBO (nats a sample)"])
        opened = open_fitted(tmp_path / encoder)
        assert len(opened.generate(2)) == 2
        pixels = torch.linspace(0, 1, 784).view(1, 1, 28, 28)
        with torch.no_grad():  # black and white is all that a Bernoulli synthesis is asked for, and its analysis told
            grey, black = (opened.model.posterior({"pixel_values": x})[0] for x in (pixels, (pixels > 0.5).float()))
        assert torch.equal(grey, black)
    assert json.loads((tmp_path / "nvae" / "config.json").read_text())["options"]["conditional"] == (
        prior == "hierarchical"
    )


def test_the_rate_of_groups_is_the_mean_of_its_estimate(tmp_path: Path) -> None:
    corecompress.fit(DIGITS, SMALL["nvae"], "hierarchical", tmp_path / "model")
    encoder = open_fitted(tmp_path / "model")
    batch = encoder.take(next(iter(corecompress.open_data(DIGITS).batches(0, "evaluation"))))
    one = {"pixel_values": batch["pixel_values"][:1].expand(4000, -1, -1, -1)}
    torch.manual_seed(0)
    with torch.no_grad():
        mean, log_deviation, unit, _ = encoder.model._down(one["pixel_values"], noise=True)
        estimate = (log_normal(unit, mean, log_deviation) - log_density(encoder.prior, unit)).sum(1).mean()
        rate, _, _ = encoder.model.terms(one, encoder.prior)
    assert float(rate.sum(1).mean()) == pytest.approx(float(estimate), rel=0.03)


@settings(max_examples=40, deadline=None)
@given(st.floats(-0.2, 1.2), st.floats(-4.9, 2))
def test_a_discretised_logistic_sums_to_one(mean: float, log_scale: float) -> None:
    levels = torch.arange(LEVELS, dtype=torch.float64) / (LEVELS - 1)
    mass = log_logistic(torch.tensor(mean).double(), torch.tensor(log_scale).double(), levels).exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-6)


@given(st.integers(0, 10**6), st.floats(0.1, 5))
def test_a_mixture_of_logistics_sums_to_one(seed: int, width: float) -> None:
    """Whatever a synthesis says: 256 images of a pixel each, one for every level."""
    levels = (torch.arange(LEVELS, dtype=torch.float64) / (LEVELS - 1)).view(-1, 1, 1, 1)
    said = width * torch.randn(1, outputs_of("logistic-mixture"), 1, 1, generator=torch.Generator().manual_seed(seed))
    mass = log_likelihood("logistic-mixture", said.double().expand(LEVELS, -1, -1, -1), levels).exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-6)
    mean = means("logistic-mixture", said)
    assert mean.shape == (1, 1, 1, 1)
    assert 0 < float(mean) < 1


@pytest.mark.parametrize("encoder", ["cnn", "nvae"])
def test_a_mixture_of_logistics_is_learned(encoder: str, tmp_path: Path) -> None:
    """Levels of grey of eight bits, mostly ink or paper: far fewer than eight bits."""
    spec = SMALL[encoder].replace("(", "(likelihood=logistic-mixture, ", 1)
    found = corecompress.fit(DIGITS, spec, "gaussian", tmp_path / "model")
    assert found.figures["the same, bits a value"] < 4
    sample, *_ = open_fitted(tmp_path / "model").generate(2)
    assert sample.image.shape == (28, 28, 1)


def test_the_likelihoods_are_what_they_say() -> None:
    pixels, said = torch.rand(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    black = torch.distributions.Bernoulli(logits=said).log_prob((pixels > 0.5).float()).flatten(1).sum(1)
    assert torch.allclose(log_likelihood("bernoulli", said, pixels), black, atol=1e-5)
    width = torch.tensor(-1.2)
    normal = torch.distributions.Normal(torch.sigmoid(said), width.exp()).log_prob(pixels) - math.log(256)
    assert torch.allclose(log_likelihood("gaussian", said, pixels, width), normal.flatten(1).sum(1), atol=1e-4)


@pytest.mark.parametrize("reader", ["gru", "lstm"])
def test_a_prompt_says_what_is_drawn(reader: str, tmp_path: Path) -> None:
    encoder = SMALL["text2image"].replace("begin=", f"captions={reader}, begin=")
    corecompress.fit(DIGITS, encoder, "gaussian", tmp_path / "model")
    encoder = open_fitted(tmp_path / "model")
    assert any(f"captions.{reader}." in name for name in encoder.model.state_dict())
    one, other = (encoder.generate(6, prompt=f"a handwritten {word}", seed=1) for word in ("one", "zero"))
    assert any(a.image.tobytes() != b.image.tobytes() for a, b in zip(one, other, strict=True))


def test_words_that_no_caption_has_are_named_with_the_nearest(tmp_path: Path) -> None:
    corecompress.fit(DIGITS, SMALL["text2image"], "gaussian", tmp_path / "model")
    prompts = (
        ("a handwritten sevn", "the nearest are seven"),
        ("七", "they are like “"),
        ("a handwriten sevn", "the nearest"),
    )
    for prompt, said in prompts:
        done = subprocess.run(
            [COMMAND, "generate", tmp_path / "model", "--prompt", prompt, "-o", tmp_path / "x"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert f"'{prompt.split()[-1]}' is no word of the captions; {said}" in done.stderr
        assert ("'handwriten' is no word" in done.stderr) == ("handwriten" in prompt)
        assert not (tmp_path / "x").exists()


def test_bad_images_are_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, size in (("odd", 30), ("plain", 28)):
        (tmp_path / name).mkdir()
        for n in range(12):
            Image.fromarray(rng.integers(0, 255, (size, size), np.uint8)).save(tmp_path / name / f"{n}.png")
    cases = {
        (SMALL["cnn"], f"captioned:{tmp_path / 'odd'}"): r"30 × 30, .* write captioned\(size=32\)",
        (SMALL["text2image"], f"captioned:{tmp_path / 'plain'}"): "images without captions; give metadata.jsonl",
        (SMALL["cnn"], "text(form=sentences):demo"): "sees images: write captioned:DIR",
        (SMALL["cnn"].replace("latents=8", "latents=0"), DIGITS): "latents is 0",
    }
    for (encoder, data), said in cases.items():
        with pytest.raises(CorecompressError, match=said) as problem:
            corecompress.fit(data, encoder, "gaussian", tmp_path / "model")
        assert "\n" not in str(problem.value)
        assert not (tmp_path / "model").exists()
    with pytest.raises(CorecompressError, match=r"fitted without captions|no such folder"):
        corecompress.generate(tmp_path / "none", tmp_path / "x", prompt="a")


def test_a_prior_is_named_where_it_matters() -> None:
    assert getattr(build(registry(), "prior", parse_spec("hierarchical")), "conditional", False)
    assert not getattr(build(registry(), "prior", parse_spec("gaussian")), "conditional", False)
