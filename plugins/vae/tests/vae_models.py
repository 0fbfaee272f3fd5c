"""Small models and checkpoints of arrays whose weights are large enough to be coded as matrices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import tiny

import corecompress
from corecompress.api import open_data
from corecompress.artifact import Artifact
from corecompress.checkpoint import open_checkpoint
from corecompress.components import Job
from corecompress.progress import Silent

LENGTH = 32
FAST = "vae(bits=4, quantizer=trellis(states=4))"
SIZE = {"vocab_size": 64, "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 4, "max_position_embeddings": 128}

SMALL = {
    **SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "max_position_embeddings": 130,
}
KV = {**SMALL, "num_key_value_heads": 1, "head_dim": 16}


def built(kind: str) -> Any:
    """A small model of a family, in evaluation mode."""
    import torch
    import transformers as tf

    gpt2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 128}
    t5 = {"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    makers: dict[str, Callable[[], Any]] = {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**KV)),
        "llama, tied": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**KV, tie_word_embeddings=True)),
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**{k: v for k, v in KV.items() if k != "head_dim"})),
        "gemma3": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**KV, sliding_window=4)),
        "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**gpt2)),
        "gpt-neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**SMALL)),
        "bert": lambda: tf.BertModel(tf.BertConfig(**SMALL)),
        "bert, masked": lambda: tf.BertForMaskedLM(tf.BertConfig(**SMALL)),
        "roberta": lambda: tf.RobertaForMaskedLM(tf.RobertaConfig(**SMALL)),
        "albert": lambda: tf.AlbertForMaskedLM(tf.AlbertConfig(**SMALL, embedding_size=16)),
        "t5": lambda: tf.T5ForConditionalGeneration(tf.T5Config(**t5)),
        "mixtral": lambda: tf.MixtralForCausalLM(tf.MixtralConfig(**KV, num_local_experts=4)),
    }
    torch.manual_seed(0)
    return makers[kind]().eval()


def llama(folder: Path, change: Callable[[Any], None] | None = None, **config: Any) -> Path:
    """A Llama of 0.3 million weights in `folder`, with its tokenizer; weights wide enough to give sharp predictions."""
    import torch
    import transformers as tf

    torch.manual_seed(0)
    settings = {**SIZE, **HEADS, "initializer_range": 0.15, "bos_token_id": 2, "eos_token_id": 3, **config}
    return save(tf.LlamaForCausalLM(tf.LlamaConfig(**settings)), folder, change)


def save(model: Any, folder: Path, change: Callable[[Any], None] | None = None) -> Path:
    """The model in `folder`, changed first, with the tokenizer of the tiny models."""
    import torch

    if change is not None:
        with torch.no_grad():
            change(model)
    model.save_pretrained(folder)
    tiny.tokenizer(folder)
    return folder


def job_of(folder: Path, text: Path, scratch: Path) -> Job:
    """What calibration is given: a checkpoint, text in windows of LENGTH tokens, room below `scratch`."""
    source, data = open_checkpoint(folder), open_data(f"text(length={LENGTH}):{text}", folder)
    return Job(source, source.tensors, data, 0, 1, scratch / "scratch", Silent(), scratch / "cache")


def write(folder: Path, tensors: dict[str, tuple[str, np.ndarray]], **config: Any) -> Path:
    """A checkpoint of arrays; those named BF16 are given as float32."""
    made: checkpoints.Tensors = {}
    for name, (dtype, values) in tensors.items():
        if dtype == "BF16":
            data = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
        else:
            data = values.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype])
        made[name] = (dtype, values.shape, np.ascontiguousarray(data).reshape(-1).view(np.uint8))
    return checkpoints.write_checkpoint(folder, [made], config or None)


def dense(folder: Path) -> dict[str, np.ndarray]:
    """Tensors of a plain or compressed folder as float32."""
    source = Artifact(folder) if (folder / "corecompress.json").exists() else open_checkpoint(folder)
    if isinstance(source, Artifact):
        out = folder.with_name(folder.name + "-dense")
        corecompress.decompress(folder, out, force=True)
        source = open_checkpoint(out)
    found = {}
    for info in source.tensors:
        data = source.read(info.name).data
        if info.dtype == "BF16":
            values = (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = data.view({"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}[info.dtype]).astype(np.float32)
        found[info.name] = values.reshape(info.shape)
    return found


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.02).astype(np.float32)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)  # squares of the smallest are no float32
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))
