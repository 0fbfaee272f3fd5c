"""NNCodec (ISO/IEC 15938-17, Neural Network Coding) with its trellis-coded quantisation: qp=N, tables=raw|coded.

A step is (4 + qp mod 4) · 2^(⌊qp / 4⌋ − 2). Its torchvision is used by loaders of data sets only; where there is none
(beside a CPU build of torch it is awkward), an empty module stands for it.

    pip install torch 'numpy<2' safetensors pandas h5py scikit-learn click tqdm torchmetrics 'opencv-python-headless<4.11'
    pip install --no-deps ptflops nncodec
"""

import contextlib
import io
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapter import TABLES, Options, linear_names, load, main, save

SHARES = (0.045, 0.09, 0.135, 0.25, 0.32, 0.5)
"""Default steps, in root mean squares of the linear layers."""


class Empty(types.ModuleType):
    """A module of which anything can be imported."""

    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.setdefault(f"{self.__name__}.{name}", Empty(f"{self.__name__}.{name}"))

    def __mro_entries__(self, bases: tuple[type, ...]) -> tuple[type, ...]:
        return (object,)

    def __call__(self, *arguments: object, **more: object) -> "Empty":
        return self


try:
    import torchvision  # noqa: F401
except ImportError:
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.models"):
        sys.modules[name] = Empty(name)
from nncodec import nnc  # noqa: E402


def runs(source: Path) -> list[Options]:
    tensors = load(source)
    linear = [tensors[name].float() for name in linear_names(tensors)]
    width = math.sqrt(sum(float(t.square().sum()) for t in linear) / sum(t.numel() for t in linear))
    steps = [nearest(share * width) for share in SHARES]
    both = [nearest(share * width) for share in (0.09, 0.135, 0.25)]
    return [{"qp": str(qp)} for qp in steps] + [{"qp": str(qp), "tables": "coded"} for qp in both]


def nearest(step: float) -> int:
    return min(range(-80, 0), key=lambda qp: abs(math.log2((4 + qp % 4) * 2.0 ** (qp // 4 - 2) / step)))


def compress(source: Path, out: Path, windows: Path, options: Options) -> dict[str, int]:
    tensors = load(source)
    encode({name: tensors.pop(name) for name in linear_names(tensors)}, out / "linear.nnc", int(options["qp"]))
    if options.get("tables") == "coded":
        tables = [name for name, t in tensors.items() if t.ndim == 2 and any(part in name for part in TABLES)]
        tables = [name for name in tables if tensors[name].is_floating_point()]
        encode({name: tensors.pop(name) for name in tables}, out / "tables.nnc", int(options["qp"]))
    save(tensors, out / "rest.safetensors")
    return {"linear_bytes": (out / "linear.nnc").stat().st_size}


def encode(tensors: dict[str, Any], path: Path, qp: int) -> None:
    arrays = {name: t.float().numpy() for name, t in tensors.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        nnc.compress(arrays, bitstream_path=str(path), qp=qp, use_dq=True, verbose=False)


def restore(source: Path, out: Path, options: Options) -> dict[str, Any]:
    tensors = load(out)
    for path in out.glob("*.nnc"):
        with contextlib.redirect_stdout(io.StringIO()):
            decoded = nnc.decompress(str(path))
        tensors |= {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in decoded.items()}
    return tensors


if __name__ == "__main__":
    main(("nncodec", "numpy", "torch"), runs, compress, restore)
