"""Calibration of models whose tables, inputs or configurations are not like everybody's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import vae_models
from hypothesis import given, settings
from hypothesis import strategies as st
from vae_models import LENGTH

import corecompress
from corecompress.checkpoint import open_checkpoint
from corecompress_vae import calibrate, passes

NARROW = {"vocab_size": 64, "d_model": 96, "max_position_embeddings": 128}
LAYERS = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
BOTH_HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
START = {"decoder_start_token_id": 2, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
POSITIONS = {"bart": (2, LENGTH // 2), "pegasus": (0, LENGTH // 2), "opt": (2, LENGTH)}
"""Rows in front of the first position, and positions: an encoder-decoder reads one half and writes the other."""


def built(kind: str, **more: Any) -> Any:
    import torch
    import transformers as tf

    torch.manual_seed(0)
    if kind == "opt":
        size = {"hidden_size": 96, "word_embed_proj_dim": 96, "ffn_dim": 64, "num_hidden_layers": 1}
        return tf.OPTForCausalLM(
            tf.OPTConfig(vocab_size=64, max_position_embeddings=128, num_attention_heads=4, **size)
        )
    if kind == "t5":
        size = {"d_model": 96, "d_kv": 24, "d_ff": 64, "num_layers": 1, "num_heads": 4}
        return tf.T5ForConditionalGeneration(tf.T5Config(vocab_size=64, **size))
    name = {"bart": "Bart", "marian": "Marian", "pegasus": "Pegasus"}[kind]
    config = getattr(tf, f"{name}Config")(**NARROW, **LAYERS, **BOTH_HEADS, **START, **more)
    return getattr(tf, "MarianMTModel" if kind == "marian" else f"{name}ForConditionalGeneration")(config)


def found_for(folder: Path, tmp_path: Path) -> dict[str, calibrate.Sensitivity | None]:
    """What calibration finds of every tensor."""
    text = tiny.corpus(tmp_path / "text.txt", documents=300)
    job = vae_models.job_of(folder, text, tmp_path)
    kept = calibrate.calibrate(job, 2000)
    assert kept is not None
    return {info.name: calibrate.load(kept, info.name) for info in job.tensors}


@pytest.mark.parametrize("kind", ["bart", "marian", "opt", "pegasus", "t5"])
def test_every_matrix_of_it_is_calibrated(kind: str, tmp_path: Path) -> None:
    """Tables that take a mask (opt) or tokens (bart) and look up positions, or a shape (pegasus, marian), or are a bias
    (t5)."""
    source = vae_models.save(built(kind), tmp_path / "model")
    found = found_for(source, tmp_path)
    for info in open_checkpoint(source).tensors:
        assert found[info.name] is not None or len(info.shape) < 2 or info.size < 1024, info.name
    for name, one in found.items():
        if one is None or "embed_positions" not in name:
            continue
        before, read = POSITIONS[kind]
        counted = np.flatnonzero(one.rows > 1.5 * one.rows.min())
        assert counted.tolist() == list(range(before, before + read)), name
    text = tmp_path / "text.txt"
    recipe = "vae(bits=9, calibration_tokens=1000, quantizer=trellis(states=4))"
    done = corecompress.compress(source, tmp_path / "out", recipe, data=f"text(length={LENGTH}):{text}")
    assert done.evaluation is not None
    assert done.evaluation.metrics["kl"].value < 0.1


def test_a_scaled_table_is_calibrated_behind_its_scale(tmp_path: Path) -> None:
    """What comes out of a lookup is multiplied by √width: an error in the table costs width times as much."""
    costs = {}
    for scaled in (False, True):
        model = built("bart", scale_embedding=scaled, tie_word_embeddings=False)
        if scaled:
            for half in (model.model.encoder, model.model.decoder):
                half.embed_tokens.weight.data /= 96**0.5  # so that both are the same function
        folder = vae_models.save(model, tmp_path / f"scaled-{scaled}")
        (tmp_path / str(scaled)).mkdir()
        one = found_for(folder, tmp_path / str(scaled))["model.encoder.embed_tokens.weight"]
        assert one is not None
        costs[scaled] = float(np.exp(-2 * np.log(one.steps).mean()))
    assert costs[True] / costs[False] == pytest.approx(96, rel=0.05)


def mixture(kind: str, hidden: bool = False) -> Any:
    """A small language model with 4 experts, whose predictions are sharp; hidden: the router never asks the first."""
    import torch
    import transformers as tf

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 96, "num_hidden_layers": 2, "head_dim": 24, "intermediate_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "initializer_range": 0.15}
    if kind == "qwen":
        experts = {"moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2}
        return tf.Qwen3MoeForCausalLM(tf.Qwen3MoeConfig(**sizes, **heads, **ends, **experts))
    if kind == "llama4":
        return tf.Llama4ForCausalLM(
            tf.Llama4TextConfig(**sizes, **heads, **ends, intermediate_size_mlp=64, num_local_experts=4)
        )
    config = tf.GptOssConfig(**sizes, **heads, **ends, num_local_experts=4, num_experts_per_tok=2, sliding_window=16)
    model = tf.GptOssForCausalLM(config)
    for layer in model.model.layers if hidden else []:
        layer.mlp.router.bias.data[0] = -1e4
    return model


@pytest.mark.parametrize(
    ("kind", "way"), [("qwen", "gradients"), ("qwen", "layers"), ("gpt-oss", "gradients"), ("llama4", "layers")]
)
def test_experts_are_calibrated_each_by_what_it_is_asked(kind: str, way: str, tmp_path: Path) -> None:
    """Stored one by one and stacked on loading (qwen); a stack with inputs as rows (gpt-oss), all used at once, behind
    a router that is a linear layer and returns two things (llama4)."""
    source = vae_models.save(mixture(kind), tmp_path / "model")
    data = f"text(length={LENGTH}):{tiny.corpus(tmp_path / 'text.txt', documents=300)}"
    found = {}
    for calibration in (None, data):
        recipe = "vae(bits=6, quantizer=trellis(states=4)"
        recipe += ")" if calibration is None else f", calibration={way}, calibration_tokens=4000)"
        out = tmp_path / f"calibrated-{calibration is not None}"
        corecompress.compress(source, out, recipe, data=calibration, evaluated=False)
        found[calibration is not None] = corecompress.evaluate(source, out, data, samples=8).metrics["kl"].value
    assert found[True] < found[False] / 3


def test_an_expert_s_matrices_are_found_where_they_are_stored(tmp_path: Path) -> None:
    source = vae_models.save(mixture("qwen"), tmp_path / "model")
    found = found_for(source, tmp_path)
    assert all(
        found[info.name] is not None
        for info in open_checkpoint(source).tensors
        if len(info.shape) > 1 and info.size >= 1024
    )
    steps = {}
    for name, one in found.items():
        if one is not None and ".experts." in name:
            assert one.rows.shape[0] == (96 if "down_proj" in name else 64)
            steps[name] = one.steps.tobytes()
    for name, own in steps.items():  # gate and up of an expert have the same inputs, and nothing else has
        same = {other for other in steps if steps[other] == own}
        partner = name.replace("gate_proj", "up_proj") if "gate" in name else name.replace("up_proj", "gate_proj")
        assert same == {name, partner}


def test_an_expert_that_no_token_asks_weighs_little(tmp_path: Path) -> None:
    source = vae_models.save(mixture("gpt-oss", hidden=True), tmp_path / "model")
    job = vae_models.job_of(source, tiny.corpus(tmp_path / "text.txt", documents=300), tmp_path)
    kept = calibrate.calibrate(job, 2000)
    assert kept is not None
    name = "model.layers.1.mlp.experts.down_proj"
    steps = []
    for number in range(4):
        one = calibrate.load(kept, name, number)
        assert one is not None
        assert one.turned
        assert np.isfinite(one.unit).all()
        steps.append(float(np.exp(np.log(one.steps).mean())))
    assert steps[0] == max(steps)
    assert steps[0] < 10 * min(steps)


def test_a_forward_that_bfloat16_fails_in_is_calibrated_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import transformers as tf

    monkeypatch.setattr(passes, "fast_dtype", lambda: torch.bfloat16)
    source = vae_models.save(
        tf.XLNetLMHeadModel(tf.XLNetConfig(vocab_size=64, d_model=96, n_layer=1, n_head=4, d_inner=128)), tmp_path / "a"
    )
    assert found_for(source, tmp_path)["transformer.layer.0.ff.layer_1.weight"] is not None


@pytest.mark.parametrize("way", ["gradients", "layers"])
def test_a_forward_that_fails_without_images_goes_the_data_free_way(
    way: str, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    import transformers as tf

    tower = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = tf.CLIPConfig(
        text_config={**tower, "vocab_size": 64, "max_position_embeddings": 64, "bos_token_id": 2, "eos_token_id": 3},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    source = vae_models.save(tf.CLIPModel(config), tmp_path / "source")
    text = tiny.corpus(tmp_path / "text.txt")
    recipe = f"vae(step=0.05, calibration={way}, calibration_tokens=200)"
    data = f"text(length={LENGTH}):{text}"
    done = cli("compress", source, "-o", tmp_path / "out", "-r", recipe, "--data", data, "--no-evaluate", "-q")
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line]
    assert "its forward can't run" in said
    assert "without calibration" in said


IMAGES = "captioned(images=600):digits"


def sees(kind: str) -> Any:
    """A small model of 28 × 28 grey pixels: linear layers, convolutions, or depthwise ones and both."""
    import torch
    import transformers as tf

    torch.manual_seed(0)
    grey: dict[str, Any] = {"num_channels": 1, "num_labels": 10}
    if kind == "vit":
        size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        return tf.ViTForImageClassification(tf.ViTConfig(image_size=28, patch_size=7, **size, **grey))
    stages: dict[str, Any] = {"hidden_sizes": [32, 64], "depths": [1, 1], **grey}
    if kind == "resnet":
        return tf.ResNetForImageClassification(tf.ResNetConfig(embedding_size=16, layer_type="basic", **stages))
    return tf.ConvNextForImageClassification(tf.ConvNextConfig(patch_size=4, num_stages=2, image_size=28, **stages))


@pytest.mark.parametrize("kind", ["vit", "resnet", "convnext"])
def test_images_calibrate_convolutions_and_linear_layers(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "model"
    sees(kind).save_pretrained(source)
    found = []
    for data in (None, IMAGES):
        out = tmp_path / f"calibrated-{data is not None}"
        corecompress.compress(source, out, "vae(bits=6)", data=data, evaluated=False)
        found.append(corecompress.evaluate(source, out, IMAGES, samples=64).metrics["kl"].value)
    assert found[1] < found[0] / 4


@settings(max_examples=60, deadline=None)
@given(
    axes=st.integers(1, 3),
    groups=st.sampled_from([1, 4, 8]),
    kernel=st.tuples(*[st.integers(1, 4)] * 3),
    stride=st.tuples(*[st.integers(1, 3)] * 3),
    dilation=st.tuples(*[st.integers(1, 2)] * 3),
    padding=st.one_of(st.sampled_from(["same", "valid"]), st.tuples(*[st.integers(0, 2)] * 3)),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
)
def test_patches_times_weights_are_a_convolution(
    axes: int, groups: int, kernel: Any, stride: Any, dilation: Any, padding: Any, mode: str
) -> None:
    import torch

    from corecompress_vae.watch import _patches

    torch.manual_seed(0)
    kind = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[axes - 1]
    padded = padding if isinstance(padding, str) else padding[:axes]
    steps = (1,) * axes if padding == "same" else stride[:axes]
    one = kind(
        8, 16, kernel[:axes], steps, padded, dilation=dilation[:axes], groups=groups, bias=False, padding_mode=mode
    )
    image = torch.randn(8, *(9, 8, 7)[:axes])
    patches = _patches(image, one)
    weight = one.weight.reshape(groups, 16 // groups, -1)
    made = torch.einsum("tgn,gon->got", patches, weight).reshape(16, -1)
    torch.testing.assert_close(made, one(image[None])[0].flatten(1))


@settings(max_examples=60, deadline=None)
@given(
    axes=st.integers(1, 3),
    kernel=st.tuples(*[st.integers(1, 4)] * 3),
    stride=st.tuples(*[st.integers(1, 3)] * 3),
    dilation=st.tuples(*[st.integers(1, 2)] * 3),
    padding=st.tuples(*[st.integers(0, 1)] * 3),
    more=st.booleans(),
)
def test_inputs_times_patches_of_the_gradient_are_a_transposed_convolution_s(
    axes: int, kernel: Any, stride: Any, dilation: Any, padding: Any, more: bool
) -> None:
    """A position of the input makes a patch of the output, so the weight's gradient is the sum of their products."""
    import torch

    from corecompress_vae.watch import _patches

    torch.manual_seed(0)
    kind = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)[axes - 1]
    extra = tuple(int(more and step > 1) for step in stride[:axes])
    one = kind(8, 6, kernel[:axes], stride[:axes], padding[:axes], extra, dilation=dilation[:axes])
    image = torch.randn(1, 8, *(5, 4, 3)[:axes])
    out = one(image)
    g = torch.randn_like(out)
    out.backward(g)
    patches = _patches(g[0], one)
    assert patches.shape == (image[0, 0].numel(), 1, one.weight[0].numel())
    torch.testing.assert_close(image[0].flatten(1) @ patches[:, 0], one.weight.grad.flatten(1), rtol=1e-4, atol=1e-4)
