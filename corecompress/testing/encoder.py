"""Checks of encoders. Each is fitted once on chunks of the small real model's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corecompress.components import BITS, TensorInfo
from corecompress.progress import Silent
from corecompress.safetensors_file import header_bytes, read_header
from corecompress.testing import fresh
from corecompress.testing.kit import Subject, check, need, rebuild
from corecompress.testing.samples import Chunks, Normal

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16"}
DTYPES |= {"int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL"}
"""numpy's names of what a safetensors file can hold."""


def width_of(encoder: Any) -> int:
    """Values a row that it is made for."""
    return int(getattr(getattr(encoder, "options", None), "chunk", 16))


def fit(encoder: Any) -> Any:
    """Fit it, seed 3, and give it back."""
    encoder.fit(Chunks(width_of(encoder)), Normal(), seed=3, target_loss=None, progress=Silent())
    return encoder


def fitted(subject: Subject) -> Any:
    """The encoder of all checks."""
    return subject.once("fitted", lambda: fit(subject.build()))


def rows(encoder: Any) -> Any:
    """What it codes: the evaluation split, float32 [n, m]."""
    import numpy as np

    return np.concatenate([batch["x"] for batch in Chunks(width_of(encoder)).batches(0, "evaluation")])


def state_of(encoder: Any) -> dict[str, Any]:
    """Its state, each value an array that a safetensors file can hold."""
    import numpy as np

    state = encoder.state_dict()
    need(isinstance(state, Mapping), f"state_dict gives {type(state).__name__}, not a mapping of arrays")
    for name, value in state.items():
        need(isinstance(value, np.ndarray), f"state '{name}' is {type(value).__name__}, not a numpy array")
        need(value.dtype.name in DTYPES, f"state '{name}' is {value.dtype}, which safetensors can't hold")
    return {str(name): np.ascontiguousarray(value) for name, value in state.items()}


def save(state: Mapping[str, Any], path: Path) -> None:
    """As a safetensors file: no pickle."""
    infos = [TensorInfo(name, DTYPES[value.dtype.name], value.shape) for name, value in state.items()]
    path.write_bytes(header_bytes(infos, {}) + b"".join(value.tobytes() for value in state.values()))


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote."""
    import numpy as np

    names = {safe: name for name, safe in DTYPES.items()}
    found = {}
    for stored in read_header(path).tensors:
        data = stored.read().data.view(np.dtype(names[stored.info.dtype]))
        assert BITS[stored.info.dtype] == 8 * data.dtype.itemsize
        found[stored.info.name] = data.reshape(stored.info.shape)
    return found


@check("fits", "it learns from chunks of real weights, and what it codes comes back", "encoder")
def fits(subject: Subject) -> str:
    import numpy as np

    encoder = fitted(subject)
    x = rows(encoder)
    latents = np.asarray(encoder.encode(x))
    need(
        latents.ndim == 2 and len(latents) == len(x), f"x {list(x.shape)} has latents {list(latents.shape)}, not [n, k]"
    )
    need(np.isfinite(latents).all(), "some latents are not finite")
    error = np.asarray(encoder.decode(latents), np.float64) - x
    relative = float(np.sqrt(np.square(error).sum() / np.square(x).sum()))
    need(relative < 1, f"the relative error without quantisation is {relative:.3g}; zeros alone have 1")
    return f"relative error {relative:.2g} without quantisation, {latents.shape[1]} latents for {x.shape[1]} values"


@check("shapes", "shape and dtype are kept, whatever the number of rows", "encoder")
def shapes(subject: Subject) -> None:
    import numpy as np

    encoder = fitted(subject)
    for n in (0, 1, 3, 257):
        x = rows(encoder)[:n]
        kept = x.copy()
        back = np.asarray(encoder.decode(encoder.encode(x)))
        need(back.shape == x.shape, f"{list(x.shape)} comes back as {list(back.shape)}")
        need(back.dtype == x.dtype, f"{x.dtype} comes back as {back.dtype}")
        need(np.array_equal(x, kept), "encode changes what it is given")


@check("repeats", "the same data and seed give the same encoder, in another process as well", "encoder")
def repeats(subject: Subject) -> None:
    mine = digest(state_of(fitted(subject)))
    need(fresh.call("corecompress.testing.encoder:fit_digest", **subject.identity()) == mine, "its state differs there")


def fit_digest(kind: str, spec: str) -> str:
    """In another process: fit it, and digest its state."""
    return digest(state_of(fit(rebuild(kind, spec))))


def digest(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of arrays by name."""
    found = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        found.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
    return found.hexdigest()


@check("saves", "its state is plain arrays, from which another process decodes to the same bytes", "encoder")
def saves(subject: Subject) -> str:
    import numpy as np

    encoder = fitted(subject)
    state, path, latents_path = state_of(encoder), subject.place("state"), subject.place("latents")
    save(state, path)
    latents = np.ascontiguousarray(encoder.encode(rows(encoder)), np.float32)
    save({"latents": latents}, latents_path)
    here = digest({"x": np.asarray(encoder.decode(latents))})
    there = fresh.call(
        "corecompress.testing.encoder:decode_digest", **subject.identity(), state=str(path), latents=str(latents_path)
    )
    need(there["x"] == here, "another process decodes the same latents to other bytes")
    need(there["state"] == digest(state), "the state that was loaded is not the state that it gives")
    return f"{sum(value.nbytes for value in state.values()):,} bytes"


def decode_digest(kind: str, spec: str, state: str, latents: str) -> dict[str, str]:
    """In another process: load a state, decode latents."""
    import numpy as np

    encoder = rebuild(kind, spec)
    encoder.load_state_dict(load(Path(state)))
    x = np.asarray(encoder.decode(load(Path(latents))["latents"]))
    return {"x": digest({"x": x}), "state": digest(state_of(encoder))}
