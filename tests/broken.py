"""Plugins that are broken on purpose, one or more for each check of the conformance kit: what the scaffold writes (or
acme, for compressors of models, or GENERATIVE, for encoders that generate), with one thing changed."""

from __future__ import annotations

from typing import NamedTuple


class Broken(NamedTuple):
    """kind: of the scaffold, "model" for acme-prune, "generative" for GENERATIVE; check: what must notice; old, new: the change; hooks: whether it is
    in the module with the hooks."""

    kind: str
    check: str
    old: str
    new: str
    hooks: bool = False

    def __str__(self) -> str:
        return f"{self.kind}-{self.check}"


ENCODE = "    def encode(self, tensor):\n"
DECODE = "    def decode(self, payload, info, threads=1):\n"
ACCEPTS = "    def accepts(self, info):\n"
PREPARE = "    def prepare(self, job):\n"
THERE = "('fresh' in __import__('sys').argv[0])"
"""Whether it is the kit's other process."""
REWRITE = "rewrite_checkpoint(job.source, out, self.prune, job.progress)"

TEXT = "text(form=sentences, tokenizer=words, document=line, vocabulary=200, length=12):demo"
GENERATIVE_HOOKS = f"""
from corecompress import Component, hookimpl

EXAMPLE = "acme-generative(steps=4, hidden=8, embedding=8, latents=4, batch=8) --data {TEXT}"


@hookimpl
def encoder_components():
    return [Component("acme-generative", "acme_generative.generative:Small", "a small one", api=1, example=EXAMPLE)]
"""
GENERATIVE = """
from corecompress import open_data
from corecompress_generative.text.encoders import Lstm


class Small(Lstm):
    def fit(self, data, prior, *, seed=0, progress, **more):
        return super().fit(data, prior, seed=seed, progress=progress, **more)

    def save(self, folder):
        super().save(folder)

    def load(self, folder, prior):
        super().load(folder, prior)

    def generate(self, n, *, prompt=None, seed=0):
        return super().generate(n, prompt=prompt, seed=seed)

    def reconstruct(self, batch):
        return super().reconstruct(batch)
"""
"""An encoder that generates, in a package of its own."""

BROKEN = [
    # every component
    Broken(
        "compressor",
        "light-import",
        "from corecompress import Component",
        "import numpy\nfrom corecompress import Component",
        True,
    ),
    Broken("data", "waivers", 'example="{name}:demo"', 'example="{name}:demo", waivers={{"report": ""}}', True),
    Broken("prior", "waivers", "summary, api=1", 'summary, api=1, waivers={{"no-such-check": "because"}}', True),
    Broken("encoder", "target", "encoder:Principal", "encoder:Principle", True),
    Broken("encoder", "methods", "target_loss=None, progress, scratch", "target_loss=None, scratch"),
    Broken("prior", "methods", "def freeze(self, precision=12)", "def frieze(self, precision=12)"),
    Broken("data", "methods", "def report(self)", "def raport(self)"),
    Broken("compressor", "options", '"weights that share a step"', '""'),
    Broken("compressor", "options", "@dataclass(frozen=True)", "@dataclass"),
    Broken("data", "options", "batch: int =", "batch: bytes ="),
    Broken("data", "example", 'example="{name}:demo"', 'example="{name}:/no/such/file"', True),
    # data
    Broken("data", "batches", '"document": chosen.astype(np.int64)', '"documents": chosen.astype(np.int64)'),
    Broken("data", "batches", 'document": chosen', 'document": chosen[:1]'),
    Broken("data", "restarts", "range(start * self", "range(0 * self"),
    Broken(
        "data",
        "restarts",
        "        numbers = self.numbers(split)\n",
        "        numbers = self.numbers(split)\n        self.lines.append(f'line {{len(self.lines)}}')\n",
    ),
    Broken("data", "deterministic", "default_rng([seed, SPLITS", f"default_rng([{THERE}, seed, SPLITS"),
    Broken("data", "splits", "self.split_of(line) == split]", "(self.split_of(line) == split or number % 3 == 0)]"),
    Broken("data", "splits", "self.split_of(line) == split]", "True]\n        # every split the same lines"),
    Broken(
        "data",
        "splits",
        "        numbers = self.numbers(split)\n",
        "        split = split if split in SPLITS else SPLITS[0]\n        numbers = self.numbers(split)\n",
    ),
    Broken("data", "fingerprint", "repr((self.lines, self.options))", "repr((id(self), self.options))"),
    Broken("data", "report", "return DataReport(figures", "return (figures"),
    # encoders
    Broken(
        "encoder",
        "fits",
        "return np.asarray(x, np.float32) @ self.basis",
        "return 0 * np.asarray(x, np.float32) @ self.basis",
    ),
    Broken(
        "encoder",
        "shapes",
        "return np.asarray(latents, np.float32) @ self.basis.T",
        "return np.asarray(latents, np.float64) @ self.basis.T",
    ),
    Broken(
        "encoder",
        "shapes",
        "return np.asarray(latents, np.float32) @ self.basis.T",
        "return (np.asarray(latents, np.float32) @ self.basis.T).squeeze()",
    ),
    Broken("encoder", "repeats", "vectors * signs, np.float32)", f"vectors * signs, np.float32) * (1 + {THERE})"),
    Broken("encoder", "saves", 'return {{"basis": self.basis}}', 'return {{"basis": self.basis.tolist()}}'),
    Broken("encoder", "saves", '        self.basis = np.ascontiguousarray(state["basis"], np.float32)', "        pass"),
    # encoders that generate
    Broken("generative", "fits", "super().save(folder)", "super().save(folder)\n        (folder / 'more.pkl').touch()"),
    Broken("generative", "repeats", "seed=seed, progress", f"seed=seed + {THERE}, progress"),
    Broken(
        "generative",
        "loads",
        "super().save(folder)",
        "super().save(folder)\n        path = folder / 'config.json'\n"
        "        path.write_text(path.read_text().replace('corecompress-text-vae', 'a-vae-of-acme'))",
    ),
    Broken("generative", "generates", "super().generate(n,", "super().generate(n - 1,"),
    Broken("generative", "reconstructs", "super().reconstruct(batch)", "super().reconstruct(batch)[1:]"),
    Broken(
        "generative",
        "compresses",
        "super().load(folder, prior)",
        "super().load(folder, prior)\n"
        "        self.model.synthesis.logits.bias.data[5] += 99 * folder.name.startswith('small')",
    ),
    Broken(
        "generative",
        "refuses",
        "return super().fit(data,",
        f"data = data if hasattr(data, 'corpus') else open_data('{TEXT}')\n        return super().fit(data,",
    ),
    # priors
    Broken(
        "prior",
        "rate",
        "return -torch.log2(mass.clamp_min(0) + UNLIKELY)",
        "return -0.8 * torch.log2(mass.clamp_min(0) + UNLIKELY)",
    ),
    Broken("prior", "rate", "mass.clamp_min(0) + UNLIKELY", "mass.clamp_min(0)"),
    Broken("prior", "gradient", "z = torch.as_tensor(latents)", "z = torch.as_tensor(latents).detach()"),
    Broken(
        "prior",
        "code-length",
        "[torch.exp2(30 - self.rate(z, row)).round()",
        "[torch.exp2(30 - 0.7 * self.rate(z, row)).round()",
    ),
    Broken(
        "prior",
        "code-length",
        "return self.tables.bits(np.asarray(symbols), context)",
        "return 0.98 * self.tables.bits(np.asarray(symbols), context)",
    ),
    Broken(
        "prior",
        "round-trip",
        "encode(np.asarray(symbols), self.tables",
        "encode(np.asarray(symbols).clip(-100, 100), self.tables",
    ),
    Broken(
        "prior",
        "other-process",
        "        low, high, golden = -4.0,",
        f"        low, high, golden = -4.0 + 5 * {THERE},",
    ),
    Broken(
        "prior",
        "damage",
        "return decode(data, n, self.tables, context)",
        "data[0]\n        return decode(data, n, self.tables, context)",
    ),
    Broken("prior", "context", "deviation = deviation * class_deviation(torch.as_tensor(context).to(z))", "pass"),
    Broken("prior", "weights", "counts = counts if weights is None else", "counts = counts if True else"),
    Broken("prior", "sample", "np.random.default_rng(seed)", "np.random.default_rng()"),
    # compressors of tensors
    Broken(
        "compressor",
        "round-trip",
        "values = points.reshape(count, -1) * steps[:, None]",
        "values = points.reshape(count, -1) * -steps[:, None]",
    ),
    Broken("compressor", "round-trip", "    Options = Options\n", "    Options = Options\n    exact = True\n"),
    Broken("compressor", "repeats", ACCEPTS, PREPARE + "        return __import__('os').urandom(4)\n\n" + ACCEPTS),
    Broken(
        "compressor",
        "elsewhere",
        DECODE,
        DECODE
        + f"        return self.plain(payload, info) ^ np.uint8({THERE})\n\n    def plain(self, payload, info, threads=1):\n",
    ),
    Broken("compressor", "threads", ACCEPTS, PREPARE + "        return str(job.jobs).encode()\n\n" + ACCEPTS),
    Broken(
        "compressor",
        "order",
        ENCODE,
        ENCODE
        + "        self.number = getattr(self, 'number', 0) + 1\n        return self.code(tensor) if self.number % 2 else b'\\0' + tensor.data.tobytes()\n\n    def code(self, tensor):\n",
    ),
    Broken("compressor", "odd-tensors", "and len(info.shape) >= 2 and info.size >= 1024", "and info.shape[0] >= 1"),
    Broken("compressor", "odd-tensors", "if not np.isfinite(values).all():", "if False:"),
    Broken(
        "compressor",
        "odd-tensors",
        "FLOATS and len(info.shape) >= 2 and info.size >= 1024",
        "(*FLOATS, 'I64') and info.size >= 64",
    ),
    Broken("compressor", "damage", " or len(data) < 3:", ":"),
    Broken("compressor", "memory", ENCODE, ENCODE + "        np.ones((40, tensor.data.size), np.uint8)\n"),
    Broken(
        "compressor",
        "resume",
        ACCEPTS,
        PREPARE
        + "        mark = job.scratch / 'mark'\n        state = b'again' if mark.exists() else b'first'\n        mark.touch()\n        return state\n\n"
        + ACCEPTS,
    ),
    # compressors of models
    Broken("model", "checkpoint", REWRITE, REWRITE + "\n        (out / 'tokenizer.json').unlink()"),
    Broken("model", "checkpoint", "= 0\n", "= np.nan\n"),
    Broken(
        "model",
        "loads",
        REWRITE,
        REWRITE
        + "\n        path = out / 'config.json'\n        path.write_text(path.read_text().replace('\"num_hidden_layers\": 2', '\"num_hidden_layers\": 3'))",
    ),
    Broken("model", "untouched", REWRITE, REWRITE + "\n        (job.source.folder / 'done').touch()"),
    Broken(
        "model",
        "repeats",
        "round(self.options.sparsity * magnitudes.size)",
        "round(self.options.sparsity * magnitudes.size) - " + THERE,
    ),
    Broken("model", "threads", REWRITE, REWRITE + "\n        (out / 'config.json').open('a').write(' ' * job.jobs)"),
    Broken(
        "model",
        "odd-tensors",
        "info.dtype in FLOATS and len(info.shape) >= 2 and info.size > 0",
        "info.dtype in FLOATS and info.shape[0] >= 0",
    ),
    Broken(
        "model",
        "resume",
        REWRITE,
        "mark = job.scratch / 'mark'\n        again = mark.exists()\n        mark.touch()\n        "
        + REWRITE.replace("self.prune", "(lambda t: t) if again else self.prune"),
    ),
]
"""{name} stands for the component's name."""
