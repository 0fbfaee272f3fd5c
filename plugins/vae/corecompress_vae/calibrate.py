"""Calibration: what the loss feels of an error in each weight, from running the model on text.

For a linear layer y = W x the second-order change of the loss is, to the diagonal of its outputs,

    Σ_i r_i · δ_i H δ_iᵀ,   H = E_t[(ḡ²_t + β · E ḡ²) x_t x_tᵀ],   r_i = E_t g²_ti / E ḡ²

with g the gradient of the loss at y under labels drawn from the model itself (the Fisher information), ḡ²_t its mean
over the outputs of token t. The weighting stands inside the expectation, token by token; β keeps inputs alive that
only tokens without gradient have (attention sinks). An embedding's rows have the gradient's own second moment as H
and their frequency as r; a tied table gets the sum of both. Encoders without logits: the gradient of a random
projection of the pooled embedding, whose second moment is the Gauss-Newton matrix of the embedding's squared error.

Sources: J. Martens, "New insights and perspectives on the natural gradient method", JMLR 2020 (Fisher with the
model's labels); E. Frantar et al., "GPTQ", arXiv:2210.17323 (feedback); arXiv:2603.04956 (WaterSIC: steps).
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corecompress.components import Job
from corecompress.errors import CorecompressError
from corecompress.hashing import hash_file
from corecompress_vae.names import stored_names

FORMAT = 3
"""Of what is kept in the cache."""
MOST, LEAST = 65536, 32768
"""Tokens that are used where none were asked for, and those that there must be."""
AT_ONCE = 1024
"""Tokens of one forward pass."""
PLAIN_SHARE = 0.05
"""β: the plain Hessian's share."""
DAMPING = 0.01
"""Added to a Hessian's diagonal, as a share of its mean: inputs that the text never touched, singular Hessians."""
OWN_SHARE = 0.5
"""How far a row's weight follows its own gradient; the rest is the layer's mean, against too little text."""
SEEN_SHARE = 0.8
"""How far the weight of a vocabulary row follows its frequency; the rest is spread evenly over the vocabulary."""


@dataclass
class Sums:
    """Running sums of one module: h [n, n], rows [o], tokens."""

    h: torch.Tensor
    rows: torch.Tensor
    tokens: int = 0


@dataclass(frozen=True)
class Sensitivity:
    """What feedback needs of one weight: unit [n, n], the inverse Hessian's Cholesky factor with unit diagonal (upper,
    float32), steps [n], its diagonal (float32), rows [o], the rows' weights (float32, mean about 1); turned: the
    tensor is [n, o], as GPT-2's are."""

    unit: NDArray[np.float32]
    steps: NDArray[np.float32]
    rows: NDArray[np.float32]
    turned: bool = False


def path_of(folder: Path, name: str) -> Path:
    """Where the sensitivity of the tensor `name` is kept."""
    return folder / (hashlib.sha256(name.encode()).hexdigest()[:24] + ".npz")


def load(folder: Path, name: str) -> Sensitivity | None:
    """What `calibrate` found for that tensor; None for one that it could not look at."""
    path = path_of(folder, name)
    if not path.exists():
        return None
    with np.load(path) as arrays:
        return Sensitivity(arrays["unit"], arrays["steps"], arrays["rows"], bool(arrays["turned"]))


def calibrate(job: Job, tokens: int | None) -> Path | None:
    """Run the model on `tokens` tokens of job.data; the folder of what was found.

    What an earlier run on the same source, data and seed left in job.cache is used again. None, and a line that says
    why, for a model that takes nothing of what the data hold. Raises CorecompressError for too little text.
    """
    folder = job.cache / f"calibration-{_digest(job, tokens)}"
    if (folder / "done.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(job)
    first = next(iter(_batches(job)), {})
    if not can_read(model, first):
        job.progress.note(
            f"{job.source.name}: its forward takes nothing of what --data holds ({', '.join(first)}), "
            "so vae works without calibration"
        )
        return None
    with _quiet(model):
        watch = _Watch(model)
        seen = _run(model, watch, job, tokens)
        watch.close()
    names = stored_names(model, (info.name for info in job.tensors))
    job.progress.start("factoring Hessians", len(watch.sums))
    for parameter, sums in watch.collect():
        name = names.get(parameter)
        if name is not None:
            save(folder, name, replace(factor(sums), turned=parameter in watch.turned))
        job.progress.advance(1)
    (folder / "done.json").write_text(json.dumps({"tokens": seen}))
    return folder


def can_read(model: Any, batch: Mapping[str, Any]) -> bool:
    """Whether the model's forward runs on such a batch (`attention_mask` alone is not enough of a text)."""
    takes = inspect.signature(model.forward).parameters
    main = getattr(model, "main_input_name", None)
    return main in batch if main in takes else any(key in takes for key in batch)


def _digest(job: Job, tokens: int | None) -> str:
    """Of all that the sensitivities depend on."""
    assert job.data is not None
    shards = [hash_file(shard.path) for shard in job.source.shards]
    asked = (FORMAT, shards, sorted(job.source.config.items()), job.data.fingerprint(), tokens or MOST, job.seed)
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:24]


def save(folder: Path, name: str, found: Sensitivity) -> None:
    """Keep it for `load`."""
    temporary = path_of(folder, name).with_suffix(".tmp.npz")
    np.savez(temporary, unit=found.unit, steps=found.steps, rows=found.rows, turned=found.turned)
    temporary.replace(path_of(folder, name))


def factor(sums: Sums) -> Sensitivity:
    """H⁻¹ = Uᵀ U, U upper: steps are U's diagonal, unit its rows divided by it."""
    u = _inverse_factor(sums.h.double().cpu() / max(sums.tokens, 1))
    steps = u.diagonal().clone()
    rows = sums.rows / sums.rows.mean().clamp_min(1e-30)
    return Sensitivity((u / steps[:, None]).float().numpy(), steps.float().numpy(), rows.float().cpu().numpy())


def _inverse_factor(h: torch.Tensor) -> torch.Tensor:
    """U float64 [n, n], upper, with H⁻¹ = Uᵀ U; H damped until it can be factored."""
    mean, n = float(h.diagonal().mean()), len(h)
    eye = torch.eye(n, dtype=torch.float64)
    if not np.isfinite(mean) or mean <= 0:
        h, mean = eye, 1.0
    damping = DAMPING
    while True:
        # H = M Mᵀ with M upper is the Cholesky factor of the matrix turned round; U = M⁻¹
        lower, failed = torch.linalg.cholesky_ex((h + damping * mean * eye).flip(0, 1))
        if not int(failed):
            return torch.linalg.solve_triangular(lower.flip(0, 1), eye, upper=True)
        damping *= 10


def load_model(job: Job) -> Any:
    """The source as a transformers model in float32, ready for gradients at activations. Raises CorecompressError."""
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    names = job.source.config.get("architectures") or []
    kind = getattr(transformers, str(names[0]), None) if names else None
    if kind is None:
        kind = transformers.AutoModel
    try:
        model = kind.from_pretrained(str(job.source.folder), dtype=_dtype(), attn_implementation="eager")
    except (OSError, ValueError, KeyError, ImportError) as problem:
        line = " ".join(str(problem).split())[:200]
        raise CorecompressError(
            f"{job.source.name}: transformers can't load it for calibration ({line}); leave --data out"
        ) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.eval().requires_grad_(False).to(device)


def _dtype() -> torch.dtype:
    """bfloat16 where the machine multiplies it faster than float32: gradients are a sample, and a noisier one than
    eight bits are coarse."""
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


@contextmanager
def _quiet(model: Any) -> Iterator[None]:
    """No key-value cache, the same random numbers as before."""
    state, cache = torch.get_rng_state(), getattr(model.config, "use_cache", None)
    if cache is not None:
        model.config.use_cache = False
    try:
        yield
    finally:
        torch.set_rng_state(state)


class _Watch:
    """Hooks on every linear and embedding module that sum up inputs and gradients."""

    def __init__(self, model: Any):
        from transformers.pytorch_utils import Conv1D

        self.model = model
        self.sums: dict[str, Sums] = {}
        self.turned: set[str] = set()
        self.head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        self.inputs: dict[str, torch.Tensor] = {}
        self.handles = []
        for name, module in model.named_modules():
            if module is self.head:
                self.head_name = f"{name}.weight"
                self.handles.append(module.register_forward_hook(self._keep_head))
            elif isinstance(module, torch.nn.Linear | Conv1D):
                if isinstance(module, Conv1D):
                    self.turned.add(f"{name}.weight")
                self.handles.append(module.register_forward_hook(self._on_linear(f"{name}.weight")))
            elif isinstance(module, torch.nn.Embedding):
                self.handles.append(module.register_forward_hook(self._on_embedding(f"{name}.weight")))

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _of(self, name: str, n: int, o: int, device: torch.device) -> Sums:
        if name not in self.sums:
            self.sums[name] = Sums(torch.zeros(n, n, device=device), torch.zeros(o, device=device))
        return self.sums[name]

    def _on_linear(self, name: str) -> Any:
        def hook(module: Any, args: Any, out: torch.Tensor) -> None:
            if out.requires_grad:
                x = args[0].detach().flatten(0, -2)
                out.register_hook(lambda g: self._add_linear(name, x, g.detach().flatten(0, -2)))

        return hook

    def _add_linear(self, name: str, x: torch.Tensor, g: torch.Tensor) -> None:
        square = g.float().square()
        sums = self._of(name, x.shape[1], g.shape[1], x.device)
        token = square.mean(1)
        alive = token > 0  # padding has no gradient and no part in the mean
        share = PLAIN_SHARE * token.sum() / alive.sum().clamp_min(1)
        weighted = x.float() * (token + share * alive).sqrt()[:, None]
        sums.h.addmm_(weighted.T, weighted)
        sums.rows += square.sum(0)

    def _on_embedding(self, name: str) -> Any:
        def hook(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
            ids = args[0].detach().flatten()
            out = out.detach().requires_grad_(True)
            out.register_hook(lambda g: self._add_embedding(name, len(module.weight), ids, g.detach().flatten(0, -2)))
            return out

        return hook

    def _add_embedding(self, name: str, size: int, ids: torch.Tensor, g: torch.Tensor) -> None:
        sums = self._of(name, g.shape[1], size, g.device)
        alive = (g != 0).any(1).float()
        if len(ids) != len(g):  # position tables are looked up once for the whole batch
            ids, alive = ids.repeat(len(g) // len(ids) + 1)[: len(g)], alive
        sums.h.addmm_(g.float().T, g.float())
        sums.rows.index_add_(0, ids, alive)

    def _keep_head(self, module: Any, args: Any, out: torch.Tensor) -> None:
        self.inputs["head"] = args[0].detach().flatten(0, -2)

    def add_head(self, p: torch.Tensor, rows: torch.Tensor) -> None:
        """The head's part, from probabilities [t, V] and which of its inputs they belong to, with the label's
        expectation taken exactly: E g_i² = p_i (1 − p_i)."""
        if self.head is None or "head" not in self.inputs:
            return
        x = self.inputs.pop("head")[rows]
        square = p * p
        sums = self._of(self.head_name + "#head", x.shape[1], p.shape[1], x.device)
        spread = (1 - square.sum(1)).clamp_min(0) / p.shape[1]
        weighted = x.float() * spread.sqrt()[:, None]
        sums.h.addmm_(weighted.T, weighted)
        sums.rows += p.sum(0) - square.sum(0)

    def collect(self) -> Iterable[tuple[str, Sums]]:
        """(parameter, sums): a table that is input and head, tied or not, once under each of its names."""
        names = {id(p): name for name, p in self.model.named_parameters()}  # tied parameters come once
        head = self.sums.pop(getattr(self, "head_name", "") + "#head", None)
        embedding = self.model.get_input_embeddings() if hasattr(self.model, "get_input_embeddings") else None
        for key in list(self.sums):
            sums = self.sums.pop(key)
            module = self.model.get_submodule(key.removesuffix(".weight"))
            if isinstance(module, torch.nn.Embedding):
                unigram = (
                    head.rows if head is not None and module is embedding and len(head.rows) == len(sums.rows) else None
                )
                sums = _frequencies(sums, unigram)
                if head is not None and self.head is not None and self.head.weight is module.weight:
                    sums, head = _joined(sums, head), None
            else:
                sums.rows = OWN_SHARE * sums.rows + (1 - OWN_SHARE) * sums.rows.mean()
            yield names[id(module.weight)], sums
        if head is not None and self.head is not None:
            head.rows = SEEN_SHARE * head.rows + (1 - SEEN_SHARE) * head.rows.mean()
            yield names[id(self.head.weight)], head


def _frequencies(sums: Sums, unigram: torch.Tensor | None) -> Sums:
    """Rows' weights from counts, smoothed by what the model itself expects, and by an even share."""
    rows = sums.rows / sums.rows.sum().clamp_min(1)
    if unigram is not None:
        rows = 0.5 * rows + 0.5 * unigram / unigram.sum()
    size = len(rows)
    # an error in row i counts as often as i occurs: with rows of mean 1, H is the gradient's moment over the size
    return Sums(sums.h / size, SEEN_SHARE * rows * size + (1 - SEEN_SHARE), tokens=sums.tokens)


def _joined(embedding: Sums, head: Sums) -> Sums:
    """A tied table's: both Hessians, rows weighted by both parts."""
    rows = SEEN_SHARE * head.rows / head.rows.mean() + (1 - SEEN_SHARE)
    a, b = float(embedding.h.trace()), float(head.h.trace())
    return Sums(embedding.h + head.h, (a * embedding.rows + b * rows) / (a + b), tokens=embedding.tokens)


def _batches(job: Job) -> Iterator[dict[str, torch.Tensor]]:
    """The calibration split's batches, arrays of numbers only."""
    assert job.data is not None
    for batch in job.data.batches(job.seed, "calibration"):
        arrays = {key: np.asarray(value) for key, value in batch.items()}
        yield {key: torch.from_numpy(value) for key, value in arrays.items() if value.dtype.kind in "iufb"}


def _run(model: Any, watch: _Watch, job: Job, tokens: int | None) -> int:
    """Forward and backward until `tokens` tokens (or images) are seen; how many were."""
    generator = torch.Generator().manual_seed(job.seed)
    job.progress.start("calibrating", tokens or MOST)
    seen = 0
    for part, count in pieces(job, tokens):
        _backward(model, watch, {key: value.to(model.device) for key, value in part.items()}, generator)
        seen += count
        job.progress.advance(count)
    for sums in watch.sums.values():
        sums.tokens = seen
    return seen


def pieces(job: Job, tokens: int | None) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
    """(inputs of one forward pass, tokens or images in it) of the calibration split, until there are `tokens`.

    None: until there are MOST, but LEAST will do.

    Raises CorecompressError behind the last one of too little text.
    """
    seen, is_text = 0, False
    for batch in _batches(job):
        first = next(iter(batch.values()))
        size, is_text = (max(1, AT_ONCE // first.shape[1]) if first.dim() == 2 else 8), "input_ids" in batch
        for start in range(0, len(first), size):
            part = {key: value[start : start + size] for key, value in batch.items()}
            mask = part.get("attention_mask")
            count = int(mask.sum()) if mask is not None else len(next(iter(part.values())))
            yield part, count
            seen += count
            if seen >= (tokens or MOST):
                return
    _check_enough(seen, tokens or LEAST, is_text)


def _check_enough(seen: int, tokens: int, is_text: bool) -> None:
    """Raises CorecompressError for a text that is too short; of images, what there is must do."""
    if seen < tokens and is_text:
        raise CorecompressError(
            f"--data: the calibration part has {seen} tokens and {tokens} are needed; "
            f"give more text, or write vae(calibration_tokens={max(seen, 1)})"
        )


def _backward(model: Any, watch: _Watch, batch: dict[str, torch.Tensor], generator: torch.Generator) -> None:
    """One batch: forward, a loss whose gradient is a draw from the Fisher information, backward."""
    inputs, kept = _inputs(model, batch)
    out = model(**inputs)
    logits = getattr(out, "logits", None)
    if logits is None:
        pooled = _pooled(out, batch.get("attention_mask"))
        direction = torch.randn(pooled.shape, generator=generator).to(pooled.device)
        (pooled * direction).sum().backward()
        return
    flat = logits.flatten(0, -2)
    rows = kept.flatten().bool() if kept is not None and logits.dim() == 3 else torch.ones_like(flat[:, 0]).bool()
    asked = flat[rows]
    with torch.no_grad():
        p = asked.float().softmax(-1)
        if logits.dim() == 3:
            watch.add_head(p, rows)
        uniform = torch.rand(len(p), 1, generator=generator).to(p.device)
        drawn = torch.searchsorted(p.cumsum(-1), uniform).clamp_max(p.shape[1] - 1)
        p.scatter_add_(1, drawn, p.new_full(drawn.shape, -1.0))  # the gradient of −log p(drawn)
    asked.backward(p.to(asked.dtype))


def _inputs(model: Any, batch: dict[str, torch.Tensor]) -> tuple[dict[str, Any], torch.Tensor | None]:
    """(what forward takes, mask of the logits that count). An encoder-decoder reads the first half of each text and
    predicts the second."""
    takes = inspect.signature(model.forward).parameters
    if not (model.config.is_encoder_decoder and "decoder_input_ids" in takes and "input_ids" in batch):
        return {key: value for key, value in batch.items() if key in takes}, batch.get("attention_mask")
    ids = batch["input_ids"]
    mask = batch.get("attention_mask", torch.ones_like(ids))
    half = max(1, ids.shape[1] // 2)
    start = torch.full_like(ids[:, :1], model.config.decoder_start_token_id or 0)
    shifted = torch.cat([start, ids[:, half:-1]], 1)
    inputs = {"input_ids": ids[:, :half], "attention_mask": mask[:, :half], "decoder_input_ids": shifted}
    return inputs, mask[:, half:]


def _pooled(out: Any, mask: torch.Tensor | None) -> torch.Tensor:
    """What an encoder is used for: its tokens' mean, normalised, [n, width]."""
    hidden = out.last_hidden_state if hasattr(out, "last_hidden_state") else out[0]
    if hidden.dim() != 3 or mask is None:
        return torch.nn.functional.normalize(hidden.flatten(1), dim=1)
    weight = mask[..., None].to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1).clamp_min(1), dim=1)
