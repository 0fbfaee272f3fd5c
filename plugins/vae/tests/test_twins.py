"""Tensors that stand in several places of a model, stored once or twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import vae_models
from safetensors.numpy import load_file, save_file
from vae_models import FAST, dense, relative

import corecompress
from corecompress.artifact import Artifact


def test_a_tied_table_is_coded_once(tmp_path: Path) -> None:
    source = vae_models.llama(tmp_path / "source", tie_word_embeddings=True)
    done = corecompress.compress(source, tmp_path / "out", FAST)
    names = [row.name for row in done.tensors]
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert np.array_equal(
        model.lm_head.weight.detach().float().numpy(), dense(tmp_path / "out")["model.embed_tokens.weight"]
    )


@pytest.mark.parametrize("way", ["none", "gradients", "layers"])
def test_a_tied_table_that_is_stored_twice_is_coded_as_one_that_is_stored_once(way: str, tmp_path: Path) -> None:
    """Its sensitivity is found by whichever name the model knows, and bits a weight are counted over it once."""
    once = vae_models.llama(tmp_path / "once", tie_word_embeddings=True)
    twice = tmp_path / "twice"
    shutil.copytree(once, twice)
    tensors = load_file(once / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    save_file({**tensors, "lm_head.weight": table.copy()}, twice / "model.safetensors", {"format": "pt"})
    data = f"text(length=32):{tiny.corpus(tmp_path / 'text.txt', documents=300)}" if way != "none" else None
    more = f", calibration={way}, calibration_tokens=500" if data else ""
    coded, parameters = {}, set()
    recipe = f"vae(%s{more}, quantizer=trellis(states=4))"
    for source in (once, twice):
        out = tmp_path / f"{source.name}, coded"
        done = corecompress.compress(source, out, recipe % "step=0.2", data=data, evaluated=False)
        parameters.add(done.parameters)
        coded[source.name] = {record.name: record for record in Artifact(out).manifest.tensors}
    sized = corecompress.compress(twice, tmp_path / "sized", recipe % "bits=7", data=data, evaluated=False)
    assert sized.bits_per_weight == pytest.approx(7, rel=0.01)
    assert len(parameters) == 1
    assert coded["twice"]["model.embed_tokens.weight"].same_as == "lm_head.weight"
    hashes = {name: record.payload_sha256 for name, record in coded["twice"].items()}
    hashes["model.embed_tokens.weight"] = hashes.pop("lm_head.weight")
    assert hashes == {name: record.payload_sha256 for name, record in coded["once"].items()}


@pytest.mark.parametrize("way", ["gradients", "layers"])
def test_a_model_with_blocks_that_are_the_same(way: str, tmp_path: Path) -> None:
    """As merges have them: such weights are stored once, so no block can have them corrected for itself alone."""

    def change(model: Any) -> None:
        model.model.layers[2].load_state_dict(model.model.layers[0].state_dict())

    source = vae_models.llama(tmp_path / "source", change)
    data = f"text(length=32):{tiny.corpus(tmp_path / 'text.txt', documents=300)}"
    recipe = f"vae(bits=7, calibration={way}, calibration_tokens=500, quantizer=trellis(states=4))"
    done = corecompress.compress(source, tmp_path / "out", recipe, data=data)
    assert done.bits_per_weight == pytest.approx(7, rel=0.01)
    assert done.evaluation is not None
    assert done.evaluation.metrics["kl"].value < 0.1
    before, after = dense(source), dense(tmp_path / "out")
    assert np.array_equal(after["model.layers.0.mlp.up_proj.weight"], after["model.layers.2.mlp.up_proj.weight"])
    for name, values in before.items():
        assert relative(after[name], values) < 0.2, name
