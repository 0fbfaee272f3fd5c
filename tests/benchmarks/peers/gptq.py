"""GPTQ through llmcompressor: bits=3…8, group=64, windows=64 out of the calibration split.

Asymmetric, in the packed form of compressed-tensors. Causal language models only.

    pip install torch llmcompressor
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapter import Options, is_language_model, linear_names, load, main
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from transformers import AutoModelForCausalLM, CompressedTensorsConfig


def runs(source: Path) -> list[Options]:
    each = [{"bits": bits, "group": "64", "windows": "64"} for bits in ("3", "4", "5")]
    return each if is_language_model(source) else []


def compress(source: Path, out: Path, windows: Path, options: Options) -> dict[str, int]:
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    ids = np.load(windows)[: int(options["windows"])]
    rows = {"input_ids": ids.tolist(), "attention_mask": np.ones_like(ids).tolist()}
    weights = QuantizationArgs(
        num_bits=int(options["bits"]), type="int", symmetric=False, strategy="group", group_size=int(options["group"])
    )
    oneshot(
        model=model,
        dataset=Dataset.from_dict(rows),
        max_seq_length=ids.shape[1],
        num_calibration_samples=len(ids),
        recipe=GPTQModifier(
            config_groups={"all": QuantizationScheme(targets=["Linear"], weights=weights)}, ignore=["lm_head"]
        ),
    )
    model.to(next(iter(load(source).values())).dtype).save_pretrained(out, save_compressed=True)
    linear = tuple(name.removesuffix("weight") for name in linear_names(load(source)))
    return {"linear_bytes": sum(t.nbytes for name, t in load(out).items() if name.startswith(linear))}


def restore(source: Path, out: Path, options: Options) -> dict[str, Any]:
    model = AutoModelForCausalLM.from_pretrained(
        out, dtype=torch.float32, quantization_config=CompressedTensorsConfig(dequantize=True)
    )
    names = set(load(source))
    return {name: tensor for name, tensor in model.state_dict().items() if name in names}


if __name__ == "__main__":
    main(("llmcompressor", "compressed-tensors", "transformers", "torch"), runs, compress, restore)
