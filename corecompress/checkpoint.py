"""A Hugging Face checkpoint, read lazily: config, shards, tensors, and the files that go along. Never a pickle."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corecompress.components import Tensor, TensorInfo
from corecompress.errors import CorecompressError
from corecompress.safetensors_file import Header, Stored, read_header

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MANIFEST = "corecompress.json"
QUANT_METHOD = "corecompress"

OTHER_WEIGHTS = (
    *(
        "*.bin",
        "*.pt",
        "*.pth",
        "*.ckpt",
        "*.h5",
        "*.msgpack",
        "*.ot",
        "*.onnx",
        "*.gguf",
        "*.mlmodel",
        "*.safetensors",
    ),
    *("*.bin.index.json", "*.safetensors.index.json", "onnx/*", "openvino/*", "coreml/*"),
)
"""Further copies of the weights, which a smaller checkpoint leaves behind. In sub-folders only those of other
runtimes: 2_Dense/model.safetensors of a sentence encoder is a part of the model."""

HIDDEN = (".git/*", ".cache/*", "*/.git/*", "*.lock")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint; only its config and headers have been read.

    name: the hub id or the folder's name; revision: the hub's commit, None for a folder; shards: the weight files'
    headers in their order; index_metadata: what a sharded one's index says besides; carried, left: relative paths of
    the other files, those that go along and those that don't.
    """

    folder: Path
    name: str
    revision: str | None
    config: dict[str, Any]
    shards: tuple[Header, ...]
    index_metadata: dict[str, Any]
    carried: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """All tensors, shard by shard in the order of their bytes."""
        return tuple(stored.info for shard in self.shards for stored in shard.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of the weight files."""
        return sum(shard.path.stat().st_size for shard in self.shards)

    def stored(self) -> list[Stored]:
        """Where each tensor stands, in the order of `tensors`."""
        return [stored for shard in self.shards for stored in shard.tensors]

    def read(self, name: str) -> Tensor:
        """One tensor's bytes. Raises KeyError for an unknown name."""
        for stored in self.stored():
            if stored.info.name == name:
                return stored.read()
        raise KeyError(name)


def open_checkpoint(source: str | Path, revision: str | None = None) -> Checkpoint:
    """Open a folder, a hub id ("org/name" or "org/name@revision") or "demo".

    Raises CorecompressError in one line for whatever can't be compressed: what it is, where, and the mend.
    """
    folder, name, commit = _locate(str(source), revision)
    config = _read_config(folder)
    _refuse_compressed(folder, config)
    shards, index_metadata = _open_shards(folder)
    names = [stored.info.name for shard in shards for stored in shard.tensors]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CorecompressError(f"{folder}: tensor '{twice}' stands in two shards; save the checkpoint again")
    if not names:
        raise CorecompressError(f"{folder}: its weight files hold no tensor")
    carried, left = _other_files(folder, {shard.path.name for shard in shards})
    return Checkpoint(folder, name, commit, config, shards, index_metadata, carried, left)


def _locate(source: str, revision: str | None) -> tuple[Path, str, str | None]:
    if source == "demo" and not Path(source).exists():
        from corecompress.demo import demo_folder

        return demo_folder(), "sentence-transformers/all-MiniLM-L6-v2", None
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder, folder.resolve().name, None
    if folder.is_file():
        raise CorecompressError(f"{source}: is a file; give the folder that holds it and its config.json")
    if re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?(@[\w./-]+)?", source):
        from corecompress.hub import download

        hub_id, _, wanted = source.partition("@")
        snapshot = download(hub_id, revision or wanted or None)
        return snapshot, hub_id, snapshot.name
    raise CorecompressError(f"{source}: no such folder; give a checkpoint's folder, a hub id (org/name) or demo")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CorecompressError(
            f"{folder}: no config.json in it; give the folder of a Hugging Face checkpoint"
        ) from None
    except (ValueError, OSError) as problem:
        raise CorecompressError(f"{path}: can't be read ({problem}); fetch it again") from None
    if not isinstance(config, dict):
        raise CorecompressError(f"{path}: holds no JSON object; fetch it again")
    return config


def _refuse_compressed(folder: Path, config: dict[str, Any]) -> None:
    method = (config.get("quantization_config") or {}).get("quant_method")
    if (folder / MANIFEST).exists() or method == QUANT_METHOD:
        raise CorecompressError(f"{folder}: is compressed already; `corecompress decompress` makes it plain again")
    if method is not None:
        raise CorecompressError(f"{folder}: is quantized by {method}; compress the checkpoint that it was made from")


def _open_shards(folder: Path) -> tuple[tuple[Header, ...], dict[str, Any]]:
    if (folder / SINGLE).exists():
        return (read_header(folder / SINGLE),), {}
    index = folder / INDEX
    if not index.exists():
        raise _no_weights(folder)
    try:
        document = json.loads(index.read_bytes())
        placed = {str(name): str(file) for name, file in document["weight_map"].items()}
        metadata = dict(document.get("metadata") or {})
    except (ValueError, KeyError, AttributeError, TypeError, OSError) as problem:
        raise CorecompressError(f"{index}: can't be read ({problem!r}); fetch it again") from None
    for file in placed.values():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise CorecompressError(f"{index}: names '{file}', which is no safetensors file of this folder")
        if not (folder / file).is_file():
            raise CorecompressError(f"{index}: names {file}, which is missing; fetch that shard")
    shards = tuple(read_header(folder / file) for file in sorted(set(placed.values())))
    found = {stored.info.name: shard.path.name for shard in shards for stored in shard.tensors}
    if found != placed:
        wrong = sorted(name for name in found.keys() | placed.keys() if found.get(name) != placed.get(name))[0]
        raise CorecompressError(
            f"{index}: says tensor '{wrong}' is in {placed.get(wrong, 'no shard')}, "
            f"but it is in {found.get(wrong, 'none of them')}; save the checkpoint again"
        )
    return shards, metadata


def _no_weights(folder: Path) -> CorecompressError:
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern))
    if pickles:
        named = str((_read_config(folder).get("architectures") or ["AutoModel"])[0])
        model = named if named.isidentifier() else "AutoModel"  # which leaves heads behind, so it comes second
        convert = (
            f"import transformers as t; getattr(t, {model!r}, t.AutoModel)"
            f".from_pretrained({str(folder)!r}).save_pretrained({str(folder) + '-safetensors'!r})"
        )
        return CorecompressError(
            f"{folder / pickles[0]}: a pickle can run any code, so it isn't read; convert it where you trust it, and "
            f'copy the other files: python -c "{convert}"'
        )
    return CorecompressError(f"{folder}: neither {SINGLE} nor {INDEX} in it; save the model with save_pretrained")


def _other_files(folder: Path, weights: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    carried: list[str] = []
    left: list[str] = []
    for parent, _, files in os.walk(folder, followlinks=False):
        for file in files:
            path = (Path(parent) / file).relative_to(folder).as_posix()
            if path in weights or path == "config.json" or any(fnmatch.fnmatch(path, p) for p in HIDDEN):
                continue
            top = "/" not in path
            is_copy = any(fnmatch.fnmatch(path, p) for p in OTHER_WEIGHTS if top or "/" in p)
            (left if is_copy and path != INDEX else carried).append(path)
    return tuple(sorted(set(carried) - {INDEX})), tuple(sorted(left))
