"""What plugins provide: `Component` records, and the Protocols that their targets fulfil.

    checkpoint ──► data ──► encoder ──► prior ──► compressor ──► artifact

A target is a class. It is built as `Target(options)`, where options is an instance of the dataclass that the class
names as `Options` (a data component as `Target(source, options)`), and it never sees the command line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

    from corecompress.checkpoint import Checkpoint

Kind = Literal["data", "encoder", "prior", "compressor"]


@dataclass(frozen=True)
class Component:
    """One entry of what a plugin gives.

    name: what a recipe calls it (lower case, digits, hyphens); target: "package.module:Class", imported on first
    use; summary: one line for `corecompress plugins`; api: the HOOK_API that it was built for;
    example: its use, for `corecompress plugins show` and for the conformance kit: of data a SPEC that opens on every
    machine, of all else a recipe for a small model, ` --data SPEC` behind it where it can't do without (examples.py
    says what stands in for an empty one); waivers: checks of the conformance kit that are not for it, each with the
    reason.
    """

    name: str
    target: str
    summary: str
    api: int = 1
    example: str = ""
    waivers: Mapping[str, str] = field(default_factory=dict, hash=False)


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

    source: the checkpoint as this stage sees it; tensors: those that the recipe routes to this component, of several
    that are the same bytes the first, which alone is stored;
    data: the component that --data names, or None; scratch: a folder that survives an interruption (--resume);
    cache: a folder for what depends on source, data and seed but on no option of the recipe, so that several runs can
    share it (--cache); whoever keeps something there names it by a digest of all that it depends on;
    overhead: bytes that the output holds besides the payloads of `tensors` (files that go along, manifest, headers);
    target_loss: where training may stop early (--target-loss), or None;
    max_memory: bytes of resident memory that the run may take (--max-memory), or None. What tensors take while they
    are coded is counted already; whoever runs a model looks itself;
    parameters: elements of all tensors that the output will hold, each content once, which bits a weight are counted
    over (0 for a compressor of models);
    twins: name -> the tensor that is stored in its place, for all that are the same bytes as an earlier one.
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
    max_memory: int | None = None
    parameters: int = 0
    twins: Mapping[str, str] = field(default_factory=dict)


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
    """Samples: restartable, the same for the same seed, streamed, split by document before anything else.

    Where there is `save_preprocessing(folder)`, a model that was fitted on the data takes along what it writes: the
    tokenizer, or preprocessor_config.json.
    """

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


class Encoder(Protocol):
    """An analysis transform (x -> latents) and its synthesis transform (latents -> x).

    Built as `Target(options)`, and known only by its options and its state: a decoder in another process is built from
    the same options and given the same state. Keep the options as `self.options`: who trains an encoder on chunks asks
    them for `chunk`, the number m of values a row (16 where there is no such option), and for `bits` or `file`.
    """

    Options: ClassVar[type[Any]] = NoOptions

    def fit(
        self,
        data: Data,
        prior: Prior,
        *,
        seed: int = 0,
        target_loss: float | None = None,
        progress: Progress,
        scratch: Path | None = None,
        seconds: float | None = None,
    ) -> Mapping[str, Any] | None:
        """Train on the batches' `x` float32 [n, m] of the split "training": rate + λ · distortion, until the loss (bits
        a value) is at most target_loss, else (None) until the options' budget is spent.

        The same data, seed and options give the same encoder. scratch: a folder that survives an interruption, to keep
        checkpoints in and to go on from, None for none; seconds: time after which it stops where it is. Returns figures
        that a person should see, by name, or None. Raises CorecompressError when the target isn't reached, or where
        data are missing.
        """

    def encode(self, x: Any) -> Any:
        """Analysis: x [n, m] -> latents [n, k], real numbers, numpy arrays or what numpy.asarray takes; k is the
        encoder's own. They are rounded in multiples of a step by whoever codes them."""

    def decode(self, latents: Any) -> Any:
        """Synthesis: latents [n, k] -> x [n, m], of the shape and dtype that `encode` was given; the same bytes in
        another process."""

    def state_dict(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """What a fitted encoder knows, as plain arrays; saved as safetensors, never pickled."""
        ...

    def load_state_dict(self, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Become the encoder that gave `state`."""


@dataclass(frozen=True)
class Sample:
    """One of the data's samples, or what became of it: text, or an image as bytes (uint8 [height, width, channels], 1
    or 3 channels); caption: what belongs to an image, or ""."""

    text: str | None = None
    image: np.ndarray[Any, np.dtype[np.uint8]] | None = None
    caption: str = ""


class GenerativeEncoder(Encoder, Protocol):
    """An encoder that becomes, when it is fitted, an ordinary Hugging Face checkpoint, and makes new samples.

    `fit` then gives no arrays but a folder that transformers loads: what `compress`, `evaluate` and the hub take.
    """

    def save(self, folder: Path) -> None:
        """Write the checkpoint into `folder`: config.json, safetensors, the tokenizer or preprocessing, a loss plot."""

    def load(self, folder: Path, prior: Prior) -> None:
        """Become the encoder of that checkpoint, compressed or not; `prior` is the one that it was fitted under.
        Raises CorecompressError for a folder that another encoder wrote."""

    def generate(self, n: int, *, prompt: str | None = None, seed: int = 0) -> list[Sample]:
        """n new samples, from draws of the prior; prompt: what they should show or say. Raises CorecompressError for
        a prompt that the encoder can't follow."""
        ...

    def reconstruct(self, batch: Batch) -> list[tuple[Sample, Sample]]:
        """(sample, its reconstruction from its latents) for every sample of a batch."""
        ...


class Coder(Protocol):
    """A frozen prior: integer tables only, the same bytes on every machine. `corecompress.coding` has what it takes."""

    def compress(self, symbols: Any, context: Any = None) -> bytes:
        """Whole numbers [n] (any int32) -> coded bytes, tables excluded; context as in Prior, or None."""
        ...

    def decompress(self, data: bytes, n: int, context: Any = None) -> Any:
        """The n symbols, int32 [n]. Raises CorruptData on bytes that `compress` never wrote."""

    def bits(self, symbols: Any, context: Any = None) -> float:
        """The code length that it claims for symbols [n], in bits: what `compress` takes but for rounding."""
        ...


CLASSES, CLASSES_PER_OCTAVE, CLASS_OF_ONE = 44, 4, 12
"""Scale classes, the context of priors."""


def class_deviation(context: Any) -> Any:
    """Standard deviations that scale classes stand for, 2 ** ((class − 12) / 4); of numbers, arrays or tensors."""
    return 2.0 ** ((context - CLASS_OF_ONE) / CLASSES_PER_OCTAVE)


class Prior(Protocol):
    """A probability model of latents: its rate drives training, its tables drive the entropy coder.

    A latent z is a whole number, or one with noise of ± ½ in training, or a half (a trellis has levels between);
    p(z) is the mass of [z − ½, z + ½] either way. context: None, or for each latent its scale class, a whole number:
    the standard deviation to expect there is `class_deviation(context)` times the prior's own scale. Coders get classes
    0 … CLASSES − 1, `rate` and `fit` also some below 0.
    Where an encoder trains the prior as well, it asks for `parameters()` (torch tensors) and `to(device)`. Where there
    is `divergence(mean, deviation)`, the closed form of KL(N(mean, deviation²) ‖ prior) in nats, elementwise,
    variational encoders take it instead of an estimate. Where `conditional` is true its scale is meant to be told by
    other latents: a hierarchical encoder then learns to tell it.
    """

    Options: ClassVar[type[Any]] = NoOptions

    def rate(self, latents: Any, context: Any = None) -> Any:
        """−log2 p(latents) in bits, of the same shape as latents (a tensor of torch, and differentiable, or an array);
        finite everywhere."""

    def fit(self, symbols: Any, context: Any = None, weights: Any = None) -> None:
        """Set the parameters to the statistics of latents [n], of which each counts weights [n] times (None: once)."""

    def freeze(self, precision: int = 12) -> Coder:
        """The coder for these parameters, probabilities as integers that sum to 2**precision (12 in this release);
        where `fit` was given a context, one with a table for each class."""
        ...

    def sample(self, n: int, seed: int = 0) -> Any:
        """n draws [n], the same for the same seed. Raises NotImplementedError where the prior cannot generate."""


class GenerativePrior(Prior, Protocol):
    """A prior that learns to draw whole latents: by a network, which becomes a part of the fitted model."""

    def build_network(self, latents: int) -> Any:
        """A new torch module for that many latents; the model keeps it, so it is saved and compressed with it."""
        ...

    def fit_latents(self, network: Any, latents: Any, *, seed: int = 0, progress: Progress) -> None:
        """Train the network, in place, on latents [n, k], draws of the posterior; the encoder is trained already."""

    def sample_latents(self, network: Any, n: int, seed: int = 0) -> Any:
        """n draws [n, k], the same for the same seed."""
        ...
