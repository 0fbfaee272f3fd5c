"""Small models whose weights are large enough to be coded as matrices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny

SIZE = {"vocab_size": 64, "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 4, "max_position_embeddings": 128}


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
