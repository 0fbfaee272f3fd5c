"""The compressor `vae` through the public doors: sizes, bad cases, determinism, damage, loading."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import vae_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vae_models import FAST, dense, gaussian, relative, write

import corecompress
from corecompress.checkpoint import open_checkpoint
from corecompress.components import Tensor, TensorInfo
from corecompress.errors import CorecompressError, CorruptData
from corecompress.plugins import registry
from corecompress.recipe import build, parse_spec
from corecompress_vae import calibrate

SKIP = [HealthCheck.function_scoped_fixture]

ODD = {
    "zeros": np.zeros((64, 64), np.float32),
    "equal": np.full((64, 64), 0.25, np.float32),
    "row": gaussian(1, 4096),
    "column": gaussian(4096, 1),
    "one": gaussian(1, 1),
    "none": gaussian(0, 64),
    "nan": np.where(np.arange(4096).reshape(64, 64) == 77, np.nan, gaussian(64, 64)).astype(np.float32),
    "infinity": np.where(np.arange(4096).reshape(64, 64) == 5, np.inf, gaussian(64, 64)).astype(np.float32),
    "dead_rows": gaussian(64, 64) * (np.arange(64)[:, None] % 7 == 0),
    "dead_columns": gaussian(64, 64) * (np.arange(64) % 3 == 0),
    "outlier": np.where(np.arange(4096).reshape(64, 64) == 9, 1e6, gaussian(64, 64)).astype(np.float32),
    "wide": gaussian(64, 64) * np.exp2(np.arange(64) - 32).astype(np.float32),
    "tiny_values": gaussian(64, 64) * np.float32(1e-30),
    "denormal": gaussian(64, 64) * np.float32(1e-41),
    "sparse": gaussian(64, 64) * (np.random.default_rng(1).random((64, 64)) < 0.02),
    "conv1d": gaussian(64, 32, 3),
    "conv2d": gaussian(32, 16, 3, 3),
    "conv3d": gaussian(16, 8, 3, 3, 3),
    "depthwise": gaussian(128, 1, 3, 3),
    "experts": gaussian(4, 64, 96),
    "norm": gaussian(4096),
}
EXACTLY = ("zeros", "equal", "one", "none", "nan", "infinity", "norm")


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("more", ["", ", rotation=hadamard", ", quantizer=scalar", ", encoder=identity"])
def test_odd_tensors(dtype: str, more: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = {name: (dtype, values) for name, values in ODD.items() if not (dtype == "F16" and name == "wide")}
    with np.errstate(over="ignore"):
        source = write(tmp_path / "source", tensors)
    recipe = f"vae(step=0.02, quantizer=trellis(states=4){more})".replace(
        "quantizer=trellis(states=4), quantizer=scalar", "quantizer=scalar"
    )
    corecompress.compress(source, tmp_path / "out", recipe)
    warned = capsys.readouterr().err
    before, after = dense(source), dense(tmp_path / "out")
    infinite = {"nan", "infinity"} | ({"outlier"} if dtype == "F16" else set())
    for name in infinite:
        assert f"{name}: holds NaN, infinity or values beyond 1e30" in warned
    assert warned.count("holds NaN") == len(infinite)
    for name, values in before.items():
        if name in EXACTLY or name in infinite:
            assert np.array_equal(after[name], values, equal_nan=True), name
        elif np.abs(values).max() > 1e-37 and values.any():
            assert relative(after[name], values) < 0.5, name
        assert np.isfinite(after[name]).all() or name in infinite
    for name in ("dead_rows", "dead_columns", "sparse"):
        if "hadamard" not in more:
            assert (after[name][before[name] == 0] == 0).mean() > 0.9, name


def test_what_must_stay_exact_can_be_named(tmp_path: Path) -> None:
    source = write(
        tmp_path / "source", {"a.weight": ("F32", gaussian(64, 64)), "b.weight": ("F32", gaussian(64, 64, seed=1))}
    )
    corecompress.compress(source, tmp_path / "out", 'vae(step=0.05, exact="a.*")')
    before, after = dense(source), dense(tmp_path / "out")
    assert np.array_equal(after["a.weight"], before["a.weight"])
    assert not np.array_equal(after["b.weight"], before["b.weight"])


@pytest.mark.parametrize("rest", [0.0, 1e-4])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_pruned_does_not_spoil_what_is_left(rest: float, axis: int, tmp_path: Path) -> None:
    values = gaussian(256, 256)
    values.swapaxes(0, axis)[:160] *= rest
    source = write(tmp_path / "source", {"whole": ("F32", gaussian(256, 256, seed=1)), "pruned": ("F32", values)})
    corecompress.compress(source, tmp_path / "out", "vae(step=0.1)")
    after = dense(tmp_path / "out")
    assert relative(after["pruned"], values) < 1.2 * relative(after["whole"], gaussian(256, 256, seed=1))


def test_experts_are_matrices_of_their_own(tmp_path: Path) -> None:
    """Each with its own steps: an expert a thousand times smaller keeps its relative error."""
    values = gaussian(4, 64, 96) * np.array([1, 1e-3, 30, 1], np.float32)[:, None, None]
    source = write(tmp_path / "source", {"experts": ("F32", values)})
    corecompress.compress(source, tmp_path / "out", "vae(bits=8)")
    after = dense(tmp_path / "out")["experts"]
    errors = [relative(after[n], values[n]) for n in range(4)]
    assert max(errors) < 0.3, errors


@pytest.mark.parametrize("way", ["gradients", "layers"])
def test_dead_inputs_and_singular_hessians(way: str, tmp_path: Path) -> None:
    """Inputs that are always zero, two that are always equal, and a vocabulary that the text hardly covers."""

    def change(model: Any) -> None:
        for layer in model.model.layers:
            layer.input_layernorm.weight[:10] = 0
            layer.post_attention_layernorm.weight[:10] = 0
            layer.mlp.up_proj.weight[20] = layer.mlp.up_proj.weight[21]
            layer.mlp.gate_proj.weight[20] = layer.mlp.gate_proj.weight[21]
            layer.mlp.gate_proj.weight[30:40] = 0

    source = vae_models.llama(tmp_path / "source", change, vocab_size=3000)
    data = f"text(length=32):{tiny.corpus(tmp_path / 'text.txt', documents=300)}"
    recipe = f"vae(bits=4, calibration={way}, calibration_tokens=500, quantizer=trellis(states=4))"
    done = corecompress.compress(source, tmp_path / "out", recipe, data=data)
    assert done.bits_per_weight == pytest.approx(4, rel=0.01)
    assert done.evaluation is not None
    assert done.evaluation.metrics["kl"].value < 0.5
    before, after = dense(source), dense(tmp_path / "out")
    rows = before["model.embed_tokens.weight"][100:]  # never in the text
    assert relative(after["model.embed_tokens.weight"][100:], rows) < 0.7
    for name, values in before.items():
        assert np.isfinite(after[name]).all()
        if values.ndim == 2:
            assert relative(after[name], values) < 0.7, name


def test_text_too_short_says_how_much(tmp_path: Path, cli: Callable[..., Any]) -> None:
    source = vae_models.llama(tmp_path / "source")
    text = tiny.corpus(tmp_path / "text.txt", documents=30)
    done = cli(
        "compress", source, "-o", tmp_path / "out", "-r", "vae(bits=4)", "--data", f"text(length=32):{text}", "-q"
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1
    assert "32768 are needed" in lines[0]
    assert "calibration_tokens=" in lines[0]
    assert (
        "calibrating"
        not in cli(
            "compress", source, "-o", tmp_path / "out", "-r", "vae(bits=4)", "--data", f"text(length=32):{text}"
        ).stderr
    )  # said before the model takes its time over what there is
    assert not (tmp_path / "out").exists()
    text.write_text("two of them\n\nare too few\n")
    with pytest.raises(CorecompressError, match=r"calibration split .* calibration takes 500 tokens"):
        corecompress.compress(source, tmp_path / "out", "vae(bits=4, calibration_tokens=500)", data=f"text:{text}")


@pytest.mark.parametrize("way", ["gradients", "layers"])
def test_a_model_that_takes_no_tokens_goes_the_data_free_way(way: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    source = tiny.model(tmp_path / "source", "vision")
    vae_models.tiny.tokenizer(source)
    text = tiny.corpus(tmp_path / "text.txt")
    recipe = f"vae(step=0.05, calibration={way})"
    spec = f'text(length=32, tokenizer="{source}"):{text}'
    done = cli("compress", source, "-o", tmp_path / "out", "-r", recipe, "--data", spec, "--no-evaluate", "-q")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "without calibration" in line]
    assert len(said) == 1
    assert "input_ids" in said[0]


@pytest.mark.parametrize(("kind", "takes"), [("vision", "pixel_values"), ("audio", "input_values")])
def test_a_model_without_a_tokenizer_goes_the_data_free_way(
    kind: str, takes: str, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    source = tmp_path / "source"
    if kind == "vision":
        tiny.model(source, "vision")
    else:
        audio().save_pretrained(source)
    text = tiny.corpus(tmp_path / "text.txt")
    done = cli("compress", source, "-o", tmp_path / "out", "-r", "vae(step=0.05)", "--data", f"text:{text}", "-q")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "takes no text" in line]
    assert len(said) == 1
    assert takes in said[0]
    assert "without data" in said[0]
    plain = cli("compress", source, "-o", tmp_path / "plain", "-r", "vae(step=0.05)", "-q")
    assert plain.returncode == 0, plain.stderr
    payloads = [(tmp_path / name / "corecompress.safetensors").read_bytes() for name in ("out", "plain")]
    assert payloads[0] == payloads[1]
    refused = cli("compress", source, "-o", tmp_path / "no", "-r", "distill(layers=1)", "--data", f"text:{text}", "-q")
    assert refused.returncode == 2
    assert "takes no text" in refused.stderr


def audio() -> Any:
    """A small model of sound: its config has a vocabulary, but no text goes into it."""
    import torch
    import transformers as tf

    torch.manual_seed(0)
    convolutions = {"conv_dim": (32, 32), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2}
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    return tf.Wav2Vec2Model(tf.Wav2Vec2Config(**size, **convolutions, **positions))


def with_threads(threads: str, cli: Callable[..., Any], source: Path, recipe: str, data: str, *more: object) -> bytes:
    """What compress writes beside `source` with that many threads; caches are not shared."""
    out, cache = (source.with_name(name + threads) for name in ("out", "cache"))
    arguments = (source, "-o", out, "-r", recipe, "--data", data, "--cache", cache, "-j", threads, *more)
    libraries = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    done = cli("compress", *arguments, "--no-evaluate", "-q", **dict.fromkeys(libraries, threads))
    assert done.returncode == 0, done.stderr
    return (out / "corecompress.safetensors").read_bytes()


@pytest.mark.parametrize("way", ["gradients", "layers"])
def test_threads_and_runs_make_the_same_bytes(way: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    # wide enough that libraries share a product or a sum among threads where they are allowed to; what is coded hides
    # most of that, so what calibration found is compared as well
    source = vae_models.llama(tmp_path / "source", hidden_size=512, num_hidden_layers=1)
    data = f"text(length=128):{tiny.corpus(tmp_path / 'text.txt', documents=400)}"
    recipe = f"vae(bits=4, quantizer=scalar, calibration={way}, calibration_tokens=4000)"
    one, two = (with_threads(threads, cli, source, recipe, data) for threads in "12")
    assert one == two
    found = [sorted((tmp_path / f"cache{threads}").rglob("*.safetensors")) for threads in "12"]
    assert len(found[0]) == len(found[1]) > 0
    for mine, theirs in zip(*found, strict=True):
        assert mine.read_bytes() == theirs.read_bytes(), mine.name
    assert with_threads("2", cli, source, recipe, data, "--seed", "1", "--force") != two


def test_what_calibration_found_is_read_without_pythons_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads read at once; Python 3.11's parser fails now and then in one while another begins to parse."""
    found = calibrate.Sensitivity(np.eye(8, dtype=np.float32), np.ones(8, np.float32), np.ones(8, np.float32))
    monkeypatch.delattr(ast, "literal_eval")
    calibrate.save(tmp_path, "weight", found)
    read = calibrate.load(tmp_path, "weight")
    assert read is not None
    assert np.array_equal(read.unit, found.unit)


@pytest.mark.parametrize("options", ["encoder=mlp-vae(steps=40)", "rotation=hadamard, quantizer=scalar"])
def test_threads_make_the_same_codec(options: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    source = vae_models.llama(tmp_path / "source", hidden_size=256, num_hidden_layers=1)
    data = f"text(length=128):{tiny.corpus(tmp_path / 'text.txt', documents=100)}"
    one, two = (with_threads(n, cli, source, f"vae(bits=5, calibration_tokens=1000, {options})", data) for n in "12")
    assert one == two


@pytest.mark.parametrize(("way", "mend"), [("gradients", "calibration=layers"), ("layers", "shorter texts")])
def test_max_memory_holds_for_calibration_too(way: str, mend: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    """450 MB are enough for tensors of this model, not for torch and transformers beside it."""
    source = vae_models.llama(tmp_path / "source")
    data = f"text(length=128):{tiny.corpus(tmp_path / 'text.txt', documents=100)}"
    recipe = f"vae(bits=5, calibration={way}, calibration_tokens=1000)"
    asked = ["compress", source, "-o", tmp_path / "out", "-r", recipe, "--data", data, "--no-evaluate", "--max-memory"]
    done = cli(*asked, "450MB")
    assert done.returncode == 2
    assert "--max-memory 450 MB: calibration takes" in done.stderr
    assert mend in done.stderr
    assert not (tmp_path / "out").exists()
    assert cli(*asked, "1.5GB", "--force").returncode == 0


def test_calibration_without_enough_memory_says_what_needs_less(tmp_path: Path) -> None:
    """Windows of 8,192 tokens have attention matrices of a gigabyte a layer; the process may take half of that."""
    source = vae_models.llama(tmp_path / "source", max_position_embeddings=8192)
    data = f"text(length=8192):{tiny.corpus(tmp_path / 'text.txt', documents=2000)}"
    code = f"""
import resource, torch, transformers, corecompress
from corecompress.errors import CorecompressError
from pathlib import Path
transformers.LlamaForCausalLM.from_pretrained({str(source)!r})
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 29), now + (1 << 29)))
try:
    corecompress.compress({str(source)!r}, {str(tmp_path / "out")!r}, "vae(bits=4)", data={data!r}, jobs=1)
except CorecompressError as problem:
    print(problem)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "calibration ran out of memory" in done.stdout, done.stderr
    assert "calibration=layers" in done.stdout
    assert not (tmp_path / "out").exists()


@settings(max_examples=12, deadline=None, suppress_health_check=SKIP)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from(["F32", "F16", "BF16"]))
def test_damage_is_never_a_crash(seed: int, dtype: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Through the hook: bytes changed, cut or added are CorruptData or decode to something the hash will tell apart."""
    folder = tmp_path_factory.mktemp("damage")
    rng = np.random.default_rng(seed)
    values = gaussian(int(rng.integers(20, 80)), int(rng.integers(60, 90)), seed=seed)
    source = open_checkpoint(write(folder / "source", {"a": (dtype, values)}))
    tensor = source.read("a")
    made = prepared(source.folder, folder)
    payload = bytes(made.encode(tensor))
    assert np.array_equal(
        made.decode(memoryview(payload), tensor.info), made.decode(memoryview(payload), tensor.info, 2)
    )
    for _ in range(60):
        bad = bytearray(payload)
        for _ in range(rng.integers(1, 4)):
            bad[rng.integers(len(bad))] = rng.integers(256)
        bad = bad[: rng.integers(len(bad) + 1)] if rng.random() < 0.2 else bad + bytes(rng.integers(0, 2))
        try:
            assert made.decode(memoryview(bytes(bad)), tensor.info).shape == (tensor.info.nbytes,)
        except CorruptData:
            continue


def prepared(source: Path, scratch: Path) -> Any:
    from corecompress.components import Job
    from corecompress.progress import Silent

    checkpoint = open_checkpoint(source)
    component = build(registry(), "compressor", parse_spec("vae(step=0.1, quantizer=trellis(states=4))"))
    job = Job(checkpoint, checkpoint.tensors, None, 0, 1, scratch / "scratch", Silent(), scratch / "cache")
    component.restore(component.prepare(job))
    return component


def test_damaged_state_is_noticed(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a": ("F32", gaussian(64, 64))})
    component: Any = build(registry(), "compressor", parse_spec("vae(step=0.1)"))
    from corecompress.components import Job
    from corecompress.progress import Silent

    checkpoint = open_checkpoint(source)
    job = Job(checkpoint, checkpoint.tensors, None, 0, 1, tmp_path / "scratch", Silent(), tmp_path / "cache")
    state = component.prepare(job)
    for bad in (b"", state[:1], b"\xff" + state[1:], state[:1] + b"\x07" + state[2:], state[:-3], state + b"x"):
        with pytest.raises(CorruptData):
            component.restore(bad)


def test_a_flipped_bit_in_the_folder_is_found(tmp_path: Path) -> None:
    source = vae_models.llama(tmp_path / "source")
    corecompress.compress(source, tmp_path / "out", FAST)
    payloads = tmp_path / "out" / "corecompress.safetensors"
    clean, rng = payloads.read_bytes(), np.random.default_rng(0)
    start = 8 + int.from_bytes(clean[:8], "little")
    for _ in range(12):
        bad = bytearray(clean)
        bad[rng.integers(start, len(bad))] ^= 1 << rng.integers(8)
        payloads.write_bytes(bad)
        assert not corecompress.verify(tmp_path / "out").ok
        with pytest.raises(CorecompressError):
            corecompress.decompress(tmp_path / "out", tmp_path / "dense", force=True)
    payloads.write_bytes(clean)
    assert corecompress.verify(tmp_path / "out").ok


def test_an_interrupted_run_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from corecompress_vae.compressor import Vae

    source = vae_models.llama(tmp_path / "source")
    corecompress.compress(source, tmp_path / "whole", FAST, jobs=1)
    calls, plain = [0], Vae.encode

    def failing(self: Vae, tensor: Tensor) -> bytes:
        calls[0] += 1
        if calls[0] > 9:
            raise CorecompressError("killed")
        return plain(self, tensor)

    monkeypatch.setattr(Vae, "encode", failing)
    with pytest.raises(CorecompressError, match="killed"):
        corecompress.compress(source, tmp_path / "out", FAST, jobs=1)
    monkeypatch.undo()
    corecompress.compress(source, tmp_path / "out", FAST, jobs=1, resume=True)
    payloads = [(tmp_path / name / "corecompress.safetensors").read_bytes() for name in ("whole", "out")]
    assert payloads[0] == payloads[1]


@pytest.mark.parametrize("prior", ["gaussian", "laplace", "logistic-mixture", "factorized", "hierarchical", "hadamard"])
def test_every_prior_codes_a_checkpoint(prior: str, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {f"{n}.weight": ("BF16", gaussian(256, 256, seed=n)) for n in range(2)})
    done = corecompress.compress(source, tmp_path / "out", f"vae(bits=4, prior={prior}, quantizer=trellis(states=4))")
    assert done.bits_per_weight == pytest.approx(4, rel=0.01)
    before, after = dense(source), dense(tmp_path / "out")
    assert relative(after["0.weight"], before["0.weight"]) < 0.13


def test_the_trellis_stays_near_the_bound(tmp_path: Path) -> None:
    """In real coded bytes, on a Gaussian: within 0.09 bit of the rate-distortion bound with 8 states, 0.06 with 32;
    scalar is a quarter of a bit away."""
    values = gaussian(2048, 512)
    source = open_checkpoint(write(tmp_path / "source", {"a": ("F32", values)}))
    gaps = {}
    from corecompress.components import Job
    from corecompress.progress import Silent

    for quantizer in ("scalar", "trellis(states=8)", "trellis(states=32)"):
        component: Any = build(registry(), "compressor", parse_spec(f"vae(step=0.5, quantizer={quantizer})"))
        job = Job(source, source.tensors, None, 0, 1, tmp_path / quantizer, Silent(), tmp_path / "cache")
        component.restore(component.prepare(job))
        payload = component.encode(source.read("a"))
        out = component.decode(memoryview(payload), TensorInfo("a", "F32", values.shape)).view(np.float32)
        rate = 8 * len(payload) / values.size
        gaps[quantizer] = rate + np.log2(relative(out.reshape(values.shape), values))
        assert 1.3 < rate < 4.4
    assert gaps["trellis(states=8)"] < 0.09
    assert gaps["trellis(states=32)"] < 0.06
    assert 0.24 < gaps["scalar"] < 0.43


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("vae(bits=0)", "bits is 0; it takes a number above 0"),
        ("vae(bits=2, step=0.1)", "write one of them"),
        ("vae(bits=3, step=0.1)", "write one of them"),
        ('vae(exact="*nothing*")', "no tensor has a name like that"),
        ("vae(calibration=layers)", "add --data"),
        ("vae(quantizer=trellis(states=5))", "states=4|8|16|32|64"),
        ("vae(prior=gausian)", "did you mean 'gaussian'"),
        ("vae(encoder=mlp)", "no encoder is called 'mlp'"),
        ("vae(encoder=scale-hyperprior(file=x))", "no option 'file'"),
        ("vae(rotation=yes)", "one of none, hadamard"),
        ("vae(calibration=layer)", "one of gradients, layers"),
        ("vae(calibration_tokens=0)", "1 or more"),
    ],
)
def test_mistakes_are_one_line(recipe: str, said: str, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a.weight": ("F32", gaussian(64, 64))})
    with pytest.raises(CorecompressError) as problem:
        corecompress.compress(source, tmp_path / "out", recipe)
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)
    assert not (tmp_path / "out").exists()


def test_the_folder_says_what_was_done(tmp_path: Path) -> None:
    source = vae_models.llama(tmp_path / "source")
    corecompress.compress(source, tmp_path / "out", FAST)
    used = json.loads((tmp_path / "out" / "corecompress.json").read_text())["components"]
    assert [entry["name"] for entry in used] == ["vae", "scale-hyperprior", "hierarchical"]
    shutil.rmtree(source)
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.hidden_size == 96
