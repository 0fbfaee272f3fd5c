"""Trains the conformance kit's small real model: bytes of Python's language reference, a Llama of 115,520 weights.

    python tests/make_sample_model.py corecompress/testing/model

Needs torch, transformers, tokenizers; a few minutes on one core. The result is stored in bfloat16 (230 kB).
"""

from __future__ import annotations

import sys
from pathlib import Path
from pydoc_data.topics import topics

import tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LENGTH, BATCH, STEPS, RATE = 128, 16, 1500, 3e-3


def tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({byte: n for n, byte in enumerate(alphabet)}, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def main(folder: Path) -> None:
    """Train and save."""
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=256,
        **size,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    model, encoder = LlamaForCausalLM(config), tokenizer()
    text = torch.tensor(encoder("\n\n".join(topics.values()))["input_ids"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        starts = torch.randint(len(text) - LENGTH, (BATCH,), generator=generator)
        batch = torch.stack([text[start : start + LENGTH] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(step, f"{loss.item():.3f} nats a byte", flush=True)
    print(STEPS, f"{loss.item():.3f} nats a byte, {sum(p.numel() for p in model.parameters()):,} weights")
    model.to(torch.bfloat16).save_pretrained(folder)
    encoder.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
