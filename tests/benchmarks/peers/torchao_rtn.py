"""torchao, round to nearest in groups with a zero point: bits=2…8, group=32.

torchao keeps one integer a byte; they are packed here, `bits` each, zero points too; scales are float16.

    pip install torch torchao safetensors numpy
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapter import Options, linear_names, load, main, save
from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_
from torchao.quantization.quant_primitives import MappingType


def runs(source: Path) -> list[Options]:
    return [{"bits": bits, "group": "32"} for bits in ("3", "4", "5", "6", "8")]


def compress(source: Path, out: Path, windows: Path, options: Options) -> dict[str, int]:
    bits, group = int(options["bits"]), int(options["group"])
    config = IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{bits}"), granularity=PerGroup(group), mapping_type=MappingType.ASYMMETRIC
    )
    tensors, linear_bytes = load(source), 0
    for name in linear_names(tensors):
        weight = tensors.pop(name)
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = weight.float()
        quantize_(layer, config)
        found, half = layer.weight, 1 << (bits - 1)
        parts = {
            "#integers": packed(found.qdata.int() + half, bits),
            "#zeros": packed(found.zero_point.int() + half, bits),
            "#scales": found.scale.half(),
        }
        linear_bytes += sum(part.nbytes for part in parts.values())
        tensors |= {name + end: part for end, part in parts.items()}
    save(tensors, out / "packed.safetensors")
    return {"linear_bytes": linear_bytes}


def restore(source: Path, out: Path, options: Options) -> dict[str, Any]:
    bits, group = int(options["bits"]), int(options["group"])
    tensors, original = load(out), load(source)
    for name in [key.removesuffix("#scales") for key in tensors if key.endswith("#scales")]:
        scales = tensors.pop(name + "#scales").float().reshape(-1, 1)
        integers = unpacked(tensors.pop(name + "#integers"), bits, original[name].numel()).reshape(-1, group)
        zeros = unpacked(tensors.pop(name + "#zeros"), bits, scales.numel()).reshape(-1, 1)
        tensors[name] = (integers - zeros) * scales
    return tensors


def packed(values: Any, bits: int) -> Any:
    """Whole numbers below 2^bits, `bits` bits each."""
    flat = values.flatten().numpy()
    if flat.min() < 0 or flat.max() >= 1 << bits:
        raise ValueError(f"{flat.min()} … {flat.max()} do not fit into {bits} bits")
    return torch.from_numpy(np.packbits((flat[:, None] >> np.arange(bits)) & 1))


def unpacked(data: Any, bits: int, n: int) -> Any:
    each = np.unpackbits(data.numpy())[: n * bits].reshape(n, bits).astype(np.int32)
    return torch.from_numpy((each << np.arange(bits)).sum(1))


if __name__ == "__main__":
    main(("torchao", "torch"), runs, compress, restore)
