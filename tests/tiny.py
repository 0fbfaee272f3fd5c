"""Tiny random models of several kinds with a tokenizer, and a text to run them on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

WORDS = [
    f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "pe", "ra", "so", "ti") for b in ("ba", "do", "fe", "gu", "ha", "")
]


def corpus(path: Path, documents: int = 200, words: int = 40, seed: int = 0) -> Path:
    """Paragraphs of made-up words, blank lines between."""
    rng = random.Random(seed)
    lines = [" ".join(rng.choices(WORDS, k=words)).capitalize() + f" {n}." for n in range(documents)]
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


def model(folder: Path, kind: str, seed: int = 0, change: Any = None) -> Path:
    """Save a random model of this kind ("causal", "masked", "seq2seq", "vision", "encoder") with its tokenizer.

    change: a function that may alter the model before it is saved.
    """
    import torch
    import transformers as tf

    torch.manual_seed(seed)
    size = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "max_position_embeddings": 128}
    made: Any
    if kind == "causal":
        made = tf.PhiForCausalLM(tf.PhiConfig(**size, **heads, bos_token_id=2, eos_token_id=3))
    elif kind == "masked":
        made = tf.BertForMaskedLM(tf.BertConfig(**size, **heads))
    elif kind == "encoder":
        made = tf.BertModel(tf.BertConfig(**size, **heads))
    elif kind == "seq2seq":
        t5 = {"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
        made = tf.T5ForConditionalGeneration(tf.T5Config(**t5, decoder_start_token_id=0))
    else:
        vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        made = tf.ViTForImageClassification(tf.ViTConfig(**vision, image_size=16, patch_size=8, num_labels=5))
    if change is not None:
        with torch.no_grad():
            change(made)
    made.save_pretrained(folder)
    if kind != "vision":
        tokenizer(folder)
    return folder


def tokenizer(folder: Path) -> None:
    """A word-level tokenizer of 64 entries with the special tokens that models ask for."""
    import tokenizers as tk
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    backend = tk.Tokenizer(
        tk.models.WordLevel({w: i for i, w in enumerate([*special, *WORDS, "."])}, unk_token="<unk>")
    )
    backend.pre_tokenizer = tk.pre_tokenizers.Whitespace()
    backend.normalizer = tk.normalizers.Lowercase()
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
