"""What the modules of a model see in a calibration: sums over tokens of inputs and gradients, taken by hooks.

See calibrate.py for what they mean.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from corecompress_vae.turns import Turns

PLAIN_SHARE = 0.05
"""β: the plain Hessian's share."""
GROUP = 64
"""Rows that are looked at together: an attention head's, in most models."""
OWN_SHARE = 0.5
"""How far a row's weight follows its own gradient; the rest is the layer's mean, against too little text."""
SEEN_SHARE = 0.8
"""How far the weight of a vocabulary row follows its frequency; the rest is spread evenly over the vocabulary."""

CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


@dataclass
class Sums:
    """Running sums of one module: h [n, n]; rows [o], of all but tables the diagonals of blocks in the end; blocks
    [⌈o / GROUP⌉, GROUP, GROUP] of all but tables, the second moments of neighbouring outputs' gradients, where a token
    counts by the direction of its gradient more than by its length; energy, the sum over `alive` tokens of the
    gradients' mean square; tokens."""

    h: torch.Tensor
    rows: torch.Tensor
    blocks: torch.Tensor | None = None
    energy: float = 0.0
    alive: int = 0
    tokens: int = 0


class _Lookups(TorchFunctionMode):
    """Shows every lookup in a table to `seen`, which may change what comes out: there are modules that take a mask or a
    shape instead of indices, and modules that scale what they found."""

    def __init__(self, seen: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return self.seen(args[0], args[1], out) if func is torch.nn.functional.embedding else out


class Watch:
    """Sums up inputs and gradients of every linear, embedding and convolution module of a model, while entered."""

    def __init__(self, model: Any):
        self.model = model
        self.sums: dict[str, Sums] = {}
        self.turned: set[str] = set()
        self.head = embeddings_of(model, "output")
        self.kept = threading.local()
        self.turns = Turns()
        self.handles = []
        self.tables: list[tuple[str, torch.nn.Embedding]] = []
        self.watched: list[Any] = []
        self.lookups = _Lookups(self._on_lookup)
        for name, module in model.named_modules():
            layer = isinstance(module, (torch.nn.Linear, Conv1D, *CONVOLUTIONS))
            if layer or module is self.head or isinstance(module, torch.nn.Embedding):
                self.watched.append(module)
            if module is self.head:
                self.head_name = f"{name}.weight"
                self.handles.append(module.register_forward_hook(self._keep_head))
            elif layer:
                if isinstance(module, Conv1D):
                    self.turned.add(f"{name}.weight")
                self.handles.append(module.register_forward_hook(self._on_layer(f"{name}.weight")))
            elif isinstance(module, torch.nn.Embedding):
                self.tables.append((f"{name}.weight", module))

    def __enter__(self) -> Watch:
        self.lookups.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self.lookups.__exit__(*problem)
        for handle in self.handles:
            handle.remove()

    @contextmanager
    def piece(self, number: int) -> Iterator[None]:
        """See piece `number` in this thread, whatever the others see meanwhile."""
        with self.turns.piece(number), _Lookups(self._on_lookup):
            yield

    def bytes_of_sums(self) -> int:
        """Of all sums, when every module was seen."""
        total = 0
        for module in self.watched:
            wide, rows = module.weight[0].numel(), len(module.weight)
            n, o = (rows, wide) if isinstance(module, Conv1D) else (wide, rows)
            alone = module is self.head or isinstance(module, torch.nn.Embedding)
            total += 4 * (n * n + o * (1 if alone else GROUP))
        return total

    def _of(self, name: str, n: int, o: int, device: torch.device) -> Sums:
        if name not in self.sums:
            self.sums[name] = Sums(torch.zeros(n, n, device=device), torch.zeros(o, device=device))
        return self.sums[name]

    def _on_layer(self, name: str) -> Any:
        def hook(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                # behind pixels nothing asks for a gradient yet; a clone, since what follows may write into it
                out = out if out.requires_grad else out.detach().requires_grad_(True).clone()
                x = args[0].detach()
                self.turns.expect(name)
                out.register_hook(lambda g: self._add(name, module, x, g.detach()))
            return out

        return hook

    def _add(self, name: str, module: Any, x: torch.Tensor, g: torch.Tensor) -> None:
        with self.turns.of(name):
            if not isinstance(module, CONVOLUTIONS):
                self._add_tokens(name, x.flatten(0, -2)[:, None], g.flatten(0, -2))
                return
            if x.dim() == len(module.kernel_size) + 1:
                x, g = x[None], g[None]
            for image, outputs in zip(x, g, strict=True):  # one by one: patches are a kernel's size larger than images
                self._add_tokens(name, _patches(image, module), outputs.flatten(1).T)

    def _add_tokens(self, name: str, x: torch.Tensor, g: torch.Tensor) -> None:
        """x [t, groups, n], g [t, o]: of grouped convolutions every group has inputs of its own; h is their mean."""
        g, groups = g.float(), x.shape[1]
        sums = self._of(name, x.shape[2], g.shape[1], x.device)
        token = g.reshape(len(g), groups, -1).square().mean(2)
        alive = token > 0  # padding has no gradient and no part in the mean
        sums.energy, sums.alive = sums.energy + float(token.sum()), sums.alive + int(alive.sum())
        if not sums.alive:
            return
        share = PLAIN_SHARE * token.sum() / alive.sum().clamp_min(1)
        weighted = (x.float() * (token + share * alive).sqrt()[:, :, None]).flatten(0, 1)
        sums.h.addmm_(weighted.T, weighted, alpha=1 / groups)
        _add_rows(sums, g / (token.mean(1) + sums.energy / sums.alive).sqrt()[:, None])

    def _on_lookup(self, indices: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        name = next((name for name, module in self.tables if module.weight is weight), None)
        if name is None or not torch.is_grad_enabled():
            return out
        ids, size = indices.detach().flatten(), len(weight)
        out = out.detach().requires_grad_(True)
        self.turns.expect(name)
        out.register_hook(lambda g: self._add_embedding(name, size, ids, g.detach().reshape(-1, g.shape[-1])))
        return out

    def _add_embedding(self, name: str, size: int, ids: torch.Tensor, g: torch.Tensor) -> None:
        alive = (g != 0).any(1).float()
        with self.turns.of(name):
            sums = self._of(name, g.shape[1], size, g.device)
            sums.h.addmm_(g.float().T, g.float())
            sums.rows.index_add_(0, ids, alive)

    def _keep_head(self, module: Any, args: Any, out: torch.Tensor) -> None:
        self.kept.head = args[0].detach().flatten(0, -2)

    def add_head(self, p: torch.Tensor, rows: torch.Tensor) -> None:
        """The head's part, from probabilities [t, V] and which of its inputs they belong to, with the label's
        expectation taken exactly: E g_i² = p_i (1 − p_i)."""
        if self.head is None or getattr(self.kept, "head", None) is None:
            return
        x, self.kept.head = self.kept.head[rows], None
        square = p * p
        spread = (1 - square.sum(1)).clamp_min(0) / p.shape[1]
        weighted = x.float() * spread.sqrt()[:, None]
        name = self.head_name + "#head"
        self.turns.expect(name)
        with self.turns.of(name):
            sums = self._of(name, x.shape[1], p.shape[1], x.device)
            sums.h.addmm_(weighted.T, weighted)
            sums.rows += p.sum(0) - square.sum(0)

    def collect(self) -> Iterable[tuple[str, Sums]]:
        """(parameter, sums): a table that is input and head, tied or not, once under each of its names."""
        names = {id(p): name for name, p in self.model.named_parameters()}  # tied parameters come once
        head = self.sums.pop(getattr(self, "head_name", "") + "#head", None)
        embedding = embeddings_of(self.model, "input")
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
                if sums.blocks is not None:
                    sums.rows = sums.blocks.diagonal(dim1=1, dim2=2).flatten()[: len(sums.rows)]
                sums.rows = OWN_SHARE * sums.rows + (1 - OWN_SHARE) * sums.rows.mean()
            if id(module.weight) in names:  # a weight that a parametrization makes is no parameter
                yield names[id(module.weight)], sums
        if head is not None and self.head is not None:
            head.rows = SEEN_SHARE * head.rows + (1 - SEEN_SHARE) * head.rows.mean()
            yield names[id(self.head.weight)], head


def _patches(image: torch.Tensor, convolution: Any) -> torch.Tensor:
    """What each output of a convolution is summed over, [positions, groups, n], of image [channels, …]."""
    axes, mode = len(convolution.kernel_size), convolution.padding_mode
    spans = [d * (k - 1) + 1 for d, k in zip(convolution.dilation, convolution.kernel_size, strict=True)]
    ends = [end for axis in reversed(range(axes)) for end in _padding(convolution.padding, axis, spans[axis])]
    found = torch.nn.functional.pad(image[None], ends, mode="constant" if mode == "zeros" else mode)[0]
    for axis, (span, stride, step) in enumerate(zip(spans, convolution.stride, convolution.dilation, strict=True)):
        found = found.unfold(1 + axis, span, stride)[..., ::step]
    found = found.movedim(0, axes).flatten(0, axes - 1)
    return found.reshape(len(found), convolution.groups, -1)


def _padding(padding: Any, axis: int, span: int) -> tuple[int, int]:
    """How much is added before and behind an axis that a kernel of `span` goes along."""
    if padding == "same":
        return (span - 1) // 2, span // 2
    return (0, 0) if padding == "valid" else (padding[axis], padding[axis])


def embeddings_of(model: Any, side: str) -> Any:
    """The module of the model's "input" or "output" embeddings; None where it has none, or does not say which."""
    try:
        return getattr(model, f"get_{side}_embeddings")()
    except (AttributeError, NotImplementedError):
        return None


def _add_rows(sums: Sums, g: torch.Tensor) -> None:
    """Add the second moments of gradients g [t, o] within groups of outputs."""
    groups = -(-g.shape[1] // GROUP)
    padded = torch.nn.functional.pad(g, (0, groups * GROUP - g.shape[1])).view(-1, groups, GROUP).transpose(0, 1)
    found = padded.transpose(1, 2) @ padded
    sums.blocks = found if sums.blocks is None else sums.blocks.add_(found)


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
