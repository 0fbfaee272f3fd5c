"""Lossless coding in memory against ZipNN and zstandard, in one process: size, MB/s, and ratios to ZipNN.

    python tests/benchmarks/lossless_speed.py CHECKPOINT… [--runs 5]

CHECKPOINT is a folder with one model.safetensors (default: the demo). Needs `pip install zipnn zstandard`. Every coder
sees the same tensors one by one in memory of their own; runs alternate; medians are printed. A tensor's payload is all
that its decoder needs; ZipNN and zstandard get the whole weight file in one call, which suits them better than tensors.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from corecompress.checkpoint import Checkpoint, open_checkpoint
from corecompress_lossless.compressor import Lossless, Options

ONE_DTYPE = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class Ours:
    def __init__(self, checkpoint: Checkpoint, threads: int, level: int = 2):
        self.name = f"lossless(level={level}), {threads} thread{'s' * (threads > 1)}"
        self.tensors, self.threads, self.coder = (
            [s.read() for s in checkpoint.stored()],
            threads,
            Lossless(Options(level)),
        )

    def encode(self) -> list[bytes]:
        if self.threads == 1:
            return [self.coder.encode(tensor) for tensor in self.tensors]
        from corecompress.engines.local import run_in_order

        results = run_in_order(self.coder.encode, self.tensors, lambda t: t.info.nbytes, self.threads, 1 << 40)
        return [payload for _, payload in results]

    def decode(self, payloads: list[bytes]) -> None:
        for tensor, payload in zip(self.tensors, payloads, strict=True):
            self.last = self.coder.decode(memoryview(payload), tensor.info, self.threads)

    def check(self, payloads: list[bytes]) -> bool:
        pairs = zip(self.tensors, payloads, strict=True)
        return all(np.array_equal(self.coder.decode(memoryview(p), t.info), t.data) for t, p in pairs)


class Whole:
    """A coder of one buffer: the weight file's data."""

    def __init__(self, name: str, data: bytes, encode: Callable[[bytes], bytes], decode: Callable[[bytes], bytes]):
        self.name, self.data, self._encode, self._decode = name, data, encode, decode

    def encode(self) -> list[bytes]:
        return [self._encode(self.data)]

    def decode(self, payloads: list[bytes]) -> None:
        self.last = self._decode(payloads[0])

    def check(self, payloads: list[bytes]) -> bool:
        return self._decode(payloads[0]) == self.data


def peers(checkpoint: Checkpoint) -> list[Whole]:
    shard = checkpoint.shards[0]
    data = shard.path.read_bytes()[shard.data_start :]
    found = []
    try:
        from zipnn import ZipNN

        dtype = ONE_DTYPE[max(checkpoint.tensors, key=lambda t: t.nbytes).dtype]
        for threads in (1, 2):
            z = ZipNN(input_format="byte", bytearray_dtype=dtype, threads=threads)

            def zip_encode(b: bytes, z: ZipNN = z) -> bytes:
                return bytes(z.compress(bytearray(b)))  # it may overwrite its input

            def zip_decode(b: bytes, z: ZipNN = z) -> bytes:
                return bytes(z.decompress(bytearray(b)))

            found.append(Whole(f"zipnn, {threads} thread{'s' * (threads > 1)}", data, zip_encode, zip_decode))
    except ImportError:
        print("zipnn is not installed: no ratios")
    try:
        import zstandard

        compress, decompress = zstandard.ZstdCompressor(level=3).compress, zstandard.ZstdDecompressor().decompress
        found.append(Whole("zstd -3, 1 thread", data, compress, decompress))
    except ImportError:
        print("zstandard is not installed")
    return found


def measure(folder: str, runs: int) -> None:
    checkpoint = open_checkpoint(folder)
    total = sum(info.nbytes for info in checkpoint.tensors)
    coders = [Ours(checkpoint, 1), Ours(checkpoint, 2), Ours(checkpoint, 1, level=1), *peers(checkpoint)]
    seconds: dict[str, tuple[list[float], list[float]]] = {coder.name: ([], []) for coder in coders}
    sizes = {}
    for run in range(runs + 1):
        for coder in coders:
            begun = time.perf_counter()
            payloads = coder.encode()
            middle = time.perf_counter()
            coder.decode(payloads)
            end = time.perf_counter()
            if run == 0:  # warms up, and is checked
                sizes[coder.name] = sum(map(len, payloads))
                assert coder.check(payloads), coder.name
            else:
                seconds[coder.name][0].append(middle - begun)
                seconds[coder.name][1].append(end - middle)
    print(f"\n{Path(folder).name}: {total:,} bytes of tensors, {runs} runs, medians")
    print(
        f"{'coder':30} {'bytes':>12} {'share':>7} {'encode MB/s':>12} {'decode MB/s':>12} {'÷ zipnn same threads':>22}"
    )
    for coder in coders:
        speed = [total / 1e6 / statistics.median(times) for times in seconds[coder.name]]
        twin = "zipnn, " + coder.name.rpartition(", ")[2]
        ratio = ""
        if twin in seconds:
            theirs = [total / 1e6 / statistics.median(times) for times in seconds[twin]]
            ratio = f"{speed[0] / theirs[0]:.2f} / {speed[1] / theirs[1]:.2f}"
        share = sizes[coder.name] / total
        print(f"{coder.name:30} {sizes[coder.name]:12,} {share:7.4f} {speed[0]:12.0f} {speed[1]:12.0f} {ratio:>22}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("checkpoint", nargs="*", default=["demo"])
    arguments.add_argument("--runs", type=int, default=5)
    given = arguments.parse_args()
    for name in given.checkpoint:
        measure(name, given.runs)
