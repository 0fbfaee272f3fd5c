"""Encoders, and `corecompress fit`: training them on a checkpoint's weights and using the result on another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import tiny
import vae_models
from hypothesis import given, settings
from hypothesis import strategies as st

import corecompress
from corecompress.api import fit, open_data
from corecompress.errors import CorecompressError
from corecompress.plugins import registry
from corecompress.progress import Silent
from corecompress.recipe import build, parse_spec

NAMES = ("identity", "scale-hyperprior", "mlp-vae")
SHORT = "mlp-vae(steps=120, hidden=16)"


def encoder(spec: str) -> Any:
    return build(registry(), "encoder", parse_spec(spec))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two matrices, 0.2 million weights."""
    entries = [("a.weight", "F32", (512, 256)), ("b.weight", "BF16", (256, 300)), ("norm.weight", "F32", (256,))]
    return checkpoints.write_checkpoint(tmp_path_factory.mktemp("source") / "model", [checkpoints.weights(*entries)])


@pytest.fixture(scope="module")
def codec(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("codec") / "codec"
    fit(f"weights:{source}", SHORT, "factorized", out)
    return out


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 200))
def test_what_is_encoded_is_decoded(name: str, seed: int, n: int) -> None:
    made = encoder(name)
    x = np.random.default_rng(seed).standard_normal((n, 16)).astype(np.float32)
    latents = np.asarray(made.encode(x))
    back = np.asarray(made.decode(latents))
    assert back.shape == x.shape
    assert back.dtype == x.dtype
    if name != "mlp-vae":  # whose networks are no inverses of one another before they are trained together
        assert np.allclose(back, x, atol=1e-5)
    other = encoder(name)
    other.load_state_dict({key: np.array(value) for key, value in made.state_dict().items()})
    assert np.array_equal(np.asarray(other.encode(x)), latents)
    parts = [np.asarray(made.encode(x[:1])), np.asarray(made.encode(x[1:]))]
    assert np.allclose(np.concatenate(parts), latents, atol=1e-6)


def test_scale_codes_are_bytes_and_take_scales_out(source: Path) -> None:
    made = encoder("scale-hyperprior")
    made.fit(open_data(f"weights:{source}"), None, progress=Silent())
    x = np.exp(np.random.default_rng(0).uniform(-12, 4, (100, 1))) * np.random.default_rng(1).standard_normal((100, 16))
    latents = made.encode(x.astype(np.float32))
    codes = latents[:, 0]
    assert np.array_equal(codes, np.rint(codes))
    assert codes.min() >= 0
    assert codes.max() <= 255
    assert np.allclose(np.sqrt((latents[:, 1:] ** 2).mean(1)), 1, rtol=0.1)
    zeros = made.encode(np.zeros((2, 16), np.float32))
    assert np.array_equal(made.decode(zeros), np.zeros((2, 16)))


def test_weights_as_data(source: Path) -> None:
    data = open_data(f"weights(chunk=8, batch=500):{source}")
    seen = {split: list(data.batches(3, split)) for split in ("training", "evaluation", "calibration")}
    documents = [set(np.concatenate([batch["document"] for batch in batches]).tolist()) for batches in seen.values()]
    assert not documents[0] & documents[1] | documents[0] & documents[2] | documents[1] & documents[2]
    total = sum(len(batch["x"]) for batches in seen.values() for batch in batches)
    assert total == 512 * 256 // 8 + 256 * -(-300 // 8)
    assert all(batch["x"].shape[1] == 8 and batch["x"].dtype == np.float32 for batch in seen["training"])
    again = list(data.batches(3, "training", start=2))
    assert np.array_equal(again[0]["x"], seen["training"][2]["x"])
    other = next(iter(data.batches(4, "training")))
    assert not np.array_equal(other["x"], seen["training"][0]["x"])
    assert float(np.mean([np.mean(batch["x"] ** 2) for batch in seen["training"]])) == pytest.approx(1, abs=0.1)


def test_fit_learns_writes_and_tells(source: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    arguments = ("fit", "--data", f"weights:{source}", "--encoder", SHORT, "--prior", "laplace", "-o")
    done = cli(*arguments, tmp_path / "a", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["figures"]["steps"] == 120
    assert 2 < said["figures"]["held out: bits a weight"] < 5
    assert said["bytes"] == sum(path.stat().st_size for path in (tmp_path / "a").iterdir())
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"encoder.json", "encoder.safetensors"}
    record = json.loads((tmp_path / "a" / "encoder.json").read_text())
    assert (record["encoder"], record["prior"], record["seed"]) == ("mlp-vae", "laplace", 0)
    quiet = cli(*arguments, tmp_path / "b", "--quiet")
    assert quiet.returncode == 0
    assert quiet.stdout == quiet.stderr == ""
    for name in ("encoder.json", "encoder.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), "same seed, same bytes"


def test_a_training_that_ran_out_of_time_goes_on_and_ends_the_same(source: Path, codec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CorecompressError, match="--resume to go on"):
        fit(f"weights:{source}", SHORT, "factorized", out, target_loss=0.01, max_minutes=0.0005)
    assert not out.exists()
    with pytest.raises(CorecompressError, match="unfinished run"):
        fit(f"weights:{source}", SHORT, "factorized", out)
    with pytest.raises(CorecompressError, match="begun with another encoder options"):
        fit(f"weights:{source}", "mlp-vae(steps=130, hidden=16)", "factorized", out, resume=True)
    fit(f"weights:{source}", SHORT, "factorized", out, resume=True)
    for name in ("encoder.json", "encoder.safetensors"):
        assert (out / name).read_bytes() == (codec / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_target_stops_the_training_or_is_an_error(source: Path, tmp_path: Path) -> None:
    done = fit(f"weights:{source}", "mlp-vae(steps=4000, hidden=16)", "laplace", tmp_path / "a", target_loss=5.5)
    assert 50 < done.figures["steps"] < 4000
    assert done.figures["loss"] <= 5.5
    with pytest.raises(CorecompressError, match=r"0\.1 was not reached in 60 steps"):
        fit(f"weights:{source}", "mlp-vae(steps=60, hidden=8)", "laplace", tmp_path / "b", target_loss=0.1)
    timed = fit(f"weights:{source}", "mlp-vae(steps=4000)", "laplace", tmp_path / "c", max_minutes=0.01)
    assert timed.figures["steps"] < 4000
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}


@pytest.mark.parametrize(
    ("data", "encoder", "prior", "said"),
    [
        ("weights(chunk=8):SOURCE", SHORT, "laplace", "write weights(chunk=16)"),
        ("weights:SOURCE/none", SHORT, "laplace", "no such folder"),
        ("weights:SOURCE", "mlp-va", "laplace", "did you mean 'mlp-vae'"),
        ("weights:SOURCE", "mlp-vae(hiden=3)", "laplace", "did you mean 'hidden'"),
        ("weights:SOURCE", SHORT, "laplac", "did you mean 'laplace'"),
        ("weights:SOURCE", "mlp-vae(bits=40)", "laplace", "0.1 to 12"),
        ("text(length=16):TEXT", SHORT, "laplace", "write weights:DIR"),
        ("text(length=16):TEXT", "scale-hyperprior", "laplace", "weights:DIR"),
    ],
)
def test_mistakes_are_one_line(
    data: str, encoder: str, prior: str, said: str, source: Path, tmp_path: Path, minilm: Path
) -> None:
    text = tiny.corpus(tmp_path / "text.txt")
    spec = data.replace("SOURCE", str(source)).replace("TEXT", str(text))
    if data.startswith("text"):
        spec = spec.replace("length=16", f'length=16, tokenizer="{minilm}"')
    with pytest.raises(CorecompressError) as problem:
        fit(spec, encoder, prior, tmp_path / "out")
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_an_output_that_exists_is_kept_unless_forced(source: Path, codec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fit(f"weights:{source}", "identity", "laplace", out)
    with pytest.raises(CorecompressError, match="exists already"):
        fit(f"weights:{source}", "scale-hyperprior", "laplace", out)
    fit(f"weights:{source}", "scale-hyperprior", "laplace", out, force=True)
    assert json.loads((out / "encoder.json").read_text())["encoder"] == "scale-hyperprior"


def test_a_codec_is_used_on_another_checkpoint_and_counted(codec: Path, tmp_path: Path) -> None:
    model = vae_models.llama(tmp_path / "model")
    done = corecompress.compress(model, tmp_path / "out", f'vae(bits=5, encoder=mlp-vae(file="{codec}"))')
    assert done.bits_per_weight == pytest.approx(5, rel=0.01)
    assert done.bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    payloads = (tmp_path / "out" / "corecompress.safetensors").read_bytes()
    assert b"synthesis.gain" in payloads, "the networks that decode are in the folder, and so in its size"
    corecompress.compress(model, tmp_path / "again", f'vae(bits=5, encoder=mlp-vae(file="{codec}"))')
    assert (tmp_path / "again" / "corecompress.safetensors").read_bytes() == payloads
    codec.rename(codec.with_name("moved"))  # what was compressed needs it no longer
    try:
        corecompress.decompress(tmp_path / "out", tmp_path / "dense")
    finally:
        codec.with_name("moved").rename(codec)
    assert (tmp_path / "dense" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "encoder.json").unlink(), "is no fitted encoder"),
        (lambda folder: (folder / "encoder.json").write_text("{}"), "is no fitted encoder"),
        (lambda folder: (folder / "encoder.safetensors").write_bytes(b"x"), "is damaged"),
    ],
)
def test_a_damaged_codec_is_refused(
    damage: Callable[[Path], Any], said: str, codec: Path, source: Path, tmp_path: Path
) -> None:
    import shutil

    mine = shutil.copytree(codec, tmp_path / "codec")
    damage(mine)
    with pytest.raises(CorecompressError, match=said):
        corecompress.compress(source, tmp_path / "out", f'vae(step=0.1, encoder=mlp-vae(file="{mine}"))')
    with pytest.raises(CorecompressError, match="no option"):
        corecompress.compress(source, tmp_path / "out2", f'vae(encoder=identity(file="{codec}"))')
