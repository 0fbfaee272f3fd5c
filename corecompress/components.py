"""What plugins provide: `Component` records, and the Protocols that their targets fulfil.

    checkpoint ──► data ──► encoder ──► prior ──► compressor ──► artifact

A target is a class. It is built as `Target(options)`, where options is an instance of the dataclass that the class
names as `Options` (a data component as `Target(source, options)`), and it never sees the command line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    from corecompress.checkpoint import Checkpoint

Kind = Literal["data", "encoder", "prior", "compressor"]


@dataclass(frozen=True)
class Component:
    """One entry of what a plugin gives.

    name: what a recipe calls it (lower case, digits, hyphens); target: "package.module:Class", imported on first
    use; summary: one line for `corecompress plugins`; api: the HOOK_API that it was built for.
    """

    name: str
    target: str
    summary: str
    api: int = 1


def option(default: Any, help: str) -> Any:
    """A field of an Options dataclass: its default and the line that `corecompress plugins show` prints."""
    if isinstance(default, list | dict | set):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class NoOptions:
    """The Options of a component that has none."""


BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits an element of every safetensors dtype."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's name, safetensors dtype ("F32", "BF16", …) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements (1 for a scalar)."""
        n = 1
        for extent in self.shape:
            n *= extent
        return n

    @property
    def nbytes(self) -> int:
        """Bytes of the dense tensor."""
        return self.size * BITS[self.dtype] // 8


@dataclass(frozen=True)
class Tensor:
    """A dense tensor as it stands in the file: `data` is its little-endian bytes, uint8 [info.nbytes]."""

    info: TensorInfo
    data: np.ndarray[Any, np.dtype[np.uint8]]


class Progress(Protocol):
    """Where a long step reports to."""

    def start(self, what: str, total: int, unit: str = "bytes") -> None:
        """A step begins: `total` bytes (or steps, batches, … as `unit` says) will be done."""

    def describe(self, what: str) -> None:
        """The step under way is called that from now on: how far it is, in the step's own terms (a loss)."""

    def advance(self, amount: int) -> None:
        """So much more is done."""

    def say(self, line: str) -> None:
        """A fact for whoever watches; --quiet leaves it out."""

    def note(self, line: str) -> None:
        """A warning that a person should read, --quiet or not."""


@dataclass(frozen=True)
class Job:
    """What a compressor may know of the run that it is part of.

    source: the checkpoint as this stage sees it; tensors: those that the recipe routes to this component;
    data: the component that --data names, or None; scratch: a folder that survives an interruption (--resume);
    cache: a folder for what depends on source, data and seed but on no option of the recipe, so that several runs can
    share it (--cache); whoever keeps something there names it by a digest of all that it depends on;
    overhead: bytes that the output holds besides the payloads of `tensors` (files that go along, manifest, headers);
    target_loss: where training may stop early (--target-loss), or None.
    """

    source: Checkpoint
    tensors: tuple[TensorInfo, ...]
    data: Data | None
    seed: int
    jobs: int
    scratch: Path
    progress: Progress
    cache: Path
    overhead: int = 0
    target_loss: float | None = None


class TensorCompressor(Protocol):
    """A strategy that codes one tensor at a time: any engine may run tensors in parallel, in any order.

    Inherit it for the defaults, or write all methods. `encode` and `decode` are called from several threads.
    """

    scope: ClassVar[Literal["tensor"]] = "tensor"
    exact: ClassVar[bool] = False
    """Whether it promises to restore every bit: the pipeline then holds it to that."""
    Options: ClassVar[type[Any]] = NoOptions

    def accepts(self, info: TensorInfo) -> bool:
        """Whether it codes such a tensor; one that it declines goes to the recipe's next rule."""
        return True

    def memory(self, info: TensorInfo) -> int:
        """Peak bytes of coding and checking this tensor, its dense bytes included."""
        return 6 * info.nbytes

    def prepare(self, job: Job) -> bytes:
        """Once before the first `encode`: calibrate, fit, spend the budget. Returns the state that every `decode`
        needs (tables, a decoder network), stored once in the artifact; b"" when there is none."""
        return b""

    def restore(self, state: bytes) -> None:
        """Once before the first `decode`, with what `prepare` returned."""

    def encode(self, tensor: Tensor) -> bytes | np.ndarray[Any, np.dtype[np.uint8]]:
        """The payload, bytes or uint8 [n]: all that `decode` needs besides the state and the tensor's info."""
        ...

    def decode(self, payload: memoryview, info: TensorInfo, threads: int = 1) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The dense bytes, uint8 [info.nbytes]. Raises CorruptData on bytes that `encode` never wrote."""
        ...


class ModelCompressor(Protocol):
    """A strategy that makes another, smaller checkpoint of a checkpoint: distillation, pruning."""

    scope: ClassVar[Literal["model"]] = "model"
    Options: ClassVar[type[Any]] = NoOptions

    def compress(self, job: Job, out: Path) -> None:
        """Write an ordinary Hugging Face checkpoint (config.json, safetensors) into the empty folder `out`.

        Under torchrun or accelerate launch it is called on every rank with the same paths; it returns when the
        checkpoint is there."""

    def plan(self, job: Job) -> Mapping[str, Any]:
        """What `compress` would make and cost, as figures by name for `corecompress plan`; nothing is kept. Names
        that end in "bytes" or "seconds" are shown as such."""
        return {}


Batch = Mapping[str, Any]
"""Named arrays or tensors, first dimension the samples: {"input_ids": [n, length], …}."""


@dataclass(frozen=True)
class DataReport:
    """What `corecompress data show` prints: figures by name, tables by title (columns, rows), and a few samples."""

    figures: Mapping[str, Any]
    tables: Mapping[str, tuple[tuple[str, ...], list[tuple[Any, ...]]]]
    samples: list[str]


class Data(Protocol):
    """Samples: restartable, the same for the same seed, streamed, split by document before anything else."""

    Options: ClassVar[type[Any]] = NoOptions

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """Called before all else, with the checkpoint that the samples are for (its tokenizer, its configuration)."""

    def batches(self, seed: int, split: str = "calibration", start: int = 0) -> Iterable[Batch]:
        """The batches of one split ("calibration", "training" or "evaluation") from number `start` on; splits share
        no document. An integer array "document" says which document each sample (or token) is from."""
        ...

    def fingerprint(self) -> str:
        """Hex digest of the source and every option that changes a batch; it goes into manifests and reports."""
        ...

    def report(self) -> DataReport:
        """What a person should see before a model sees it."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """An analysis transform (x -> latents) and its synthesis transform (latents -> x)."""

    Options: ClassVar[type[Any]] = NoOptions

    def fit(
        self,
        data: Data,
        prior: Prior,
        *,
        seed: int,
        target_loss: float | None,
        progress: Progress,
        scratch: Path | None = None,
        seconds: float | None = None,
    ) -> Mapping[str, Any] | None:
        """Train on rate + λ · distortion until the loss target (None: until the options' budget is spent).

        scratch: a folder to keep checkpoints in, and to go on from; seconds: time after which it stops where it is.
        Both may be left out of an implementation. Returns figures that a person should see, by name, or None. Raises
        CorecompressError for data that it can't learn from, and where the target was not reached.
        """

    def encode(self, x: Any) -> Any:
        """Analysis: x [n, …] -> latents [n, …]."""

    def decode(self, latents: Any) -> Any:
        """Synthesis: latents [n, …] -> x [n, …], of the shape and dtype that `encode` was given."""

    def state_dict(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """What a fitted encoder knows, as plain arrays; saved as safetensors, never pickled."""
        ...

    def load_state_dict(self, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Become the encoder that gave `state`."""


@runtime_checkable
class Coder(Protocol):
    """A frozen prior: integer tables only, the same bytes on every machine."""

    def compress(self, symbols: Any) -> bytes:
        """int32 symbols [n] -> coded bytes, tables excluded."""
        ...

    def decompress(self, data: bytes, n: int) -> Any:
        """The n symbols, int32 [n]. Raises CorruptData on bytes that `compress` never wrote."""


class Prior(Protocol):
    """A probability model of latents: its rate drives training, its tables drive the entropy coder."""

    Options: ClassVar[type[Any]] = NoOptions

    def rate(self, latents: Any, context: Any = None) -> Any:
        """Differentiable −log2 p(latents), in bits, per element; noisy latents allowed."""

    def fit(self, symbols: Any, context: Any = None) -> None:
        """Set the parameters to the symbols' statistics."""

    def freeze(self, precision: int = 12) -> Coder:
        """The coder for these parameters, probabilities as integers that sum to 2**precision."""
        ...

    def sample(self, n: int, seed: int = 0) -> Any:
        """n draws. Raises NotImplementedError where the prior cannot generate."""
