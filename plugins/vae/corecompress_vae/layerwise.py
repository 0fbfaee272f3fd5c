"""Calibration without the model in memory: block by block, no gradient of the loss.

    front and block 0 ─► hidden states on the disk ─► block 1 ─► … ─► last block ─► head
                           (one block's weights, its Hessians and a piece of text in memory)

What the loss would say is not known when a block is looked at, so the model's own scale stands in for it: an error
counts by what it moves the residual stream behind the block, relative to the stream's length at that token. With
v ~ N(0, I) / ‖h‖ drawn for every token, the gradient g of v · h at a layer's output has E[g gᵀ] = Jᵀ J / ‖h‖², J the
block's own Jacobian; Hessians are then those of calibrate.py. Attention sinks, whose activations are a thousand times
larger, so have the small weight that the norms behind them give them. The head's part is exact, E[p (1 − p)] for each
row, brought to the same unit by what a relative error of its input costs: κ = tr F · ‖x‖² / n, F the Fisher information
of the logits at x. What this costs against gradients is in the README.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from corecompress.components import Job
from corecompress_vae.calibrate import digest_of, factor, matrices_of, save
from corecompress_vae.ceiling import SHORTER, Ceiling
from corecompress_vae.hidden import Hidden
from corecompress_vae.passes import check_enough, enough_memory, first_batch, pieces, why_not_read
from corecompress_vae.skeleton import Call, CantWalk, Walk
from corecompress_vae.turns import one_thread
from corecompress_vae.watch import Watch

FORMAT = 3
NEEDED = "a block, its Hessians and the activations of a piece of the data"
LOGITS = 256
"""Tokens whose logits are in memory at once."""

Piece = tuple[dict[str, torch.Tensor], torch.Tensor]
"""Inputs of a forward pass, and which of its tokens count, bool [n, length]."""


def calibrate(job: Job, tokens: int | None) -> Path | None:
    """As calibrate.calibrate, in the memory of one block: the folder of what was found, kept in job.cache.

    None, and a line that says why, for a model that is no stack of blocks or takes nothing of what the data hold.
    Raises CorecompressError for too little text.
    """
    folder = job.cache / f"layers-{FORMAT}-{digest_of(job, tokens)}"
    if (folder / "done.json").exists():
        return folder
    try:
        walk = Walk(job.source)
        takes = inspect.signature(walk.model.forward).parameters
        first = first_batch(job, tokens)
        if unread := why_not_read(walk.model, first):
            raise CantWalk(unread)
        check_enough(job, tokens, first)
        folder.mkdir(parents=True, exist_ok=True)
        with enough_memory(), one_thread():  # sums would depend on how many share them
            seen = _Calibration(job, walk, folder, tokens).run(takes)
    except CantWalk as problem:
        job.progress.note(f"{job.source.name}: {problem}, so vae works without calibration")
        return None
    (folder / "done.json").write_text(json.dumps({"tokens": seen}))
    return folder


class _Calibration:
    """One run over all blocks."""

    def __init__(self, job: Job, walk: Walk, folder: Path, tokens: int | None):
        self.job, self.walk, self.folder, self.tokens = job, walk, folder, tokens
        self.watch = Watch(walk.model)
        self.ceiling = Ceiling(job.max_memory)
        self.generator = torch.Generator().manual_seed(job.seed)
        self.pieces: list[Piece] = []
        self.hidden = Hidden(job.scratch / "hidden.f32")
        self.calls: list[list[Call]] = []
        self.seen = 0

    def run(self, takes: Any) -> int:
        """Save what is found for every matrix; how many tokens were seen."""
        blocks = len(self.walk.blocks)
        self.job.progress.start("calibrating layer by layer", blocks + 1)
        try:
            with self.watch:
                self._front(takes)
                for number in range(1, blocks):
                    self._block(number)
                self._head()
        finally:
            self.hidden.clear()
        return self.seen

    def _front(self, takes: Any) -> None:
        """Embeddings and the first block."""
        self.walk.fill(None)
        self.walk.fill(0)
        for part, count in pieces(self.job, self.tokens):
            inputs = {key: value for key, value in part.items() if key in takes}
            out, calls = self.walk.enter(inputs)
            mask = part.get("attention_mask", torch.ones(out.shape[:2])).bool()
            self.pieces.append((inputs, mask))
            self.calls.append(calls)
            self.seen += count
            self._probe(out, mask)
            self.hidden.append(out.detach())
        tables = dict(self.watch.tables)
        self.tables = {key: sums for key, sums in self.watch.sums.items() if key in tables}
        for key in self.tables:
            del self.watch.sums[key]
        self._save()
        self.walk.drain(0)
        self.walk.drain(None)
        self.job.progress.advance(1)

    def _block(self, number: int) -> None:
        self.walk.fill(number)
        for place in range(len(self.pieces)):
            h = self.hidden.read(place).requires_grad_(True)
            out = self.walk.step(number, h, self.calls[place][number - 1])
            self._probe(out, self.pieces[place][1])
            self.hidden.write(place, out.detach())
        self._save()
        self.walk.drain(number)
        self.job.progress.advance(1)

    def _head(self) -> None:
        """The head, what is between it and the last block, and the embeddings, tied or not."""
        if self.walk.head is not None:
            self.walk.fill(None)
            costs = [self._logits(x, mask) for x, mask in self._ends()]
            sums = self.watch.sums[self.watch.head_name + "#head"]
            sums.h /= float(torch.cat(costs).mean())
        self.watch.sums |= self.tables
        self._save()
        self.job.progress.advance(1)

    def _ends(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for place, (inputs, mask) in enumerate(self.pieces):
            x = self.walk.leave(inputs, self.hidden.read(place).requires_grad_(True))
            self._probe(x, mask)
            yield x.detach(), mask

    def _probe(self, out: torch.Tensor, mask: torch.Tensor) -> None:
        """Send random directions, relative to the length of what came out, back to the layers that made it."""
        self.ceiling.check(NEEDED, SHORTER)
        length = out.detach().norm(dim=-1, keepdim=True).clamp_min(1e-20)
        direction = torch.randn(out.shape, generator=self.generator).to(out.device)
        direction = direction / length * mask[..., None].to(out.device)
        (out * direction).sum().backward()

    def _logits(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Add the head's part of x [n, length, width]; κ of each token."""
        head, costs = self.walk.head, []
        with torch.no_grad():
            square = head.weight.square().sum(1)
            for rows in x[mask].split(LOGITS):
                p = head(rows).softmax(-1)
                self.watch.kept.head = rows
                self.watch.add_head(p, torch.ones(len(rows), dtype=torch.bool))
                fisher = p @ square - (p @ head.weight).square().sum(1)
                costs.append(fisher * rows.square().mean(1))
        return torch.cat(costs)

    def _save(self) -> None:
        """Factor and keep what was summed up, and forget it."""
        self.ceiling.check(NEEDED, SHORTER)
        for sums in self.watch.sums.values():
            sums.tokens = self.seen
        for name, sums, turned in matrices_of(self.watch, self.walk.stored):
            save(self.folder, name, replace(factor(sums), turned=turned))
