"""Running a model on the calibration split: loading it, its batches in pieces, a forward and a backward pass."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from llvmlite.binding import get_host_cpu_name

from corecompress.components import Job
from corecompress.errors import CorecompressError, EmptySplit
from corecompress.measure.outputs import decoder_start
from corecompress.training.quiet import quiet as without_remarks
from corecompress_vae.ceiling import LAYERS, SHORTER, Ceiling
from corecompress_vae.watch import ROWS, Watch

MOST, LEAST = 65536, 32768
"""Tokens that are used where none were asked for, and those that there must be."""
IMAGES = 512
"""Images that are used where no number was asked for."""
AT_ONCE = 1024
"""Tokens of one forward pass."""


def load_model(job: Job) -> Any:
    """The source as a transformers model in float32, ready for gradients at activations. Raises CorecompressError."""
    import transformers

    names = job.source.config.get("architectures") or []
    kind = getattr(transformers, str(names[0]), None) if names else None
    if kind is None:
        kind = transformers.AutoModel
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}  # experts one by one, for Watch
    try:
        with without_remarks():
            model, found = kind.from_pretrained(
                str(job.source.folder), dtype=fast_dtype(), output_loading_info=True, **eager
            )
    except (OSError, ValueError, KeyError, ImportError) as problem:
        line = " ".join(str(problem).split())[:200]
        raise CorecompressError(
            f"{job.source.name}: transformers can't load it for calibration ({line}); leave --data out"
        ) from None
    if missing := sorted(found["missing_keys"]):
        job.progress.note(
            f"{job.source.name}: has no {missing[0]}{', …' if len(missing) > 1 else ''}, so {kind.__name__} has random "
            "numbers there while it is calibrated"
        )
    return model.eval().requires_grad_(False).to(device())


def device() -> torch.device:
    """Where models run: a GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def model_bytes(job: Job) -> int:
    """Bytes of the weights of `load_model`."""
    return sum(info.size for info in job.source.tensors) * fast_dtype().itemsize


def fast_dtype() -> torch.dtype:
    """bfloat16 where the machine multiplies it faster than float32: gradients are a sample, and a noisier one than
    eight bits are coarse.

    Decided by what the processor is, not by timing it, so that the same machine always makes the same bytes. Intel's
    AVX-512 has the instruction, but it is no faster: a core of Emerald Rapids without its tiles does 81 billion
    operations a second of it, 144 of float32. AMD's is: a core of Zen 4 does 210, and 95 of float32.
    """
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported()
    else:
        amd = get_host_cpu_name().startswith("znver")
        fast = torch.cpu._is_amx_tile_supported() or (amd and torch.cpu._is_avx512_bf16_supported())
    return torch.bfloat16 if fast else torch.float32


@contextmanager
def quiet(model: Any) -> Iterator[None]:
    """No key-value cache, the same random numbers as before."""
    state, cache = torch.get_rng_state(), getattr(model.config, "use_cache", None)
    if cache is not None:
        model.config.use_cache = False
    try:
        yield
    finally:
        torch.set_rng_state(state)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Raises CorecompressError with the mend where memory runs out meanwhile."""
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if not _is_of_memory(problem):
            raise
        raise CorecompressError(
            "--data: calibration ran out of memory; try --jobs 1, shorter texts (text(length=512):FILE), "
            "or vae(calibration=layers), which needs less"
        ) from None


def _is_of_memory(problem: Exception) -> bool:
    """Of a CPU's allocator torch raises a plain RuntimeError."""
    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(problem)


def why_not_read(model: Any, batch: Mapping[str, Any]) -> str:
    """Why the model's forward takes nothing of such a batch (`attention_mask` alone is not enough of a text); nothing,
    if it does."""
    takes = inspect.signature(model.forward).parameters
    main = getattr(model, "main_input_name", None)
    if main in batch if main in takes else any(key in takes for key in batch):
        return ""
    return f"its forward takes nothing of what --data holds ({', '.join(batch)})"


def why_failed(batch: Mapping[str, Any], problem: Exception) -> str:
    """What to say of an error that the model's forward raised on such a batch. Raises it if it is of memory: the
    model could run."""
    if _is_of_memory(problem):
        raise problem
    reason = f"{type(problem).__name__}: {' '.join(str(problem).split())[:120]}"
    return f"its forward can't run on what --data holds ({', '.join(batch)}: {reason})"


def why_not(model: Any, batch: Mapping[str, torch.Tensor]) -> str:
    """What keeps the model from running on such a batch, tried on its first sample; nothing, if it runs."""
    if unread := why_not_read(model, batch):
        return unread
    one = {key: value[:1].to(model.device) for key, value in batch.items()}
    try:
        with torch.no_grad():
            model(**_inputs(model, one)[0])
    except Exception as problem:  # of any kind: it is not our code that runs
        return why_failed(batch, problem)
    return ""


def batches(job: Job) -> Iterator[dict[str, torch.Tensor]]:
    """The calibration split's batches, arrays of numbers only."""
    assert job.data is not None
    for batch in job.data.batches(job.seed, "calibration"):
        arrays = {key: np.asarray(value) for key, value in batch.items()}
        yield {key: torch.from_numpy(value) for key, value in arrays.items() if value.dtype.kind in "iufb"}


def first_batch(job: Job, tokens: int | None) -> dict[str, torch.Tensor]:
    """The first one; {} of data without any. Raises CorecompressError for too little text."""
    try:
        return next(batches(job), {})
    except EmptySplit as problem:
        raise CorecompressError(f"{problem}; calibration takes {tokens or LEAST} tokens") from None


def pieces(job: Job, tokens: int | None) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
    """(inputs of one forward pass, tokens or images in it) of the calibration split, until there are `tokens`.

    None: until there are MOST (LEAST will do), or IMAGES.

    Raises CorecompressError behind the last one of too little text.
    """
    seen, is_text = 0, False
    for batch in batches(job):
        first = next(iter(batch.values()))
        size, is_text = (max(1, AT_ONCE // first.shape[1]) if first.dim() == 2 else 8), "input_ids" in batch
        for start in range(0, len(first), size):
            part = {key: value[start : start + size] for key, value in batch.items()}
            mask = part.get("attention_mask")
            count = int(mask.sum()) if mask is not None else len(next(iter(part.values())))
            yield part, count
            seen += count
            if seen >= (tokens or most(batch)):
                return
    _check_enough(seen, tokens or LEAST, is_text)


def check_enough(job: Job, tokens: int | None, first: Mapping[str, Any]) -> None:
    """Raises CorecompressError for too little text, before the model takes its time over what there is; first: its
    first batch."""
    if "input_ids" in first:
        deque(pieces(job, tokens), maxlen=0)


def most(batch: Mapping[str, Any]) -> int:
    """Tokens, or images, that are used of data with such batches where no number was asked for."""
    return MOST if "input_ids" in batch else IMAGES


def _check_enough(seen: int, tokens: int, is_text: bool) -> None:
    """Raises CorecompressError for a text that is too short; of images, what there is must do."""
    if seen < tokens and is_text:
        raise CorecompressError(
            f"--data: the calibration part has {seen} tokens and {tokens} are needed; "
            f"give more text, or write vae(calibration_tokens={max(seen, 1)})"
        )


def backward(
    model: Any, watch: Watch, batch: dict[str, torch.Tensor], generator: torch.Generator, ceiling: Ceiling
) -> None:
    """One batch: forward, a loss whose gradient is a draw from the Fisher information, backward."""
    inputs, kept = _inputs(model, batch)
    out = model(**inputs)
    ceiling.check("the model, Hessians and the activations of a piece of the data", f"{SHORTER}, or {LAYERS}")
    logits = getattr(out, "logits", None)
    if logits is None or logits.dim() > 3:  # no classes, or pixels
        pooled = _pooled(out, batch.get("attention_mask"))
        direction = torch.randn(pooled.shape, generator=generator).to(pooled.device)
        watch.turns.turn_back()
        _pull(pooled, direction)
        return
    rows = _that_count(logits, kept)
    asked = logits.flatten(0, -2)
    asked = asked if rows.all() else asked[rows]  # a vocabulary's logits are large: no copy of all of them
    with torch.no_grad():
        p = asked.float().softmax(-1)
        if logits.dim() == 3:
            watch.add_head(p, rows)
        score = draw_score(p, generator)
    watch.turns.turn_back()
    _pull(asked, score.to(asked.dtype))


def _pull(out: torch.Tensor, gradient: torch.Tensor) -> None:
    """Backward from `out`, where a layer that is watched has had a part in it."""
    if out.requires_grad:
        out.backward(gradient)


def _that_count(logits: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """Which logits [n, …, V] the loss looks at, bool, flat. A mask that is longer than them has positions in front that
    nothing is said of; one that is shorter (image tokens) says nothing of any."""
    if kept is None or logits.dim() != 3 or kept.shape[1] < logits.shape[1]:
        return torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device).flatten()
    return kept[:, -logits.shape[1] :].flatten().bool()


def draw_score(p: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """p [t, V], probabilities, becomes the gradient at the logits of −log p of labels that are drawn from it."""
    uniform = torch.rand(len(p), 1, generator=generator).to(p.device)
    for part, each in zip(p.split(ROWS), uniform.split(ROWS), strict=True):
        drawn = torch.searchsorted(part.cumsum(-1), each).clamp_max(p.shape[1] - 1)
        part.scatter_add_(1, drawn, p.new_full(drawn.shape, -1.0))
    return p


def _inputs(model: Any, batch: dict[str, torch.Tensor]) -> tuple[dict[str, Any], torch.Tensor | None]:
    """(what forward takes, mask of the logits that count). An encoder-decoder reads the first half of each text and
    predicts the second."""
    takes = inspect.signature(model.forward).parameters
    if not (model.config.is_encoder_decoder and "decoder_input_ids" in takes and "input_ids" in batch):
        inputs = {key: value for key, value in batch.items() if key in takes}
        for key, value in inputs.items():
            if value.is_floating_point():
                inputs[key] = value.to(model.dtype)  # pixels, which not every forward takes to its weights' dtype
        return inputs, batch.get("attention_mask")
    ids = batch["input_ids"]
    mask = batch.get("attention_mask", torch.ones_like(ids))
    half = max(1, ids.shape[1] // 2)
    start = torch.full_like(ids[:, :1], decoder_start(model))
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
