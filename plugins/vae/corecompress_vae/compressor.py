"""The compressor `vae`.

    weights ─► rows and columns scaled ─► trellis quantisation with error feedback ─► rANS under scale classes
                    ▲ steps at equal slope                                              ▲ hyper-latents, tables
              sensitivities: calibration text, or every weight alike

State: number of states of the trellis, one byte; class tables (tables.py). Payload: a byte, 0 for a tensor that is kept
exactly (exact.py), 1 for matrices (matrix.py), each with a varint length in front.
"""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from corecompress.coding.tables import get_varint, put_varint
from corecompress.components import Job, Tensor, TensorCompressor, TensorInfo, option
from corecompress.errors import CorecompressError, CorruptData
from corecompress_vae import sensitivity
from corecompress_vae.exact import decode_exact, encode_exact
from corecompress_vae.layout import Layout, layout_of
from corecompress_vae.matrix import decode_matrix, encode_matrix
from corecompress_vae.plan import SAMPLE, Estimate, Planned, choose_rows, estimate, find_constant
from corecompress_vae.priors import class_tables, gaussian
from corecompress_vae.tables import ClassTables
from corecompress_vae.trellis import POLYNOMIALS, trellis
from corecompress_vae.values import from_float32, to_float32

EXACT, MATRICES = 0, 1


@dataclass(frozen=True)
class Options:
    """Options of `vae`."""

    bits: float | None = option(3.0, "bits a weight of the whole folder: 8 × bytes of all files / all parameters")
    step: float | None = option(None, "instead of bits: the constant c that all steps are multiples of")
    states: int = option(32, "states of the trellis: 4, 8, 16, 32 or 64; more are slower to encode, not to decode")
    calibration_tokens: int = option(32768, "tokens of --data that the model is calibrated on")
    exact: tuple[str, ...] = option((), "patterns of tensors that keep every bit")

    def __post_init__(self) -> None:
        if self.states not in POLYNOMIALS:
            raise ValueError(f"states is {self.states}; it takes one of {', '.join(map(str, POLYNOMIALS))}")
        if (self.bits is None) == (self.step is None):
            if self.step is None:
                raise ValueError("write bits or step")
            object.__setattr__(self, "bits", None)
        if not all(value is None or (math.isfinite(value) and value > 0) for value in (self.bits, self.step)):
            raise ValueError("bits and step are above zero")
        if self.calibration_tokens < 1:
            raise ValueError(f"calibration_tokens is {self.calibration_tokens}; it takes 1 or more")


class Vae(TensorCompressor):
    """Lossy for matrices of floats, exact for all else; takes every tensor."""

    Options: ClassVar[type[Any]] = Options

    def __init__(self, options: Options):
        self.options = options
        self.trellis = trellis(options.states)
        self.tables = class_tables(gaussian)
        self.constant = 0.0
        self.job: Job | None = None
        self.sensitivities: sensitivity.Source = sensitivity.Alike({})

    def memory(self, info: TensorInfo) -> int:
        """Dense bytes twice, float32 twice, levels, and a chunk's symbols; a Hessian's factor where there is one."""
        layout = layout_of(info)
        if layout is None:
            return 4 * info.nbytes + (1 << 20)
        return 2 * info.nbytes + 16 * layout.rows * layout.columns + 4 * layout.columns**2 + (8 << 20)

    def prepare(self, job: Job) -> bytes:
        """Calibrate, find the constant that makes the size, freeze the tables."""
        self.job = job
        matrices = [info for info in job.tensors if self._layout(info) is not None]
        self.sensitivities = sensitivity.of(job, matrices, self.options.calibration_tokens)
        sample = self._sample(job, matrices)
        tables = self.tables

        def attempt(constant: float) -> Estimate:
            nonlocal tables
            found = estimate(sample, constant, tables, self.trellis, job.jobs)
            tables = class_tables(gaussian).refine((found.tables.frequencies * 16).astype(np.int64))
            return found

        if self.options.step is not None:
            self.constant = self.options.step
            attempt(self.constant)
            final = attempt(self.constant)
        else:
            target = self._target(job, matrices)
            start = self.sensitivities.typical_constant()
            attempt(start)  # the first pass finds the tables' shape
            self.constant, tried = find_constant(lambda c: attempt(c).size, target, start)
            self._check_reached(job, tried, target)
            final = attempt(self.constant)
        return bytes([self.trellis.states]) + final.tables.to_bytes()

    def bytes_for(self, constant: float) -> float:
        """Predicted bytes of all matrices' payloads for the constant c. Only after `prepare`."""
        assert self.job is not None
        matrices = [info for info in self.job.tensors if self._layout(info) is not None]
        return estimate(self._sample(self.job, matrices), constant, self.tables, self.trellis, self.job.jobs).size

    def restore(self, state: bytes) -> None:
        if not state or state[0] not in POLYNOMIALS:
            raise CorruptData("the state of vae is damaged")
        self.trellis = trellis(state[0])
        self.tables = ClassTables.from_bytes(state[1:])

    def encode(self, tensor: Tensor) -> bytes:
        info, layout = tensor.info, self._layout(tensor.info)
        weights = None if layout is None else to_float32(tensor.data, info.dtype)
        if layout is None or weights is None or not self._can_code(info, weights):
            return bytes([EXACT]) + encode_exact(tensor.data, info)
        out = bytearray([MATRICES])
        scales = self.sensitivities.get(info.name).scales(self.constant, layout.rows, layout.columns)
        for matrix in _matrices(weights, layout):
            coded = encode_matrix(np.ascontiguousarray(matrix), scales, self.tables, self.trellis, info.dtype == "BF16")
            put_varint(out, len(coded))
            out += coded
        return bytes(out)

    def decode(self, payload: memoryview, info: TensorInfo, threads: int = 1) -> NDArray[np.uint8]:
        mode, layout = (payload[0] if len(payload) else -1), layout_of(info)
        if mode == EXACT:
            return decode_exact(payload[1:], info)
        if mode != MATRICES or layout is None:
            raise CorruptData("a payload is neither exact nor matrices")
        out = np.empty(info.size, np.uint16 if info.dtype == "BF16" else np.float32)
        at = 1
        for matrix in _matrices(out, layout):
            length, used = get_varint(bytes(payload[at : at + 5]), 0)
            at += used
            if at + length > len(payload):
                raise CorruptData("a matrix is cut off")
            decode_matrix(payload[at : at + length], matrix, self.tables, self.trellis, threads)
            at += length
        if at != len(payload):
            raise CorruptData("a payload is longer than it says")
        return from_float32(out, info.dtype)

    def _layout(self, info: TensorInfo) -> Layout | None:
        if any(fnmatch.fnmatchcase(info.name, pattern) for pattern in self.options.exact):
            return None
        return layout_of(info)

    def _can_code(self, info: TensorInfo, weights: NDArray[np.float32]) -> bool:
        """Whether steps suit it: not where all is equal (exact is smaller), nor where values are no numbers."""
        largest = np.abs(weights).max()
        if np.isfinite(largest) and largest < 1e30:
            return bool((weights != weights[0]).any())
        if self.job is not None:
            self.job.progress.note(f"{info.name}: holds NaN, infinity or values beyond 1e30, so it is kept exactly")
        return False

    def _sample(self, job: Job, matrices: list[TensorInfo]) -> list[Planned]:
        total = sum(info.size for info in matrices)
        share = min(0.125, SAMPLE / max(total, 1))
        sample = []
        for info in matrices:
            layout = layout_of(info)
            assert layout is not None
            weights = to_float32(job.source.read(info.name).data, info.dtype)
            if not np.isfinite(np.abs(weights).max()) or not (weights != weights[0]).any():
                continue
            chosen = choose_rows(info, layout, share)
            part = np.ascontiguousarray(_matrices(weights, layout)[0][chosen])
            times = layout.count * layout.rows / chosen.size
            get = lambda name=info.name: self.sensitivities.get(name)  # noqa: E731
            sample.append(Planned(info, layout, part, chosen, times, get))
        return sample

    def _target(self, job: Job, matrices: list[TensorInfo]) -> float:
        """Bytes that the matrices may take, so that the folder has the bits that were asked for."""
        assert self.options.bits is not None
        coded = {info.name for info in matrices}
        rest = [info for info in job.tensors if info.name not in coded]
        exact = sum(len(encode_exact(job.source.read(info.name).data, info)) for info in rest)
        everything = sum(info.size for info in job.source.tensors)
        target = self.options.bits / 8 * everything - job.overhead - exact
        least = 8 * (job.overhead + exact) / everything
        if target <= 0:
            raise CorecompressError(
                f"vae(bits={self.options.bits:g}): the other files and exact tensors alone are {least:.2f} bits "
                f"a weight; ask for {least + 1:.1f} or more"
            )
        return target

    def _check_reached(self, job: Job, tried: list[tuple[float, float]], target: float) -> None:
        nearest = min((size for _, size in tried), key=lambda size: abs(size / target - 1))
        if abs(nearest / target - 1) > 0.02:
            everything = sum(info.size for info in job.source.tensors)
            bits = 8 * (nearest - target) / everything + (self.options.bits or 0)
            way = "least" if nearest > target else "most"
            raise CorecompressError(
                f"vae(bits={self.options.bits:g}): can't be reached; about {bits:.2f} is the {way} for this checkpoint"
            )


def _matrices(flat: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """The matrices [count, rows, columns] of a tensor's elements, as views."""
    if layout.turned:
        return flat.reshape(layout.count, layout.columns, layout.rows).transpose(0, 2, 1)
    return flat.reshape(layout.count, layout.rows, layout.columns)
