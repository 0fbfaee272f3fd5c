"""HQQ (half-quadratic quantisation, no data): bits=8|4|3|2|1, group=64; its packed integers, scale and zero float16.

pip install torch transformers accelerate safetensors termcolor tqdm && pip install --no-deps hqq
"""

from pathlib import Path
from typing import Any

import torch
from adapter import Options, linear_names, load, main, save
from hqq.core.quantize import Quantizer


def runs(source: Path) -> list[Options]:
    return [{"bits": bits, "group": "64"} for bits in ("3", "4", "8")]


def compress(source: Path, out: Path, windows: Path, options: Options) -> dict[str, int]:
    tensors, linear_bytes = load(source), 0
    for name in linear_names(tensors):
        integers, meta = Quantizer.quantize(
            tensors.pop(name).float(),
            nbits=int(options["bits"]),
            group_size=int(options["group"]),
            axis=1,
            device="cpu",
            compute_dtype=torch.float32,
        )
        parts = {"#integers": integers.data, "#scale": meta["scale"].half(), "#zero": meta["zero"].half()}
        linear_bytes += sum(part.nbytes for part in parts.values())
        tensors |= {name + end: part for end, part in parts.items()}
    save(tensors, out / "packed.safetensors")
    return {"linear_bytes": linear_bytes}


def restore(source: Path, out: Path, options: Options) -> dict[str, Any]:
    bits, tensors, original = int(options["bits"]), load(out), load(source)
    packing = Quantizer.bit_to_packing[bits]
    for name in [key.removesuffix("#scale") for key in tensors if key.endswith("#scale")]:
        meta = {
            "nbits": bits,
            "group_size": int(options["group"]),
            "shape": original[name].shape,
            "axis": 1,
            "compute_dtype": torch.float32,
            "packing": packing,
            "unpack_view_dtype": Quantizer.unpack_view_dtype[packing],
            "view_as_float": False,
            "quant_scale": False,
            "quant_zero": False,
            "scale": tensors.pop(name + "#scale").float(),
            "zero": tensors.pop(name + "#zero").float(),
        }
        tensors[name] = Quantizer.dequantize(tensors.pop(name + "#integers"), meta)
    return tensors


if __name__ == "__main__":
    main(("hqq", "torch"), runs, compress, restore)
