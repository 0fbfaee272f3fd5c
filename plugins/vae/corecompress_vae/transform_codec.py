"""The codec of learned encoders: chunks ─► analysis ─► rounded latents ─► rANS, a table a channel.

A matrix's bytes: row codes, column codes, the code of its latents' step, a table a channel, the latents. The networks
are part of the state and are counted. There is no error feedback: a network mixes its chunk's weights, so an error
has no column that it belongs to.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from corecompress.coding import Tables, decode, decode_bytes, encode, encode_bytes
from corecompress.coding.tables import get_varint, put_varint
from corecompress.components import Job
from corecompress.errors import CorecompressError, CorruptData
from corecompress.plugins import registry
from corecompress.recipe import Spec, build, parse_spec
from corecompress_vae.chunks import fit_codes, from_chunks, to_chunks
from corecompress_vae.fitted import fitted_spec, load_fitted
from corecompress_vae.levels import LEAST, MOST, code_steps
from corecompress_vae.options import Options
from corecompress_vae.plan import Planned, Sensitivity, find_constant, weights_of
from corecompress_vae.values import to_bf16

FINE = 1 << 24
"""Latents larger than that are cut: float32 counts no further."""
OVERHEAD = 60
"""Bytes of a matrix besides codes, tables and words: lengths, coder states."""
STEP = 8
"""Codes of a step are 64ths of an octave; matrices take multiples of this."""


class TransformCodec:
    """An encoder, trained on the checkpoint's own chunks or read from a file, and the constant of all steps."""

    def __init__(self, spec: Spec):
        self.spec = spec
        self.encoder: Any = build(registry(), "encoder", spec)
        self.constant = 1.0
        self.prior = Spec("factorized")
        self.file: str | None = None
        """The folder of a fitted encoder."""

    @classmethod
    def from_options(cls, options: Options) -> TransformCodec:
        """One that is still to be prepared; its rate of training is the recipe's, unless it says its own. Raises
        CorecompressError for a file that holds no such encoder."""
        spec = options.encoder
        codec = cls(spec)
        file = getattr(codec.encoder.options, "file", None)
        if file is not None:
            codec = cls(fitted_spec(file, spec.name))
            codec.file = file
            return codec
        if hasattr(codec.encoder.options, "bits") and "bits" not in spec.options and options.rate is not None:
            codec = cls(Spec(spec.name, {**spec.options, "bits": min(max(options.rate, 0.5), 8.0)}))
        codec.prior = options.prior if options.prior != Spec("hierarchical") else Spec("factorized")
        return codec

    @classmethod
    def from_bytes(cls, data: bytes) -> TransformCodec:
        """One that decodes. Raises CorruptData."""
        length, at = get_varint(data[:5], 0)
        try:
            spec = parse_spec(json.loads(data[at : at + length]))
            state = load(data[at + length :])
        except Exception:
            raise CorruptData("the encoder's state is damaged") from None
        codec = cls(spec)
        codec.encoder.load_state_dict(state)
        return codec

    def to_bytes(self) -> bytes:
        """The encoder's name and options, and its weights (float32; safetensors)."""
        out, name = bytearray(), json.dumps(str(self.spec)).encode()
        put_varint(out, len(name))
        state = {key: np.ascontiguousarray(value) for key, value in self.encoder.state_dict().items()}
        return bytes(out) + name + save(state)

    @property
    def chunk(self) -> int:
        """Weights of a chunk."""
        return int(getattr(self.encoder.options, "chunk", 16))

    def prepare(self, sample: list[Planned], target: float | None, step: float | None, job: Job) -> float:
        """See compressor.Codec."""
        self._fit(job)
        # what a size is predicted from: latents of the sample, under each matrix's own step
        seen = []
        for planned in sample:
            rows, columns = fit_codes(planned.weights)
            x = to_chunks(planned.weights, rows, columns, self.chunk)
            seen.append((planned, np.asarray(self.encoder.encode(x)), _width(planned.sensitivity(), planned.weights)))

        def size_of(constant: float) -> float:
            total = 0.0
            for planned, latents, width in seen:
                symbols = _round(latents, code_steps(_step_code(constant, width))[0])
                tables, index = _tables(symbols)
                layout = planned.layout
                more = len(tables.to_bytes()) + 0.7 * (layout.rows + layout.columns) + OVERHEAD
                total += planned.times * tables.bits(symbols.reshape(-1), index) / 8 + planned.count * more
            return total

        if target is None:
            assert step is not None
            self.constant = step
        else:
            left = target - len(self.to_bytes())
            if left <= 0:
                raise CorecompressError(f"vae: the encoder {self.spec.name} alone is larger than what was asked for")
            self.constant = find_constant(size_of, left, 1.0, weights_of(sample), most=20)
        return size_of(self.constant) + len(self.to_bytes())

    def _fit(self, job: Job) -> None:
        if self.file is not None:
            load_fitted(self.file, self.encoder)
            return
        data = build(registry(), "data", Spec("weights", {"chunk": self.chunk}), str(job.source.folder))
        prior = build(registry(), "prior", self.prior)
        self.encoder.fit(data, prior, seed=job.seed, progress=job.progress, scratch=job.scratch / "training")

    def encode(self, weights: NDArray[np.float32], wanted: Sensitivity, bf16: bool) -> bytes:
        """See compressor.Codec."""
        rows, columns = fit_codes(weights)
        latents = np.asarray(self.encoder.encode(to_chunks(weights, rows, columns, self.chunk)))
        code = _step_code(self.constant, _width(wanted, weights))
        symbols = _round(latents, code_steps(code)[0])
        tables, index = _tables(symbols)
        out, table_bytes = bytearray(), tables.to_bytes()
        put_varint(out, int(code[0]) - LEAST)
        for block in (encode_bytes(rows), encode_bytes(columns), table_bytes):
            put_varint(out, len(block))
            out += bytes(block)
        return bytes(out) + encode(symbols.reshape(-1), tables, index).tobytes()

    def decode(self, data: memoryview, out: NDArray[Any], threads: int) -> None:
        """See compressor.Codec."""
        at = 0

        def number() -> int:
            nonlocal at
            value, used = get_varint(bytes(data[at : at + 5]), 0)
            at += used
            return value

        def block() -> memoryview:
            nonlocal at
            length = number()
            if at + length > len(data):
                raise CorruptData("a matrix is cut off")
            at += length
            return data[at - length : at]

        code = number() + LEAST
        if code > MOST:
            raise CorruptData("a step is out of range")
        o, n = out.shape
        rows, columns = decode_bytes(block(), o), decode_bytes(block(), n)
        tables = Tables.from_bytes(block())
        channels, chunks = len(tables.length), o * -(-n // self.chunk)
        index = np.tile(np.arange(channels, dtype=np.uint16), chunks)
        symbols = decode(data[at:], chunks * channels, tables, index, threads=threads).reshape(chunks, channels)
        latents = symbols.astype(np.float32) * code_steps(np.array([code]))[0]
        decoded = from_chunks(np.asarray(self.encoder.decode(latents)), rows, columns)
        out[:] = to_bf16(np.ascontiguousarray(decoded)) if out.dtype == np.uint16 else decoded


def _width(wanted: Sensitivity, weights: NDArray[np.float32]) -> float:
    """Wanted step over a weight's standard deviation, before the constant."""
    deviation = float(np.sqrt(np.mean(np.square(weights, dtype=np.float64))))
    step = float(np.exp(np.log(wanted.columns.astype(np.float64)).mean() + np.log(wanted.rows).mean()))
    return step / max(deviation, 1e-30)


def _step_code(constant: float, width: float) -> NDArray[np.int64]:
    code = round(64 * float(np.log2(max(constant * width, 2.0**-40))) / STEP) * STEP
    return np.array([min(max(code, LEAST), MOST)])


def _round(latents: NDArray[np.float32], step: np.float32) -> NDArray[np.int64]:
    return np.clip(np.rint(latents / step), -FINE, FINE).astype(np.int64)


def _tables(symbols: NDArray[np.int64]) -> tuple[Tables, NDArray[np.uint16]]:
    """(a table for each channel of symbols [n, channels], which one each symbol is read with [n · channels])."""
    channels, lows = symbols.shape[1], symbols.min(0)
    counts = [np.bincount(np.minimum(symbols[:, c] - lows[c], 4096)) for c in range(channels)]
    return Tables.from_counts(counts, lows), np.tile(np.arange(channels, dtype=np.uint16), len(symbols))
