"""The entropy coder: Msym/s and size over the entropy, and ratios to constriction where it is installed.

    python tests/benchmarks/coder_speed.py [--symbols 4194304] [--runs 9]

Sources: a 63-symbol Gaussian of about 3 bits; the same over 16 scales, a table each; exponents of random weights as a
byte plane, contiguous and every fourth byte. Medians of runs that alternate between the coders; every decoded array is
compared once. "First use" is a process of its own with the compiled kernels on disk.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from corecompress.coding import Tables, decode, decode_bytes, encode, encode_bytes

FIRST_USE = """
import time, numpy as np
begun = time.perf_counter()
from corecompress.coding import Tables, decode, encode
imported = time.perf_counter()
symbols = (np.arange(1000) % 5).astype(np.uint8)
tables = Tables.from_counts([np.bincount(symbols)], [0])
data = encode(symbols, tables)
middle = time.perf_counter()
decode(data, 1000, tables, dtype=np.uint8)
print(f"{imported - begun:.3f} s import, {middle - imported:.3f} s first tables and encode, "
      f"{time.perf_counter() - middle:.3f} s first decode")
"""


@dataclass
class Case:
    name: str
    group: str
    n: int
    entropy: float
    encode: Callable[[], Any]
    decode: Callable[[Any], np.ndarray]
    expected: np.ndarray


def entropy(symbols: np.ndarray) -> float:
    """Bits of all symbols at their empirical entropy."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / symbols.size)).sum())


def single_table(n: int, rng: np.random.Generator) -> list[Case]:
    symbols = np.clip(np.round(rng.normal(0, 2.0, n)), -31, 31).astype(np.int32)
    small, bits = (symbols + 31).astype(np.uint8), entropy(symbols)
    counts = np.bincount(small, minlength=63)
    plain, shifted = Tables.from_counts([counts], [-31]), Tables.from_counts([counts], [0])
    cases = []
    for threads in (1, 2):
        cases += [
            Case(
                f"uint8, one table, {threads} thread",
                "gaussian",
                n,
                bits,
                lambda threads=threads: encode(small, shifted, threads=threads),
                lambda data, threads=threads: decode(data, n, shifted, dtype=np.uint8, threads=threads),
                small,
            ),
            Case(
                f"int32, one table, {threads} thread",
                "gaussian",
                n,
                bits,
                lambda threads=threads: encode(symbols, plain, threads=threads),
                lambda data, threads=threads: decode(data, n, plain, threads=threads),
                symbols,
            ),
        ]
    return cases + constriction_cases(small, bits)


def constriction_cases(small: np.ndarray, bits: float) -> list[Case]:
    try:
        import constriction
    except ImportError:
        print("constriction is not installed: no ratios (pip install constriction)")
        return []
    share = np.bincount(small, minlength=63) + 1e-9
    model = constriction.stream.model.Categorical(share / share.sum(), perfect=False)
    symbols = small.astype(np.int32)

    def ans() -> np.ndarray:
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(symbols, model)
        return coder.get_compressed()

    def queue() -> np.ndarray:
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(symbols, model)
        return coder.get_compressed()

    n = small.size
    return [
        Case(
            "constriction ANS", "gaussian", n, bits, ans,
            lambda data: constriction.stream.stack.AnsCoder(data).decode(model, n), symbols,
        ),
        Case(
            "constriction range coder", "gaussian", n, bits, queue,
            lambda data: constriction.stream.queue.RangeDecoder(data).decode(model, n), symbols,
        ),
    ]  # fmt: skip


def many_tables(n: int, rng: np.random.Generator, count: int) -> list[Case]:
    scale, index = np.exp(rng.uniform(-1, 2, count)), rng.integers(0, count, n).astype(np.uint16)
    symbols = np.clip(np.round(rng.normal(0, 1, n) * scale[index]), -60, 60).astype(np.int32)
    rows = [np.bincount(symbols[index == k] + 60, minlength=121) for k in range(count)]
    tables, bits = Tables.from_counts(rows, [-60] * count), sum(entropy(symbols[index == k]) for k in range(count))
    return [
        Case(
            f"int32, {count} tables, {threads} thread",
            f"tables {count}",
            n,
            bits,
            lambda threads=threads: encode(symbols, tables, index, threads=threads),
            lambda data, threads=threads: decode(data, n, tables, index, threads=threads),
            symbols,
        )
        for threads in (1, 2)
    ]


def byte_planes(n: int, rng: np.random.Generator) -> list[Case]:
    weights = rng.normal(0, 0.02, n).astype("<f4").view(np.uint32)
    spread = (weights << 1).view(np.uint8).reshape(n, 4)[:, 3]
    plane, bits = spread.copy(), entropy(spread)
    into = np.empty((n, 4), np.uint8)[:, 3]
    return [
        Case("exponent plane", "plane", n, bits, lambda: encode_bytes(plane), lambda d: decode_bytes(d, n), plane),
        Case(
            "exponent plane, stride 4", "plane", n, bits,
            lambda: encode_bytes(spread), lambda d: decode_bytes(d, n, out=into), plane,
        ),
    ]  # fmt: skip


def measure(cases: list[Case], runs: int) -> None:
    times: dict[str, tuple[list[float], list[float]]] = {case.name: ([], []) for case in cases}
    sizes = {}
    for run in range(runs + 1):
        for case in cases:
            begun = time.perf_counter()
            data = case.encode()
            middle = time.perf_counter()
            out = case.decode(data)
            end = time.perf_counter()
            if run == 0:  # warms up, and is checked
                sizes[case.name] = data.nbytes
                assert np.array_equal(out, case.expected), case.name
            else:
                times[case.name][0].append(middle - begun)
                times[case.name][1].append(end - middle)
    speed = {name: [statistics.median(t) for t in pair] for name, pair in times.items()}
    head = f"{'coder':32} {'bits/sym':>9} {'over H':>8} {'encode Msym/s':>14} {'decode Msym/s':>14}"
    print(f"{head} {'÷ constriction ANS':>20}")
    for case in cases:
        ours, theirs = speed[case.name], speed.get("constriction ANS")
        comparable = theirs and case.group == "gaussian" and "2 thread" not in case.name
        ratio = f"{theirs[0] / ours[0]:.2f} / {theirs[1] / ours[1]:.2f}" if comparable else ""
        over = 8 * sizes[case.name] / case.entropy - 1
        rate = [case.n / 1e6 / seconds for seconds in ours]
        bits = 8 * sizes[case.name] / case.n
        print(f"{case.name:32} {bits:9.4f} {over:8.3%} {rate[0]:14.0f} {rate[1]:14.0f} {ratio:>20}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--symbols", type=int, default=1 << 22)
    arguments.add_argument("--runs", type=int, default=9)
    given = arguments.parse_args()
    generator, found = np.random.default_rng(0), []
    found += single_table(given.symbols, generator)
    for tables_count in (16, 64, 256):
        found += many_tables(given.symbols, generator, tables_count)
    found += byte_planes(given.symbols, generator)
    measure(found, given.runs)
    for _ in range(2):  # the first may still have to compile
        used = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, check=True)
    print(f"first use: {used.stdout.strip()}")
