"""Reference, no product: entropy-coded scalar quantisation, one uniform step a tensor, no data.

step=c: c standard deviations of the tensor. The size is the ideal one: zero-order entropy of each tensor's integers,
tables not counted; the folder holds the plain integers.
"""

from pathlib import Path
from typing import Any

import torch
from adapter import Options, linear_names, load, main, save


def runs(source: Path) -> list[Options]:
    return [{"step": step} for step in ("0.125", "0.25", "0.375", "0.5", "0.75")]


def compress(source: Path, out: Path, windows: Path, options: Options) -> dict[str, int]:
    tensors, bits = load(source), 0.0
    rest = sum(t.nbytes for t in tensors.values())
    for name in linear_names(tensors):
        weight = tensors.pop(name)
        rest -= weight.nbytes
        step = float(options["step"]) * weight.float().std()
        integers = torch.round(weight.float() / step).to(torch.int32)
        shares = torch.unique(integers, return_counts=True)[1].double() / integers.numel()
        bits -= float((shares * shares.log2()).sum()) * integers.numel()
        tensors |= {name + "#integers": integers, name + "#step": step.reshape(1)}
    save(tensors, out / "integers.safetensors")
    return {"linear_bytes": round(bits / 8), "bytes": round(bits / 8) + rest}


def restore(source: Path, out: Path, options: Options) -> dict[str, Any]:
    tensors = load(out)
    for name in [key.removesuffix("#step") for key in tensors if key.endswith("#step")]:
        tensors[name] = tensors.pop(name + "#integers") * tensors.pop(name + "#step")
    return tensors


if __name__ == "__main__":
    main(("torch",), runs, compress, restore)
