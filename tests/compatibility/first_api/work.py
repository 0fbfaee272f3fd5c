"""What the first HOOK_API asked for, and no more. Never change it."""

import shutil
from dataclasses import dataclass

import numpy as np

from corecompress import option
from corecompress.coding import Tables, decode, encode
from corecompress.components import DataReport, ModelCompressor, NoOptions, TensorCompressor
from corecompress.errors import CorecompressError


@dataclass(frozen=True)
class Options:
    note: str = option("hello", "a text that does nothing")
    parts: tuple[int, ...] = option((1, 2), "numbers that do nothing")


class Store(TensorCompressor):
    Options = Options
    exact = True

    def __init__(self, options):
        self.options, self.key = options, 0

    def accepts(self, info):
        return info.nbytes > 0

    def memory(self, info):
        return 4 * info.nbytes + 1000

    def prepare(self, job):
        assert job.tensors
        assert job.source.tensors
        assert job.jobs >= 1
        assert job.scratch.is_dir()
        job.progress.start("preparing", 1)
        job.progress.advance(1)
        return b"\x07"

    def restore(self, state):
        self.key = state[0]

    def encode(self, tensor):
        return (tensor.data ^ np.uint8(7)).tobytes()

    def decode(self, payload, info, threads=1):
        return np.frombuffer(payload, np.uint8) ^ np.uint8(self.key)


class Copy(ModelCompressor):
    Options = NoOptions

    def __init__(self, options):
        pass

    def compress(self, job, out):
        shutil.copytree(job.source.folder, out, dirs_exist_ok=True)


class Numbers:
    Options = Options

    def __init__(self, source, options):
        self.count = int(source)

    def prepare(self, checkpoint):
        pass

    def batches(self, seed, split="calibration", start=0):
        splits = ("calibration", "training", "evaluation")
        if split not in splits:
            raise CorecompressError(f"'{split}' is no split")
        numbers = np.arange(self.count)
        mine = np.random.default_rng(seed).permutation(numbers[numbers % 3 == splits.index(split)])
        for at in range(start * 8, len(mine), 8):
            yield {"x": mine[at : at + 8].astype(np.float32), "document": mine[at : at + 8]}

    def fingerprint(self):
        return f"{self.count:032x}"

    def report(self):
        return DataReport({"numbers": self.count}, {}, ["0", "1"])


class Same:
    Options = NoOptions

    def __init__(self, options):
        pass

    def fit(self, data, prior, *, seed=0, target_loss=None, progress, scratch=None):
        pass

    def encode(self, x):
        return x

    def decode(self, latents):
        return latents

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Flat:
    Options = NoOptions

    def __init__(self, options):
        pass

    def rate(self, latents, context=None):
        return 8 + 0 * latents

    def fit(self, symbols, context=None, weights=None):
        pass

    def freeze(self, precision=12):
        return FlatCoder(Tables.from_counts([np.ones(255, np.int64)], [-127]))

    def sample(self, n, seed=0):
        return np.random.default_rng(seed).integers(-127, 128, n)


class FlatCoder:
    def __init__(self, tables):
        self.tables = tables

    def compress(self, symbols, context=None):
        return encode(symbols, self.tables).tobytes()

    def decompress(self, data, n, context=None):
        return decode(data, n, self.tables)

    def bits(self, symbols, context=None):
        return self.tables.bits(symbols)
