"""What the adapters of peers share. Each is a script for an interpreter of its own, where corecompress need not be:

    PYTHON gptq.py about SOURCE                                  # versions, and the options to run with by default
    PYTHON gptq.py compress SOURCE OUT WINDOWS bits=4 group=64   # SOURCE as the peer stores it, into the folder OUT
    PYTHON gptq.py restore SOURCE OUT DENSE bits=4 group=64      # a plain checkpoint again, from OUT

WINDOWS is a file of token ids out of the calibration split, int64 [n, length] (.npy), for peers that calibrate. The last line on standard output is JSON. A peer gets the linear layers; embeddings and the output head stay as they
are, unless an option of the adapter says otherwise. Size is what the files in OUT take, and of the linear layers what
their own tensors take, scales included.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

TABLES = ("embed", "lm_head", "wte", "wpe")
"""What the names of embedding tables and output heads hold."""
Options = dict[str, str]


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a float tensor is a linear layer's weight: a matrix that is no table."""
    return len(shape) == 2 and not any(part in name for part in TABLES)


def load(folder: Path) -> dict[str, Any]:
    """All tensors of a checkpoint."""
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def linear_names(tensors: dict[str, Any]) -> list[str]:
    return [name for name, t in tensors.items() if t.is_floating_point() and is_linear(name, tuple(t.shape))]


def save(tensors: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def save_dense(tensors: dict[str, Any], source: Path, dense: Path) -> None:
    """A plain checkpoint with the source's names, dtypes and other files. What is missing in `tensors` must be whole
    numbers, which no peer changes."""
    original = load(source)
    missing = [name for name, t in original.items() if name not in tensors and t.is_floating_point()]
    if missing:
        sys.exit(f"{missing[0]} was not restored")
    dense.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_dir():
            shutil.copytree(path, dense / path.name)
        elif not path.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copy(path, dense)
    save({n: tensors.get(n, t).to(t.dtype).reshape(t.shape) for n, t in original.items()}, dense / "model.safetensors")


def model_class(source: Path) -> Any:
    """The transformers class of the source's architecture."""
    import transformers

    return getattr(transformers, json.loads((source / "config.json").read_text())["architectures"][0])


def is_language_model(source: Path) -> bool:
    """Whether it is a causal one."""
    return json.loads((source / "config.json").read_text())["architectures"][0].endswith("ForCausalLM")


def main(
    packages: tuple[str, ...],
    runs: Callable[[Path], list[Options]],
    compress: Callable[[Path, Path, Path, Options], dict[str, int]],
    restore: Callable[[Path, Path, Options], dict[str, Any]],
) -> None:
    """packages: distributions whose versions are told; runs(source): options to run with by default;
    compress(source, out, windows, options) -> {"linear_bytes": …} and "bytes" where files don't tell the size;
    restore(source, out, options) -> the tensors."""
    verb, source, *places = map(Path, sys.argv[1:5])
    options = dict(part.split("=", 1) for part in sys.argv[5:])
    answer: dict[str, Any] = {}
    if str(verb) == "about":
        answer = {"versions": {name: version(name) for name in packages}, "runs": runs(source)}
    elif str(verb) == "compress":
        out, windows = places
        out.mkdir(parents=True)
        answer = compress(source, out, windows, options)
        files = [path for path in out.rglob("*") if path.is_file()]
        answer.setdefault("bytes", sum(path.stat().st_size for path in files))
    else:
        out, dense = places
        save_dense(restore(source, out, options), source, dense)
    print("\n" + json.dumps(answer), flush=True)
