"""Calibration block by block: it walks the families that it says, in bounded memory, and finds what gradients find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import tiny
import vae_models
from safetensors.numpy import load_file, save_file

from corecompress.checkpoint import open_checkpoint
from corecompress.errors import CorecompressError
from corecompress_vae import calibrate, layerwise
from corecompress_vae.skeleton import Walk


@pytest.mark.parametrize(
    "kind",
    ["llama", "llama, tied", "qwen2", "gemma3", "gpt2", "gpt-neox", "bert", "bert, masked", "roberta", "mixtral"],
)
def test_a_walk_is_the_models_own_forward(kind: str, tmp_path: Path) -> None:
    """Padding, sliding windows, rotary positions, a head under another name, experts that are stacked on loading: bit
    for bit, with a block at a time."""
    import torch

    model = vae_models.built(kind)
    if kind == "mixtral":
        model.set_experts_implementation("eager")
    model.save_pretrained(tmp_path)
    ids, mask = torch.randint(5, 60, (3, 20)), torch.ones(3, 20, dtype=torch.long)
    mask[1, 12:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    walk = Walk(open_checkpoint(tmp_path))
    assert all(value.is_meta for value in walk.model.parameters())
    with torch.no_grad():
        walk.fill(None)
        walk.fill(0)
        hidden, calls = walk.enter(inputs)
        walk.drain(None)
        walk.drain(0)
        for number in range(1, len(walk.blocks)):
            walk.fill(number)
            hidden = walk.step(number, hidden, calls[number - 1])
            walk.drain(number)
            assert all(value.is_meta for value in walk.model.parameters())
        expected = model(**inputs)
        if walk.head is None:
            assert torch.equal(hidden[mask.bool()], expected.last_hidden_state[mask.bool()])
            return
        walk.fill(None)
        logits = walk.head(walk.leave(inputs, hidden))
    assert torch.equal(logits[mask.bool()], expected.logits[mask.bool()])


@pytest.mark.parametrize(
    ("kind", "why"), [("albert", "more than once"), ("t5", "no single stack"), ("llama", "has no tensor")]
)
def test_what_can_not_be_walked_is_said(
    kind: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = vae_models.built(kind)
    folder = vae_models.save(model, tmp_path / "model")
    if why == "has no tensor":
        file = folder / "model.safetensors"
        save_file({name: value for name, value in load_file(file).items() if name != "model.norm.weight"}, file)
    text = tiny.corpus(tmp_path / "text.txt")
    job = vae_models.job_of(folder, text, tmp_path)
    capsys.readouterr()
    assert layerwise.calibrate(job, 500) is None
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert why in said[0]
    assert "without calibration" in said[0]


@pytest.mark.parametrize("tied", [False, True])
def test_it_finds_what_gradients_find(tied: bool, tmp_path: Path) -> None:
    """Steps of columns as gradients of the loss give them, but for one factor; every matrix looked at by both."""
    folder = vae_models.llama(tmp_path / "model", tie_word_embeddings=tied)
    job = vae_models.job_of(folder, tiny.corpus(tmp_path / "text.txt"), tmp_path)
    mine, theirs = layerwise.calibrate(job, 2000), calibrate.calibrate(job, 2000)
    assert mine is not None
    assert theirs is not None
    assert layerwise.calibrate(job, 2000) == mine, "a second run uses the first one's"
    offsets, fed = [], set[str]()
    for info in job.source.tensors:
        a, b = calibrate.load(mine, info.name), calibrate.load(theirs, info.name)
        assert (a is None) == (b is None) == (len(info.shape) < 2), info.name
        if a is None or b is None:
            continue
        first, second = np.log2(a.steps), np.log2(b.steps)
        offsets.append(first.mean() - second.mean())
        assert np.std((first - first.mean()) - (second - second.mean())) < 0.3, info.name
        assert np.isfinite(a.unit).all()
        assert np.allclose(np.diag(a.unit), 1)
        for one in (a, b):
            if one.row_unit is None:
                assert one.rows.mean() == pytest.approx(1, abs=0.01)
                continue
            # what errors of a row cost when those behind it make up for them: less than alone
            fed.add(info.name.split(".")[-2])
            assert 0.1 < one.rows.mean() < 1
            assert np.array_equal(one.row_unit, np.triu(one.row_unit))
            assert np.allclose(np.diagonal(one.row_unit, axis1=1, axis2=2), 1)
    assert np.std(offsets) < 1.0
    assert {"q_proj", "k_proj"} <= fed
    assert not list((tmp_path / "scratch").iterdir()), "hidden states go when they are no longer needed"


def test_the_same_seed_finds_the_same(tmp_path: Path) -> None:
    folder, text = vae_models.llama(tmp_path / "model"), tiny.corpus(tmp_path / "text.txt")
    found = [layerwise.calibrate(vae_models.job_of(folder, text, tmp_path / part), 600) for part in ("a", "b")]
    assert all(found)
    for info in open_checkpoint(folder).tensors:
        a, b = (calibrate.load(part, info.name) for part in found if part is not None)
        assert (a is None and b is None) or (a is not None and b is not None and np.array_equal(a.unit, b.unit))


def test_too_little_text_says_how_much_is_needed(tmp_path: Path) -> None:
    folder, text = vae_models.llama(tmp_path / "model"), tiny.corpus(tmp_path / "text.txt", documents=20)
    with pytest.raises(CorecompressError, match=r"tokens and 50000 are needed"):
        layerwise.calibrate(vae_models.job_of(folder, text, tmp_path), 50_000)


PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
def test_a_model_larger_than_memory(tmp_path: Path) -> None:
    """A Llama of 1.85 GB in float32 is calibrated and compressed in less than 1.5 GB, whatever the number of its
    blocks. About fifteen minutes of one core."""
    layers = 36
    matrices = {
        **{f"self_attn.{name}_proj": (1024, 1024) for name in "qkvo"},
        **{f"mlp.{name}_proj": (2816, 1024) for name in ("gate", "up")},
        "mlp.down_proj": (1024, 2816),
    }
    norm = np.ones(1024, "<f4").view(np.uint8)
    shards: list[Any] = []
    for layer in range(layers):
        entries = [(f"model.layers.{layer}.{name}.weight", "F32", shape) for name, shape in matrices.items()]
        shard = checkpoints.weights(*entries, seed=10 * layer)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shard[f"model.layers.{layer}.{name}.weight"] = ("F32", (1024,), norm)
        shards.append(shard)
    shards[0] |= checkpoints.weights(("model.embed_tokens.weight", "F32", (64, 1024)), seed=1)
    shards[0]["model.norm.weight"] = ("F32", (1024,), norm)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{"vocab_size": 64, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": layers},
        **{"num_attention_heads": 16, "tie_word_embeddings": True, "bos_token_id": 2, "eos_token_id": 3},
    }
    source = checkpoints.write_checkpoint(tmp_path / "source", shards, config)
    del shards
    tiny.tokenizer(source)
    limit = 1_500_000_000
    assert sum(path.stat().st_size for path in source.iterdir()) > 1.2 * limit
    recipe = "vae(bits=4, calibration=layers, calibration_tokens=2048, quantizer=trellis(states=4))"
    command = [Path(sys.executable).with_name("corecompress"), "compress", source, "-o", tmp_path / "out", "-r", recipe]
    more = [
        "--data",
        f"text:{tiny.corpus(tmp_path / 'text.txt')}",
        "--max-memory",
        limit,
        "--no-evaluate",
        "-q",
        "-j",
        1,
    ]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, [*command, *more])], capture_output=True, text=True, check=True
    )
    peak = int(done.stdout) * 1024
    print(f"peak {peak / 1e6:.0f} MB of a checkpoint of {layers} blocks")
    assert peak < limit
