"""What components are checked on: a small real model, a checkpoint of odd tensors, chunks of weights, symbols.

The model (model/, 115,520 weights in bfloat16) is a Llama that was trained on the bytes of Python's language reference.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corecompress.checkpoint import Checkpoint, open_checkpoint
from corecompress.components import DataReport, TensorInfo
from corecompress.errors import CorecompressError
from corecompress.floats import to_float32
from corecompress.safetensors_file import header_bytes

if TYPE_CHECKING:
    import numpy as np

MODEL = Path(__file__).parent / "model"
SPLITS = ("calibration", "training", "evaluation")


def write_checkpoint(folder: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], Any]]) -> Path:
    """A checkpoint of tensors by name (dtype, shape, array with their bytes), the model's other files beside them."""
    shutil.copytree(MODEL, folder)
    infos = [TensorInfo(name, dtype, shape) for name, (dtype, shape, _) in tensors.items()]
    with open(folder / "model.safetensors", "wb") as file:
        file.write(header_bytes(infos, {"format": "pt"}))
        for _, _, data in tensors.values():
            file.write(data.tobytes())
    return folder


def odd_tensors() -> dict[str, tuple[str, tuple[int, ...], Any]]:
    """Tensors rare and legal: empty, scalar, tied, of every width, constant, with values that are no numbers."""
    import numpy as np

    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return (0.02 * rng.standard_normal(shape)).astype(np.float32)

    special = normal(16, 80)
    special[::5, ::7], special[1, 1], special[2, 2], special[3, 3] = np.nan, np.inf, -np.inf, -0.0
    tied = normal(48, 64)
    return {
        "odd.empty": ("F32", (0, 3), normal(0, 3)),
        "odd.scalar": ("F32", (), normal()),
        "odd.one": ("BF16", (1,), np.array([0x3F80], "<u2")),
        "odd.half": ("F16", (48, 40), normal(48, 40).astype("<f2")),
        "odd.bfloat": ("BF16", (40, 48), (normal(40, 48).view(np.uint32) >> 16).astype("<u2")),
        "odd.double": ("F64", (5, 7), normal(5, 7).astype("<f8")),
        "odd.positions": ("I64", (1, 128), np.arange(128, dtype="<i8")),
        "odd.bytes": ("I8", (7, 11), rng.integers(-128, 128, (7, 11)).astype("i1")),
        "odd.flags": ("BOOL", (33,), rng.integers(0, 2, 33).astype("u1")),
        "odd.constant": ("F32", (40, 64), np.full((40, 64), 0.5, "<f4")),
        "odd.special": ("F32", (16, 80), special),
        "odd.tiny": ("F32", (32, 64), normal(32, 64) * np.float32(1e-38)),
        "odd.large": ("F32", (32, 64), normal(32, 64) * np.float32(100)),
        "odd.wide": ("F32", (1, 2000), normal(1, 2000)),
        "odd.kernel": ("F32", (24, 8, 3, 3), normal(24, 8, 3, 3)),
        "odd.tied_a": ("F32", (48, 64), tied),
        "odd.tied_b": ("F32", (48, 64), tied),
    }


def odd_checkpoint(folder: Path) -> Path:
    """The model's tensors and the odd ones."""
    checkpoint = open_checkpoint(MODEL)
    tensors: dict[str, tuple[str, tuple[int, ...], Any]] = {}
    for stored in checkpoint.stored():
        tensor = stored.read()
        tensors[tensor.info.name] = tensor.info.dtype, tensor.info.shape, tensor.data
    return write_checkpoint(folder, tensors | odd_tensors())


def float32_checkpoint(folder: Path) -> Path:
    """The model in float32, for components that take nothing else; what bfloat16 cut off is made up."""
    import numpy as np

    rng = np.random.default_rng(0)
    tensors: dict[str, tuple[str, tuple[int, ...], Any]] = {}
    for stored in open_checkpoint(MODEL).stored():
        bits = stored.read().data.view("<u2").astype(np.uint32) << 16
        tensors[stored.info.name] = (
            "F32",
            stored.info.shape,
            bits | rng.integers(0, 1 << 16, bits.size, dtype=np.uint32),
        )
    return write_checkpoint(folder, tensors)


def large_checkpoint(folder: Path) -> Path:
    """Two matrices of Gaussian weights: `small`, to warm up with, and `large`, of 8 MB."""
    import numpy as np

    rng = np.random.default_rng(0)
    shapes = {"small": (256, 256), "large": (1024, 2048)}
    made = {name: ("F32", shape, rng.standard_normal(shape, np.float32) / 30) for name, shape in shapes.items()}
    return write_checkpoint(folder, made)


def digest_of(folder: Path) -> str:
    """SHA-256 of a folder: names and bytes of all its files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """The same bytes with one bit flipped."""
    bad = bytearray(data)
    bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
    return bytes(bad)


def symbols() -> np.ndarray[Any, np.dtype[np.int32]]:
    """40,000 whole numbers as a quantiser gives them: most near zero, a few far away."""
    import numpy as np

    rng = np.random.default_rng(0)
    drawn = np.rint(rng.laplace(0, 1.7, 40_000)).astype(np.int32)
    drawn[:: 40_000 // 8] = (150, -200, 90, -70, 300, 60, -50, 45)
    return drawn


class Chunks:
    """A data component for encoders: the model's matrices as rows x float32 [n, m] of variance about one."""

    def __init__(self, width: int = 16, batch: int = 512):
        self.width, self.batch = width, batch
        self.rows = _rows(open_checkpoint(MODEL), width)

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """Nothing depends on it."""

    def batches(self, seed: int, split: str = "calibration", start: int = 0) -> Iterator[dict[str, Any]]:
        """x float32 [n, m], scale float32 [n] (all ones) and document int64 [n]: 64 rows each."""
        import numpy as np

        if split not in SPLITS:
            raise CorecompressError(f"'{split}' is no split; there are {', '.join(SPLITS)}")
        document = np.arange(len(self.rows)) // 64
        shares = {"calibration": document % 5 == 0, "evaluation": document % 5 == 1, "training": document % 5 > 1}
        numbers = np.random.default_rng([seed, len(split)]).permutation(np.flatnonzero(shares[split]))
        for at in range(start * self.batch, len(numbers), self.batch):
            chosen = numbers[at : at + self.batch]
            scale = np.ones(len(chosen), np.float32)
            yield {"x": self.rows[chosen], "scale": scale, "document": document[chosen].astype(np.int64)}

    def fingerprint(self) -> str:
        """Digest of the rows."""
        return hashlib.sha256(self.rows.tobytes()).hexdigest()

    def report(self) -> DataReport:
        """How many there are."""
        return DataReport({"rows": len(self.rows)}, {}, [])


def _rows(checkpoint: Checkpoint, width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    import numpy as np

    parts = []
    for stored in checkpoint.stored():
        if len(stored.info.shape) == 2:
            values = to_float32(stored.read().data, stored.info.dtype)
            values = values[: values.size // width * width].reshape(-1, width)
            parts.append(values / max(float(values.std()), 1e-30))
    return np.concatenate(parts).astype(np.float32)


class Normal:
    """A prior for encoders: N(0, σ²), the same formula for numbers, arrays and tensors. Its scale is log_scale."""

    def __init__(self) -> None:
        self.log_scale: Any = 0.0

    def rate(self, latents: Any, context: Any = None) -> Any:
        """−log2 of the density, in bits."""
        second = 2.718281828459045 ** (2 * self.log_scale)
        return (
            latents * latents / second * 0.7213475204444817 + self.log_scale * 1.4426950408889634 + 1.3257480647361593
        )

    def parameters(self) -> list[Any]:
        """Nothing that training could change."""
        return []

    def to(self, device: Any) -> None:
        """Nothing to move."""

    def fit(self, symbols: Any, context: Any = None, weights: Any = None) -> None:
        """It stays as it is."""

    def freeze(self, precision: int = 12) -> Any:
        """Nothing is coded with it."""
        raise CorecompressError("the conformance kit's prior only has a rate")

    def sample(self, n: int, seed: int = 0) -> Any:
        """Gaussian numbers, float64 [n]."""
        import numpy as np

        return np.random.default_rng(seed).standard_normal(n)
