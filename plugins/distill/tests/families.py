"""Tiny random models of every family that distill is tested on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
PLACES = {"max_position_embeddings": 64}


def make(family: str) -> Any:
    """A random model with 4 blocks, hidden size 32, feed-forward size 48 (GPT-2: 128) and 4 heads."""
    import transformers as tf

    makers: dict[str, Callable[[], Any]] = {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SIZES, **PLACES, num_key_value_heads=2)),
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**SIZES, **PLACES, num_key_value_heads=2)),
        "gpt2": lambda: tf.GPT2LMHeadModel(
            tf.GPT2Config(vocab_size=64, n_embd=32, n_layer=4, n_head=4, n_positions=64, bos_token_id=2, eos_token_id=3)
        ),
        "gpt-neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**SIZES, **PLACES)),
        "bert": lambda: tf.BertModel(tf.BertConfig(**SIZES, **PLACES)),
        "roberta": lambda: tf.RobertaForMaskedLM(tf.RobertaConfig(**SIZES, max_position_embeddings=66, pad_token_id=0)),
        "distilbert": lambda: tf.DistilBertForMaskedLM(
            tf.DistilBertConfig(vocab_size=64, dim=32, hidden_dim=48, n_layers=4, n_heads=4, **PLACES)
        ),
        "t5": lambda: tf.T5ForConditionalGeneration(
            tf.T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=4, num_heads=4, decoder_start_token_id=0)
        ),
        "bart": lambda: tf.BartForConditionalGeneration(
            tf.BartConfig(
                vocab_size=64,
                d_model=32,
                encoder_layers=4,
                decoder_layers=4,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=48,
                decoder_ffn_dim=48,
                decoder_start_token_id=2,
                **PLACES,
            )
        ),
        "vit": lambda: tf.ViTForImageClassification(
            tf.ViTConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=4,
                num_attention_heads=4,
                image_size=16,
                patch_size=8,
                num_labels=5,
            )
        ),
        "albert": lambda: tf.AlbertModel(tf.AlbertConfig(**SIZES, **PLACES, embedding_size=16)),
    }
    return makers[family]()


FAMILIES = ("llama", "qwen2", "gpt2", "gpt-neox", "bert", "roberta", "distilbert", "t5", "bart", "vit")


def save(folder: Path, family: str, change: Callable[[Any], None] | None = None, seed: int = 0) -> Path:
    """A checkpoint with weights large enough that blocks differ, and its tokenizer. change: alters the model first."""
    import torch

    from corecompress.training.quiet import quiet

    torch.manual_seed(seed)
    with quiet(), torch.no_grad():
        model = make(family)
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
        if change is not None:
            change(model)
        model.save_pretrained(folder)
    if family != "vit":
        tiny.tokenizer(folder)
    return folder
