"""How fast the tensors of a compressed folder decode, in millions of weights a second on one core.

    python tests/benchmarks/decode_speed.py FOLDER… [--runs 5]

Through the compressor's own `decode`, scales, rounding to the tensor's dtype and escapes included; hashing and reading
from disk are not. Folders alternate; medians. Tensors of no lossy component don't count.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

from corecompress.artifact import NUMBER_BYTES, Artifact


class Folder:
    """Payloads in memory, decoders built."""

    def __init__(self, path: Path):
        artifact = Artifact(path)
        artifact.load_decoders()
        self.parts = []
        for record in artifact.manifest.tensors:
            decoder = artifact.decoders[record.component]
            if record.same_as is None and decoder is not None and not decoder.exact and len(record.shape) > 1:
                payload = artifact.payload(record.name)[NUMBER_BYTES:]
                self.parts.append((decoder, memoryview(payload.data), record.info))
        self.weights = sum(info.size for _, _, info in self.parts)

    def seconds(self) -> float:
        """Of decoding all once."""
        begun = time.process_time()  # one thread: what others do on the machine doesn't count
        for decoder, payload, info in self.parts:
            decoder.decode(payload, info, 1)
        return time.process_time() - begun


def speeds(paths: list[Path], runs: int) -> list[float]:
    """Millions of weights a second of each folder."""
    folders = [Folder(path) for path in paths]
    for folder in folders:
        folder.seconds()  # compiles
    taken: list[list[float]] = [[] for _ in folders]
    for _ in range(runs):
        for times, folder in zip(taken, folders, strict=True):
            times.append(folder.seconds())
    return [f.weights / 1e6 / statistics.median(times) for f, times in zip(folders, taken, strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    for name, speed in zip(given.folders, speeds(given.folders, given.runs), strict=True):
        print(f"{name!s:40} {speed:8.1f} million weights a second, one thread")
