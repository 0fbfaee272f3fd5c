"""Blocks that make up for what coding did before them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import vae_models
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import corecompress
from corecompress.checkpoint import open_checkpoint
from corecompress_vae import sequential
from corecompress_vae.least_squares import Moments, correction
from corecompress_vae.skeleton import Walk
from corecompress_vae.stages import BEHIND, Stage, stages_of

LLAMA = [
    Stage(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.q_proj", True),
    Stage(("self_attn.o_proj",), "post_attention_layernorm", False, "self_attn"),
    Stage(("mlp.gate_proj", "mlp.up_proj"), "mlp.gate_proj", True),
    Stage(("mlp.down_proj",), BEHIND, False, "mlp"),
]
STAGES = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "gpt2": [
        Stage(("attn.c_attn",), "attn.c_attn", True),
        Stage(("attn.c_proj",), "ln_2", False, "attn"),
        Stage(("mlp.c_fc",), "mlp.c_fc", True),
        Stage(("mlp.c_proj",), BEHIND, False, "mlp"),
    ],
    "bert": [
        Stage(("attention.self.query", "attention.self.key", "attention.self.value"), "attention.self.query", True),
        Stage(("attention.output.dense",), "attention.output.LayerNorm", False),
        Stage(("intermediate.dense",), "intermediate.dense", True),
        Stage(("output.dense",), "output.LayerNorm", False),
    ],
}


@pytest.mark.parametrize("kind", STAGES)
def test_layers_are_corrected_where_what_they_write_is_read(kind: str, tmp_path: Path) -> None:
    model = vae_models.built(kind)
    model.save_pretrained(tmp_path)
    walk = Walk(open_checkpoint(tmp_path))
    ids = torch.randint(5, 60, (2, 20))
    with torch.no_grad():
        walk.fill(None)
        walk.fill(0)
        hidden, calls = walk.front({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        step = partial(walk.step, 0, hidden, calls[0])
        found = stages_of(walk.blocks[0], step, torch.Generator().manual_seed(0))
    assert found == STAGES[kind]
    for stage in found:
        made = stage.returned(hidden)
        if stage.owner.endswith("attn"):
            first, other = made
            assert first is hidden
            assert other is None
        else:
            assert made is hidden


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(2, 60), st.floats(0, 3), st.integers(0, 2**32 - 1))
def test_no_correction_makes_unseen_errors_larger(n: int, o: int, t: int, noise: float, seed: int) -> None:
    """However few the samples and however small the part of an error that can be foretold."""
    generator = torch.Generator().manual_seed(seed)
    x, w = torch.randn(2, t, n, generator=generator), torch.rand(2, t, generator=generator)
    e = x @ torch.randn(n, o, generator=generator) + noise * torch.randn(2, t, o, generator=generator)
    fitted, held = (Moments.of(x[part], e[part], w[part], torch.float32) for part in range(2))
    change = correction(fitted, held, 1)

    def error(c: torch.Tensor) -> float:
        return float(((e[1] - x[1] @ c.T).square().sum(1) * w[1]).sum())

    before = error(torch.zeros(o, n))
    if change is not None:
        assert error(change) <= before * (1 + 1e-4)
    if noise == 0 and t >= 4 * n and before > 0:
        assert change is not None
        assert error(change) < 0.3 * before


def test_hidden_states_behind_a_block_are_what_the_coded_block_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though what is settled in it is not run again."""
    folder, text = vae_models.llama(tmp_path / "model"), tiny.corpus(tmp_path / "text.txt", 400)
    one = sequential._Sequence
    block, keep, settled = one._block, one._keep, one._settled
    coded, compared, modules = dict[str, Any](), list[float](), list[str]()

    def comparing(self: Any, number: int) -> None:
        before = [self.current.read(place) for place in range(len(self.masks))]
        block(self, number)
        self.mixed.coded.update(coded)
        self._fill(number, coded=True)
        for place, hidden in enumerate(before):
            own = self.walk.step(number, hidden, self.calls[place][number])
            compared.append(float((self.current.read(place) - own).norm() / (own - hidden).norm()))

    def keeping(self: Any, name: str, weights: Any) -> None:
        keep(self, name, weights)
        coded[name] = self.mixed.coded[name]

    def noting(self: Any, number: int, stage: Stage, inputs: Any) -> Any:
        modules.append(stage.owner)
        name, layer = self._stored(number, *stage.paths), self.walk.blocks[number].get_submodule(*stage.paths)
        assert not np.array_equal(layer.weight.numpy().reshape(-1), self.source.read(name).data.view(np.float32))
        return settled(self, number, stage, inputs)

    monkeypatch.setattr(sequential, "fast_dtype", lambda: torch.float32)
    monkeypatch.setattr(one, "_block", comparing)
    monkeypatch.setattr(one, "_keep", keeping)
    monkeypatch.setattr(one, "_settled", noting)
    recipe, data = "vae(bits=4, calibration_tokens=1000)", f"text(length={vae_models.LENGTH}):{text}"
    corecompress.compress(folder, tmp_path / "out", recipe, data=data, evaluated=False)
    assert modules == ["self_attn", "mlp"] * vae_models.SIZE["num_hidden_layers"]
    assert len(compared) > 4
    assert max(compared) < 1e-4


def test_a_block_that_bfloat16_fails_in_is_coded_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    folder, text = vae_models.llama(tmp_path / "model"), tiny.corpus(tmp_path / "text.txt", 400)
    forward, failed, payloads = LlamaMLP.forward, list[int](), []

    def failing(self: Any, x: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            failed.append(1)
            raise RuntimeError("expected m1 and m2 to have the same dtype")
        return forward(self, x)

    monkeypatch.setattr(LlamaMLP, "forward", failing)
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(sequential, "fast_dtype", lambda dtype=dtype: dtype)
        out, data = tmp_path / str(dtype), f"text(length={vae_models.LENGTH}):{text}"
        recipe = "vae(bits=4, quantizer=trellis(states=4), calibration_tokens=1000)"
        corecompress.compress(folder, out, recipe, data=data, evaluated=False)
        payloads.append((out / "corecompress.safetensors").read_bytes())
    assert len(failed) == 1
    assert payloads[0] == payloads[1]


def test_errors_on_unseen_text_are_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, text = vae_models.llama(tmp_path / "model"), tiny.corpus(tmp_path / "text.txt", 400)
    found, data = {}, f"text(length={vae_models.LENGTH}):{text}"
    for name in ("corrected", "plain"):
        out = tmp_path / name
        recipe = "vae(bits=4, quantizer=trellis(states=4), calibration_tokens=4000)"
        corecompress.compress(folder, out, recipe, data=data, evaluated=False)
        found[name] = corecompress.evaluate(folder, out, data).metrics["kl"].value
        monkeypatch.setattr(sequential, "code_in_order", lambda *args: None)
    assert found["corrected"] < 0.95 * found["plain"]


def test_a_matrix_that_is_kept_exactly_makes_up_for_nothing(tmp_path: Path) -> None:
    """All equal, it takes no room; with a correction it would take as much as any other."""
    folder, text = vae_models.llama(tmp_path / "model"), tiny.corpus(tmp_path / "text.txt", 400)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    names = ["model.layers.0.mlp.gate_proj.weight", "model.layers.1.self_attn.o_proj.weight"]
    for name, value in zip(names, (0.25, 0.0), strict=True):
        tensors[name].fill(value)
    save_file(tensors, path, {"format": "pt"})
    data, recipe = f"text(length={vae_models.LENGTH}):{text}", "vae(bits=5, calibration_tokens=1000)"
    corecompress.compress(folder, tmp_path / "out", recipe, data=data, evaluated=False)
    report = corecompress.inspect(tmp_path / "out")
    assert all(row.bytes < 100 for row in report.tensors if row.name in names)
    assert abs(report.bytes - 5 / 8 * sum(t.size for t in tensors.values())) < 2000
    corecompress.decompress(tmp_path / "out", tmp_path / "dense")
    restored = load_file(tmp_path / "dense" / "model.safetensors")
    assert all(np.array_equal(restored[name], tensors[name]) for name in names)


def test_what_is_no_stack_of_blocks_is_coded_without_and_a_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, text = vae_models.save(vae_models.built("t5"), tmp_path / "model"), tiny.corpus(tmp_path / "text.txt")
    data, recipe = f"text(length={vae_models.LENGTH}):{text}", "vae(bits=10, calibration_tokens=500)"
    corecompress.compress(folder, tmp_path / "out", recipe, data=data, evaluated=False)
    assert "no single stack of blocks of one class, so layers don't make up for each" in capsys.readouterr().err
