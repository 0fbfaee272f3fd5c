"""What the modules of a model see in a calibration: sums over tokens of inputs and gradients, taken by hooks.

See calibrate.py for what they mean.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from corecompress_vae.gram import add_gram
from corecompress_vae.layout import EXPERT
from corecompress_vae.turns import Turns

PLAIN_SHARE = 0.05
"""β: the plain Hessian's share."""
GROUP = 64
"""Rows that are looked at together: an attention head's, in most models."""
ROWS = 128
"""Tokens whose probabilities are looked at together: memory that fits is used again, more is asked for each time."""
OWN_SHARE = 0.5
"""How far a row's weight follows its own gradient; the rest is the layer's mean, against too little text."""
SEEN_SHARE = 0.8
"""How far the weight of a vocabulary row follows its frequency; the rest is spread evenly over the vocabulary."""

CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)

LINEAR = (torch.nn.Linear, Conv1D)


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

    def of_rows(self, start: int, stop: int) -> Sums:
        """Of some of the outputs; without blocks where they don't begin and end with one."""
        whole = start % GROUP == 0 and (stop % GROUP == 0 or stop == len(self.rows))
        blocks = self.blocks[start // GROUP : -(-stop // GROUP)] if self.blocks is not None and whole else None
        return replace(self, rows=self.rows[start:stop], blocks=blocks)


PRODUCTS = {
    torch.nn.functional.linear,
    torch.matmul,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
    torch.bmm,
    torch.Tensor.bmm,
}
"""Functions of (inputs, weight) by which models multiply weights that belong to no linear module."""


class _Functions(TorchFunctionMode):
    """Shows lookups in tables and products with weights to `watch`, which may change what comes out: there are modules
    that take a mask or a shape instead of indices, modules that scale what they found, and routers and experts that
    multiply parameters of their own."""

    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not torch.is_grad_enabled() or len(args) < 2:
            return out
        if func is torch.nn.functional.embedding:
            return self.watch.on_lookup(args[0], args[1], out)
        if func in PRODUCTS and isinstance(args[1], torch.Tensor):
            return self.watch.on_product(args[0], args[1], out, func is torch.nn.functional.linear)
        return out


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
        self.loose: dict[str, tuple[torch.nn.Module, str]] = {}
        """Matrices, and stacks of matrices (experts), that are parameters of other modules: module and key there."""
        self.functions = _Functions(self)
        for name, module in model.named_modules():
            layer = isinstance(module, CONVOLUTIONS) or _is_transposed(module) or is_linear(module)
            if layer or module is self.head or isinstance(module, torch.nn.Embedding):
                self.watched.append(module)
            if module is self.head:
                self.head_name = f"{name}.weight"
                self.handles.append(module.register_forward_hook(self._keep_head))
            elif layer:
                if isinstance(module, (Conv1D, *TRANSPOSED)):
                    self.turned.add(f"{name}.weight")
                self.handles.append(module.register_forward_hook(self._on_layer(f"{name}.weight")))
            elif isinstance(module, torch.nn.Embedding):
                self.tables.append((f"{name}.weight", module))
            else:
                for key, weight in module.named_parameters(recurse=False):
                    if weight.dim() == 2 or (weight.dim() == 3 and min(weight.shape[1:]) >= EXPERT):
                        self.loose[f"{name}.{key}" if name else key] = module, key

    def __enter__(self) -> Watch:
        self.functions.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self.functions.__exit__(*problem)
        for handle in self.handles:
            handle.remove()

    @contextmanager
    def piece(self, number: int) -> Iterator[None]:
        """See piece `number` in this thread, whatever the others see meanwhile."""
        with self.turns.piece(number), _Functions(self):
            yield

    def bytes_of_sums(self) -> int:
        """Of all sums, when every module was seen."""
        total = 0
        for module in self.watched:
            wide, rows = module.weight[0].numel(), len(module.weight)
            n, o = (rows, wide) if isinstance(module, (Conv1D, *TRANSPOSED)) else (wide, rows)
            alone = module is self.head or isinstance(module, torch.nn.Embedding)
            total += 4 * (n * n + o * (1 if alone else GROUP))
        for module, key in self.loose.values():
            *count, rows, wide = module._parameters[key].shape
            n = max(rows, wide) if count else wide  # stacks stand either way
            total += 4 * math.prod(count) * (n * n + GROUP * rows)
        return total

    def _of(self, name: str, n: int, o: int, device: torch.device) -> Sums:
        if name not in self.sums:
            self.sums[name] = Sums(torch.zeros(n, n, device=device), torch.zeros(o, device=device))
        return self.sums[name]

    def _on_layer(self, name: str) -> Any:
        def hook(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
            x = args[0].detach()
            return self._behind(out, name, lambda g: self._add(name, module, x, g)) if torch.is_grad_enabled() else out

        return hook

    def _behind(self, out: torch.Tensor, name: str, add: Callable[[torch.Tensor], None]) -> torch.Tensor:
        """`out`, whose gradient goes to `add` when it comes back; name: of the weight that made it."""
        # behind pixels nothing asks for a gradient yet; a clone, since what follows may write into it
        out = out if out.requires_grad else out.detach().requires_grad_(True).clone()
        self.turns.expect(name)
        out.register_hook(lambda g: add(g.detach()))
        return out

    def _add(self, name: str, module: Any, x: torch.Tensor, g: torch.Tensor) -> None:
        with self.turns.of(name):
            if not isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
                self._add_tokens(name, x.flatten(0, -2)[:, None], g.flatten(0, -2))
                return
            if x.dim() == len(module.kernel_size) + 1:
                x, g = x[None], g[None]
            for image, outputs in zip(x, g, strict=True):  # one by one: patches are a kernel's size larger than images
                if isinstance(module, TRANSPOSED):  # a position's outputs are a patch
                    self._add_tokens(name, image.flatten(1).T[:, None], _patches(outputs, module)[:, 0])
                    continue
                patches = _patches(image, module)
                if len(patches) == outputs[0].numel():  # else a subclass has padded its input
                    self._add_tokens(name, patches, outputs.flatten(1).T)

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
        add_gram(sums.h, weighted, 1 / groups)
        _add_rows(sums, g / (token.mean(1) + sums.energy / sums.alive).sqrt()[:, None])

    def on_product(self, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, linear: bool) -> torch.Tensor:
        """out = x · weight, or x · weightᵀ (linear): where that weight is a loose matrix, one of a stack, or a stack
        that meets a stack of inputs."""
        whole = weight if weight._base is None else weight._base
        name = next((name for name, (module, key) in self.loose.items() if module._parameters[key] is whole), None)
        if name is None or min(x.dim(), weight.dim()) < 2 or (weight.dim() == 3 and out.dim() != 3):
            return out
        shape = whole.shape if weight.dim() == whole.dim() else whole.shape[1:]
        if weight.shape not in (shape, whole.mT.shape[-len(shape) :]):
            return out  # a part of a matrix
        if linear != (weight.stride(-1) == 1):
            self.turned.add(name)
        parts = [""]
        if weight.dim() == 3:
            parts = [f"#{number}" for number in range(len(weight))]
        elif whole.dim() == 3:
            parts = [f"#{(weight.storage_offset() - whole.storage_offset()) // weight.numel()}"]
        x = x.detach().expand(*out.shape[:-1], -1).reshape(len(parts), -1, x.shape[-1])

        def add(g: torch.Tensor) -> None:
            with self.turns.of(name):
                for number, part in enumerate(parts):
                    self._add_tokens(name + part, x[number][:, None], g.reshape(*x.shape[:2], -1)[number])

        return self._behind(out, name, add)

    def on_lookup(self, indices: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        name = next((name for name, module in self.tables if module.weight is weight), None)
        if name is None:
            return out
        ids, size = indices.detach().flatten(), len(weight)
        return self._behind(out, name, lambda g: self._add_embedding(name, size, ids, g.reshape(-1, g.shape[-1])))

    def _add_embedding(self, name: str, size: int, ids: torch.Tensor, g: torch.Tensor) -> None:
        alive = (g != 0).any(1).float()
        with self.turns.of(name):
            sums = self._of(name, g.shape[1], size, g.device)
            add_gram(sums.h, g.float())
            sums.rows.index_add_(0, ids, alive)

    def _keep_head(self, module: Any, args: Any, out: torch.Tensor) -> None:
        self.kept.head = args[0].detach().flatten(0, -2)

    def add_head(self, p: torch.Tensor, asked: torch.Tensor) -> None:
        """The head's part, from probabilities [t, V] and which of its inputs they belong to, with the label's
        expectation taken exactly: E g_i² = p_i (1 − p_i)."""
        if self.head is None or getattr(self.kept, "head", None) is None:
            return
        x, self.kept.head = self.kept.head[asked], None
        each, rows = torch.empty(len(p), device=p.device), p.sum(0)
        for part, into in zip(p.split(ROWS), each.split(ROWS), strict=True):
            square = part * part
            into[:] = 1 - square.sum(1)
            rows -= square.sum(0)
        spread = each.clamp_min(0) / p.shape[1]
        weighted = x.float() * spread.sqrt()[:, None]
        name = self.head_name + "#head"
        self.turns.expect(name)
        with self.turns.of(name):
            sums = self._of(name, x.shape[1], p.shape[1], x.device)
            add_gram(sums.h, weighted)
            sums.rows += rows

    def collect(self) -> Iterable[tuple[str, int | None, Sums]]:
        """(parameter, which one of a stack, sums): a table that is input and head, tied or not, once under each of its
        names."""
        names = {id(p): name for name, p in self.model.named_parameters()}  # tied parameters come once
        for name, (module, key) in self.loose.items():
            weight = module._parameters[key]
            if weight.dim() == 2 and name in self.sums:
                yield names[id(weight)], None, _of_rows(self.sums.pop(name))
            elif weight.dim() == 3:
                for number, sums in enumerate(self._experts(name, len(weight))):
                    yield names[id(weight)], number, sums
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
                sums = _of_rows(sums)
            if id(module.weight) in names:  # a weight that a parametrization makes is no parameter
                yield names[id(module.weight)], None, sums
        if head is not None and self.head is not None:
            head.rows = SEEN_SHARE * head.rows + (1 - SEEN_SHARE) * head.rows.mean()
            yield names[id(self.head.weight)], None, head

    def _experts(self, name: str, count: int) -> Iterator[Sums]:
        """Sums of each of `count` matrices of a stack, or of none: an expert's Hessian is SEEN_SHARE its own, the rest
        the mean of all of them, so that one that the text never reached has some as well."""
        found = {number: self.sums.pop(f"{name}#{number}", None) for number in range(count)}
        seen = [sums for sums in found.values() if sums is not None]
        if not seen:
            return
        mean, one = torch.zeros_like(seen[0].h), torch.ones_like(seen[0].rows)
        for sums in seen:
            mean += sums.h / count
        for sums in found.values():
            own = Sums(torch.zeros_like(mean), one, tokens=seen[0].tokens) if sums is None else _of_rows(sums)
            own.h.mul_(SEEN_SHARE).add_(mean, alpha=1 - SEEN_SHARE)
            yield own


def is_linear(module: Any) -> bool:
    """A linear layer, and no subclass that does something else with its weight (Llama 4's router)."""
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in LINEAR)


def _is_transposed(module: Any) -> bool:
    """A transposed convolution whose inputs all have a part in all outputs."""
    return isinstance(module, TRANSPOSED) and module.groups == 1


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


def _of_rows(sums: Sums) -> Sums:
    """With the rows' weights taken from their blocks."""
    rows = sums.rows if sums.blocks is None else sums.blocks.diagonal(dim1=1, dim2=2).flatten()[: len(sums.rows)]
    return replace(sums, rows=OWN_SHARE * rows + (1 - OWN_SHARE) * rows.mean())


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
