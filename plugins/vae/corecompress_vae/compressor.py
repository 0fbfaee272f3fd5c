"""The compressor `vae`.

    weights ─► (rotated) ─► encoder: scales and latents ─► quantised at equal slope ─► rANS under the prior's tables
                                  ▲ sensitivities: calibration text, or every weight alike

State: a byte of flags (1: rotated), a byte that names the codec, the codec's own. Payload: a byte, 0 for a tensor that
is kept exactly (exact.py), 1 for matrices as `layout_of` says, 2 for the other way round; each matrix with a varint
length in front.
"""

from __future__ import annotations

import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from corecompress.coding.tables import get_varint, put_varint
from corecompress.components import Job, Tensor, TensorCompressor, TensorInfo
from corecompress.errors import CorecompressError, CorruptData, OutOfReach
from corecompress.floats import to_float32
from corecompress.hashing import hash_bytes
from corecompress.plugins import registry
from corecompress.recipe import build
from corecompress_vae import kept, rotation, sensitivity
from corecompress_vae.exact import decode_exact, encode_exact
from corecompress_vae.layout import Layout, layout_of
from corecompress_vae.level_codec import LevelCodec
from corecompress_vae.options import Options, states_of
from corecompress_vae.plan import ENOUGH, SAMPLE, Planned, Sensitivity, choose_matrices, choose_rows
from corecompress_vae.trellis import POLYNOMIALS, SCALAR
from corecompress_vae.values import HUGE, TINY, from_float32, to_bf16

EXACT, MATRICES, OTHER_WAY = 0, 1, 2
ROTATED = 1
TRANSFORM = 255
"""Names the codec of learned encoders; below it, states of a trellis."""
LEVELS = ("identity", "scale-hyperprior")
"""Encoders that only scale: their latents are levels of the weights themselves, so feedback can work on them."""
NEAR = 0.02
"""Share of the target by which a size may be missed before it counts as out of reach."""


class Codec(Protocol):
    """What codes matrices float32 [o, n]."""

    def prepare(self, sample: list[Planned], target: float | None, step: float | None, job: Job) -> float:
        """Fit tables and the constant that makes `target` bytes, or for the constant `step`; the bytes expected."""

    def to_bytes(self) -> bytes:
        """All that `decode` needs."""

    def encode(self, weights: NDArray[np.float32], wanted: Sensitivity, bf16: bool) -> bytes:
        """One matrix's bytes."""

    def decode(self, data: memoryview, out: NDArray[Any], threads: int) -> None:
        """Into out [o, n], float32, or uint16 for bits of bfloat16. Raises CorruptData."""


class Vae(TensorCompressor):
    """Lossy for matrices of floats, exact for all else; takes every tensor."""

    Options: ClassVar[type[Any]] = Options

    def __init__(self, options: Options):
        self.options = options
        self.rotated = options.rotation == "hadamard"
        self.codec: Codec | None = None
        self.reader: Codec | None = None
        """What `restore` made: a codec that decodes, of the same state as everybody's."""
        self.job: Job | None = None
        self.coded: Path | None = None
        """Where payloads are that `prepare` has made already."""
        self.sensitivities: sensitivity.Source = sensitivity.Alike({})

    def memory(self, info: TensorInfo) -> int:
        """Dense bytes twice, float32 twice, levels, and a chunk's symbols; a Hessian's factor where there is one."""
        layout = layout_of(info)
        if layout is None:
            return 4 * info.nbytes + (1 << 20)
        return 2 * info.nbytes + 16 * layout.rows * layout.columns + 4 * layout.columns**2 + (8 << 20)

    def prepare(self, job: Job) -> bytes:
        """Calibrate, find the constant that makes the size, freeze the tables."""
        self.job, options = job, self.options
        self._check_options(job)
        kind = TRANSFORM if options.encoder.name not in LEVELS else states_of(options.quantizer)
        self.codec = self._codec(kind)
        matrices = [info for info in job.tensors if self._is_coded(info)]
        source = sensitivity.of(job, matrices, options.calibration, options.calibration_tokens)
        calibrated = isinstance(source, sensitivity.Calibrated)
        if self.rotated:
            source = sensitivity.Rotated(source, job.scratch / "rotated")
        self.sensitivities = source
        rate = options.rate
        target = None if rate is None else self._target(job, matrices, rate)
        sample = self._sample(job, matrices)
        size = self.codec.prepare(sample, target, options.step, job)
        if rate is not None and target is not None:
            self._check_reached(job, size, target, rate)
        state = bytes([ROTATED * self.rotated, kind]) + self.codec.to_bytes()
        if calibrated:
            usable = {planned.name for planned in sample}
            self._code_in_order(job, [info for info in matrices if info.name in usable], state)
        return state

    def _code_in_order(self, job: Job, matrices: list[TensorInfo], state: bytes) -> None:
        """Code what makes up for errors before it now, for `encode` to find; a run that was killed finds it too."""
        folder = job.scratch / f"coded-{hash_bytes(state)[:24]}"
        done = folder / "done"
        if not done.exists():
            from corecompress_vae.sequential import code_in_order

            self.restore(state)
            folder.mkdir(parents=True, exist_ok=True)

            def code(info: TensorInfo, weights: NDArray[np.float32]) -> NDArray[np.uint8]:
                payload = self._encode(info, weights)
                kept.keep(folder, info.name, {"payload": np.frombuffer(payload, np.uint8)})
                return self.decode(memoryview(payload), info)

            on_disk = self.options.calibration == "layers"
            code_in_order(job, matrices, self.options.calibration_tokens, on_disk, code)
            done.touch()
        self.coded = folder

    def restore(self, state: bytes) -> None:
        if len(state) < 2 or state[0] > ROTATED:
            raise CorruptData("the state of vae is damaged")
        self.rotated = bool(state[0])
        if state[1] == TRANSFORM:
            from corecompress_vae.transform_codec import TransformCodec

            self.reader = TransformCodec.from_bytes(state[2:])
        elif state[1] in (SCALAR, *POLYNOMIALS):
            self.reader = LevelCodec.from_bytes(state[1], state[2:])
        else:
            raise CorruptData("the state of vae names no codec")

    def encode(self, tensor: Tensor) -> bytes:
        info = tensor.info
        coded = kept.load(self.coded, info.name) if self.coded else None
        if coded is not None:
            return coded["payload"].tobytes()
        weights = to_float32(tensor.data, info.dtype) if self._is_coded(info) else None
        if weights is None or not self._can_code(info, weights):
            return bytes([EXACT]) + encode_exact(tensor.data, info)
        return self._encode(info, weights)

    def _encode(self, info: TensorInfo, weights: NDArray[np.float32]) -> bytes:
        """The payload of matrices' elements float32, flat."""
        assert self.codec is not None
        first = self.sensitivities.get(info.name)
        layout, mode = _oriented(info, first)
        out = bytearray([mode])
        for number, matrix in enumerate(layout.matrices(weights)):
            wanted = self.sensitivities.get(info.name, number) if number else first
            wanted = wanted.of_shape(layout.rows, layout.columns)
            turned = rotation.rotate(matrix, info.name) if self.rotated else np.ascontiguousarray(matrix)
            coded = self.codec.encode(turned, wanted, info.dtype == "BF16" and not self.rotated)
            put_varint(out, len(coded))
            out += coded
        return bytes(out)

    def decode(self, payload: memoryview, info: TensorInfo, threads: int = 1) -> NDArray[np.uint8]:
        mode, layout = (payload[0] if len(payload) else -1), layout_of(info)
        if mode == EXACT:
            return decode_exact(payload[1:], info)
        if mode not in (MATRICES, OTHER_WAY) or layout is None or self.reader is None:
            raise CorruptData("a payload is neither exact nor matrices")
        layout = layout if mode == MATRICES else layout.other_way()
        at_once = info.dtype == "BF16" and not self.rotated
        out = np.empty(info.size, np.uint16 if at_once else np.float32)
        at = 1
        for matrix in layout.matrices(out):
            length, used = get_varint(bytes(payload[at : at + 5]), 0)
            at += used
            if at + length > len(payload):
                raise CorruptData("a matrix is cut off")
            self.reader.decode(payload[at : at + length], matrix, threads)
            if self.rotated:
                turned = np.ascontiguousarray(matrix)
                rotation.rotate_back(turned, info.name)
                matrix[:] = turned
            at += length
        if at != len(payload):
            raise CorruptData("a payload is longer than it says")
        if info.dtype == "BF16" and not at_once:
            out = to_bf16(out)
        return from_float32(out, info.dtype)

    def _codec(self, kind: int) -> Codec:
        options = self.options
        if kind == TRANSFORM:
            from corecompress_vae.transform_codec import TransformCodec

            return TransformCodec.from_options(options)
        build(registry(), "encoder", options.encoder)  # raises for options that it does not have
        return LevelCodec.from_options(kind, options.prior, by_row=options.encoder.name == "scale-hyperprior")

    def _check_options(self, job: Job) -> None:
        """Raises CorecompressError for a pattern that no tensor of the checkpoint has, and for a way to calibrate
        without data."""
        names = [info.name for info in job.source.tensors]
        for pattern in self.options.exact:
            if not fnmatch.filter(names, pattern):
                raise CorecompressError(
                    f"vae(exact={pattern!r}): no tensor has a name like that; `corecompress inspect` lists them"
                )
        if self.options.calibration == "layers" and job.data is None:
            raise CorecompressError("vae(calibration=layers): there is nothing to calibrate on; add --data text:FILE")

    def _is_coded(self, info: TensorInfo) -> bool:
        if any(fnmatch.fnmatchcase(info.name, pattern) for pattern in self.options.exact):
            return False
        return layout_of(info) is not None

    def _can_code(self, info: TensorInfo, weights: NDArray[np.float32]) -> bool:
        """Whether steps suit it: not where all is equal (exact is smaller), nor where values are no numbers."""
        if _is_usable(weights):
            return True
        largest = np.abs(weights).max()
        if self.job is not None and not (np.isfinite(largest) and largest < HUGE):
            self.job.progress.note(f"{info.name}: holds NaN, infinity or values beyond 1e30, so it is kept exactly")
        return False

    def _sample(self, job: Job, matrices: list[TensorInfo]) -> list[Planned]:
        total = sum(info.size for info in matrices)
        share = min(1.0, max(min(0.125, SAMPLE / max(total, 1)), ENOUGH / max(total, 1)))
        sample = []
        for info in matrices:
            weights = to_float32(job.source.read(info.name).data, info.dtype)
            if not _is_usable(weights):
                continue
            layout, _ = _oriented(info, self.sensitivities.get(info.name))
            numbers = choose_matrices(layout, share)
            count = layout.count / numbers.size
            chosen = choose_rows(info.name, layout, share * count)
            times = count * layout.rows / chosen.size
            bf16 = info.dtype == "BF16" and not self.rotated
            for number in numbers:
                part = np.ascontiguousarray(layout.matrices(weights)[number][chosen])
                part = rotation.rotate(part, info.name) if self.rotated else part
                get = partial(self.sensitivities.get, info.name, int(number))
                sample.append(Planned(info.name, bf16, layout, count, part, chosen, times, get))
        return sample

    def _target(self, job: Job, matrices: list[TensorInfo], rate: float) -> float:
        """Bytes that the matrices may take, so that the folder has the bits that were asked for."""
        coded = {info.name for info in matrices}
        exact = 0
        for info in job.tensors:
            data = job.source.read(info.name).data
            if info.name not in coded or not _is_usable(to_float32(data, info.dtype)):
                exact += len(encode_exact(data, info))
        target = rate / 8 * job.parameters - job.overhead - exact
        least = 8 * (job.overhead + exact) / max(job.parameters, 1)
        if target <= 0:
            raise OutOfReach(
                f"vae(bits={rate:g}): the other files and exact tensors alone are {least:.2f} bits "
                "a weight; ask for more than that",
                least,
            )
        return target

    def _check_reached(self, job: Job, size: float, target: float, rate: float) -> None:
        if abs(size / target - 1) > NEAR:
            bits = 8 * (size - target) / job.parameters + rate
            leaps = abs(size / target - 1) < 5 * NEAR  # as tables do at a few tenths of a bit
            way = "nearest" if leaps else "least" if size > target else "most"
            raise OutOfReach(
                f"vae(bits={rate:g}): can't be reached; about {bits:.2f} is the {way} for this checkpoint",
                bits,
            )


def _is_usable(weights: NDArray[np.float32]) -> bool:
    largest = np.abs(weights).max(initial=0)
    return bool(np.isfinite(largest) and TINY < largest < HUGE and (weights != weights[:1]).any())


def _oriented(info: TensorInfo, wanted: Sensitivity) -> tuple[Layout, int]:
    """The layout that a sensitivity is for, and the payload's mode: feedback needs inputs as columns."""
    layout = layout_of(info)
    assert layout is not None
    if wanted.unit is None or wanted.turned == layout.turned:
        return layout, MATRICES
    return layout.other_way(), OTHER_WAY
