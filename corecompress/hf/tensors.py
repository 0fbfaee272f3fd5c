"""The tensors of a compressed folder as transformers wants them: by their original names, decoded on demand."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from corecompress.artifact import Artifact, Record
from corecompress.engines.local import cores
from corecompress.errors import CorecompressError, CorruptArtifact
from corecompress.memory import Arena, allocate_from

DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"},
    **{"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F4": "float4_e2m1fn_x2"},
}
"""safetensors' dtypes -> names in torch (F4 packs two values into an element there)."""

AHEAD = 1 << 30
"""Bytes of dense tensors that are decoded before transformers asks."""

WORKERS = 4
"""Threads in which transformers asks for tensors, at most."""


class LazyTensor:
    """Stands for a tensor as safetensors' slices do: shape and dtype at once, the values when it is indexed."""

    def __init__(self, artifact: Artifact, record: Record, threads: int, arena: Arena):
        self.record, self.is_read = record, False
        self._ready: Any = None
        self._artifact, self._threads, self._arena = artifact, threads, arena

    def get_shape(self) -> list[int]:
        return list(self.record.shape)

    def get_dtype(self) -> str:
        return self.record.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Decode it. Raises CorruptArtifact, which names the tensor, when its bytes are damaged."""
        if self._ready is None:
            self.decode()
        ready, self._ready = self._ready, None  # transformers asks once; who asks again, decodes again
        return ready[index]

    def decode(self) -> None:
        """Decode now what will be asked for later."""
        stored = self._artifact.mapped(self.record.name)
        with allocate_from(self._arena):
            tensor = self._artifact.decode(stored, self.record.name, self._threads)
        self.is_read, self._ready = True, to_torch(tensor.data, self.record)


class OpenedFolder:
    """A compressed folder, its files checked, and its tensors by their original names.

    Raises CorruptArtifact that names a damaged file, CorecompressError where a plugin to decode is missing.
    """

    def __init__(self, folder: Path):
        self.artifact = artifact = Artifact(folder)
        check_files(artifact)
        artifact.load_decoders()
        arena, threads = Arena(), max(1, cores() // WORKERS)
        self.tensors = {r.name: LazyTensor(artifact, r, threads, arena) for r in artifact.manifest.tensors}

    def decode_ahead(self) -> None:
        """Decode the first gigabyte in threads of our own, largest first.

        transformers' threads ask for one tensor at a time and wait for Python's lock in between, which costs a small
        model more than decoding does. Raises CorruptArtifact that names a damaged tensor.
        """
        ahead, room = [], AHEAD
        for tensor in sorted(self.tensors.values(), key=lambda tensor: -tensor.record.info.nbytes):
            if tensor.record.info.nbytes <= room:
                room -= tensor.record.info.nbytes
                ahead.append(tensor)
        with ThreadPoolExecutor(cores(), thread_name_prefix="corecompress") as pool:
            list(pool.map(LazyTensor.decode, ahead))

    def check_unread(self) -> None:
        """Compare the payloads of tensors that the model had no use for with the manifest, without decoding them."""
        for name, tensor in self.tensors.items():
            if not tensor.is_read:
                self.artifact.check_payload(name)


def to_torch(data: Any, record: Record) -> torch.Tensor:
    """Dense bytes, uint8 [n], as a tensor that shares their memory."""
    dtype = getattr(torch, DTYPES.get(record.dtype, ""), None)
    if dtype is None:
        raise CorecompressError(
            f"tensor '{record.name}' has dtype {record.dtype}, which torch {torch.__version__} lacks; "
            "pip install --upgrade torch"
        )
    if not data.flags.writeable or data.ctypes.data % 16:  # a codec that returns (a part of) its input, say
        data = data.copy()
    shape = list(record.shape)
    if record.dtype == "F4":
        shape[-1] //= 2
    if not data.size:  # torch can't view nothing as another dtype
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(data).view(dtype).reshape(shape)


def check_files(artifact: Artifact) -> None:
    """Compare the files beside the payloads with the manifest; those that were never fetched are no matter.

    Raises CorruptArtifact that names the first that differs; a README.md may, with a warning.
    """
    for name in artifact.damaged_files(may_be_absent=True):
        if name == "README.md":
            warnings.warn(f"{artifact.folder / name}: is not as it was written", stacklevel=2)
        else:
            path = artifact.folder / name
            raise CorruptArtifact(
                f"{path}: is damaged or was edited; fetch it again (decompress the folder to edit it)"
            )
