"""Calibration: what the loss feels of an error in each weight, from running the model on text or images.

For a linear layer y = W x the second-order change of the loss is, to the diagonal of its outputs,

    Σ_i r_i · δ_i H δ_iᵀ,   H = E_t[(ḡ²_t + β · E ḡ²) x_t x_tᵀ],   r_i = E_t g²_ti / E ḡ²

with g the gradient of the loss at y under labels drawn from the model itself (the Fisher information), ḡ²_t its mean
over the outputs of token t. The weighting stands inside the expectation, token by token; β keeps inputs alive that only
tokens without gradient have (attention sinks). Of a convolution x are the patches that it is summed over; of a grouped
one each group has its own, and H is their mean.

An attention head feels the rows of its queries and keys together: in groups of 64 rows the weights r are a matrix
R = E_t[g_t g_tᵀ / (ḡ²_t + E ḡ²)], the second moment of gradients' directions, wherever that saves bits
(½ log₂ of the diagonal of R over that of its Cholesky factor's squares). Errors are then fed among rows as well.

An embedding's rows have the gradient's own second moment as H and their frequency as r; a tied table gets the sum of
both. Encoders without logits: the gradient of a random projection of the pooled embedding, whose second moment is the
Gauss-Newton matrix of the embedding's squared error. Of experts each has an H of its own, and a part of the others'.

Sources: J. Martens, "New insights and perspectives on the natural gradient method", JMLR 2020 (Fisher with the
model's labels); E. Frantar et al., "GPTQ", arXiv:2210.17323 (feedback); arXiv:2603.04956 (WaterSIC: steps);
A. Tseng et al., "YAQA", arXiv:2505.22988 (Hessians of both sides; here one of a group of rows).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corecompress.components import Job
from corecompress.hashing import hash_file
from corecompress_vae import kept
from corecompress_vae.ceiling import LAYERS, Ceiling
from corecompress_vae.names import StoredNames
from corecompress_vae.passes import (
    MOST,
    backward,
    check_enough,
    enough_memory,
    first_batch,
    load_model,
    model_bytes,
    most,
    pieces,
    quiet,
    why_not,
)
from corecompress_vae.turns import in_order
from corecompress_vae.watch import Sums, Watch

FORMAT = 8
"""Of what is kept in the cache."""
AT_ONCE = 4
"""Pieces of the data that are run at the same time, at most."""
ROW_DAMPING = 0.1
"""The same for the Hessian of a group of rows."""
PAYS = 0.05
"""Bits a weight that feedback among rows has to save, by the diagonals' logarithms, before it is done."""
DAMPING = 0.01
"""Added to a Hessian's diagonal, as a share of its mean: inputs that the text never touched, singular Hessians."""


@dataclass(frozen=True)
class Sensitivity:
    """What feedback needs of one weight: unit [n, n], the inverse Hessian's Cholesky factor with unit diagonal (upper,
    float32), steps [n], its diagonal (float32), rows [o], the rows' weights (float32, mean about 1); turned: the
    tensor is [n, o], as GPT-2's are; row_unit [⌈o / G⌉, G, G]: unit of the rows of each group, where that pays; rows
    are then what their errors cost when others make up for them."""

    unit: NDArray[np.float32]
    steps: NDArray[np.float32]
    rows: NDArray[np.float32]
    turned: bool = False
    row_unit: NDArray[np.float32] | None = None


def load(folder: Path, name: str, number: int = 0) -> Sensitivity | None:
    """What `calibrate` found for that tensor, or matrix `number` of it; None for one that it could not look at."""
    arrays = kept.load(folder, name) or kept.load(folder, part_of(name, number))
    if arrays is None:
        return None
    turned = bool(arrays["turned"])
    return Sensitivity(arrays["unit"], arrays["steps"], arrays["rows"], turned, arrays.get("row_unit"))


def calibrate(job: Job, tokens: int | None) -> Path | None:
    """Run the model on `tokens` tokens of job.data; the folder of what was found.

    What an earlier run on the same source, data and seed left in job.cache is used again. None, and a line that says
    why, for a model that takes nothing of what the data hold. Raises CorecompressError for too little text.
    """
    folder = job.cache / f"calibration-{digest_of(job, tokens)}"
    if (folder / "done.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    ceiling = Ceiling(job.max_memory)
    ceiling.check("the model", LAYERS, model_bytes(job))
    model = load_model(job)
    with quiet(model), enough_memory(), Watch(model) as watch:
        ceiling.check("the model and Hessians", LAYERS, watch.bytes_of_sums())
        first = first_batch(job, tokens)
        problem = why_not(model, first)
        if problem and any(p.dtype == torch.bfloat16 for p in model.parameters()):
            problem = why_not(model.float(), first)  # there are forwards that make float32 themselves
        if problem:
            job.progress.note(f"{job.source.name}: {problem}, so vae works without calibration")
            return None
        check_enough(job, tokens, first)
        job.progress.start("calibrating", tokens or most(first))
        seen = _run(model, watch, job, tokens, ceiling)
    if not watch.sums:
        job.progress.note(
            f"{job.source.name}: no linear layer or table has a part in its outputs, so vae works without calibration"
        )
        return None
    job.progress.start("factoring Hessians", len(watch.sums))
    found = ((folder, *matrix) for matrix in matrices_of(watch, StoredNames.of(model, job.source.tensors)))
    for _ in in_order(_factor_and_save, found, threads_of(job)):
        job.progress.advance(1)
    (folder / "done.json").write_text(json.dumps({"tokens": seen}))
    return folder


def threads_of(job: Job) -> int:
    """How many pieces are run at once: each has activations of its own in memory."""
    return 1 if torch.cuda.is_available() or job.max_memory is not None else min(job.jobs, AT_ONCE)


def _run(model: Any, watch: Watch, job: Job, tokens: int | None, ceiling: Ceiling) -> int:
    """Forward and backward until `tokens` tokens (or images) are seen; how many were."""

    def run(number: int, part: dict[str, torch.Tensor], count: int) -> int:
        generator = torch.Generator().manual_seed(seed_of(job, number))
        with watch.piece(number):
            backward(model, watch, {key: value.to(model.device) for key, value in part.items()}, generator, ceiling)
        return count

    def entered() -> Iterator[tuple[int, dict[str, torch.Tensor], int]]:
        for number, (part, count) in enumerate(pieces(job, tokens)):
            watch.turns.enter(number)
            yield number, part, count

    seen = 0
    for count in in_order(run, entered(), threads_of(job)):
        seen += count
        job.progress.advance(count)
    for sums in watch.sums.values():
        sums.tokens = seen
    return seen


def seed_of(job: Job, number: int) -> int:
    """Of what is drawn for one piece."""
    return int(np.random.SeedSequence([job.seed, number]).generate_state(1)[0])


def matrices_of(watch: Watch, stored: StoredNames) -> Iterator[tuple[str, Sums, bool]]:
    """(tensor, or `part_of` one, sums, whether its rows are inputs) of all that `watch` has seen, but where no gradient
    came, or one beyond all numbers: such a Hessian says nothing."""
    for parameter, number, sums in watch.collect():
        turned, size = parameter in watch.turned, float(sums.h.diagonal().mean())
        if not 0 < size < math.inf:
            continue
        if parameter in stored.plain:
            yield part_of(stored.plain[parameter], number), sums, turned
        elif number is not None and parameter in stored.merged and not turned:
            start = 0
            for name in stored.merged[parameter][number]:
                yield name, sums.of_rows(start, start + stored.rows[name]), turned
                start += stored.rows[name]


def part_of(name: str, number: int | None) -> str:
    """What one of the matrices of a tensor is kept under; number None: there is one only."""
    return name if number is None else f"{name}#{number}"


def _factor_and_save(folder: Path, name: str, sums: Sums, turned: bool) -> None:
    save(folder, name, replace(factor(sums), turned=turned))


def digest_of(job: Job, tokens: int | None) -> str:
    """Of all that the sensitivities depend on."""
    assert job.data is not None
    shards = [hash_file(shard.path) for shard in job.source.shards]
    asked = (FORMAT, shards, sorted(job.source.config.items()), job.data.fingerprint(), tokens or MOST, job.seed)
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:24]


def save(folder: Path, name: str, found: Sensitivity) -> None:
    """Keep it for `load`."""
    kept.keep(folder, name, {field: np.asarray(value) for field, value in vars(found).items() if value is not None})


def factor(sums: Sums) -> Sensitivity:
    """H⁻¹ = Uᵀ U, U upper: steps are U's diagonal, unit its rows divided by it."""
    u = _inverse_factor(sums.h.double().cpu() / max(sums.tokens, 1), DAMPING)
    steps = u.diagonal().clone()
    mean = sums.rows.mean()
    # rows that no gradient reached, or one that is no number, are all alike
    rows = (sums.rows / mean if 0 < mean < torch.inf else torch.ones_like(sums.rows)).cpu()
    together = None if sums.blocks is None else _together(sums.blocks.double().cpu(), len(rows))
    rows, row_unit = (rows, None) if together is None else (together[0], together[1].numpy())
    unit = (u / steps[:, None]).float().numpy()
    return Sensitivity(unit, steps.float().numpy(), rows.float().numpy(), row_unit=row_unit)


def _together(blocks: torch.Tensor, o: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(rows [o], unit [m, G, G]) of the o rows' own Hessian, blocks [m, G, G]; None where it saves too few bits."""
    mean = blocks.diagonal(dim1=1, dim2=2).sum() / o
    if not mean > 0:
        return None
    eye = torch.eye(blocks.shape[1], dtype=blocks.dtype)
    damped = (blocks / mean + ROW_DAMPING * eye) / (1 + ROW_DAMPING)
    u = torch.stack([_inverse_factor(block, 0.0) for block in damped])
    steps = u.diagonal(dim1=1, dim2=2)
    saved = (damped.diagonal(dim1=1, dim2=2).log2() / 2 + steps.log2()).flatten()[:o].mean()
    if saved < PAYS:
        return None
    return steps.flatten()[:o] ** -2, (u / steps[:, :, None]).float()


def _inverse_factor(h: torch.Tensor, damping: float) -> torch.Tensor:
    """U float64 [n, n], upper, with H⁻¹ = Uᵀ U; H damped until it can be factored."""
    mean, n = float(h.diagonal().mean()), len(h)
    while True:
        # H = M Mᵀ with M upper is the Cholesky factor of the matrix turned round; U = M⁻¹
        turned = h.flip(0, 1)
        turned.diagonal().add_(damping * mean)
        m, failed = torch.linalg.cholesky_ex(turned)
        del turned  # a wide layer's is large
        if not int(failed):
            m = m.flip(0, 1)
            return torch.linalg.solve_triangular(m, torch.eye(n, dtype=torch.float64), upper=True)
        damping = max(10 * damping, DAMPING)
