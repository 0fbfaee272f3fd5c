"""How much a model needs each of its parts, from running it on calibration data.

Blocks: 1 − cos(h_in, h_out), how much the hidden state changes across a block (Men et al., "ShortGPT",
arXiv:2403.03853, "block influence"). Neurons, heads and channels: the size of their activations, mean over the tokens,
root of the sum of squares over the batches (Muralidharan et al., "Compact Language Models via Pruning and Knowledge
Distillation" (Minitron), arXiv:2407.14679, section 2.2): of feed-forward neurons where they enter the projection back,
of heads the norm of what they add, of hidden channels behind the normalisations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from corecompress_distill.axes import Axes
from corecompress_distill.structure import Stack, is_projection, output_dim

Run = Callable[[Any, Any], Any]
"""(model, inputs) -> runs the model on them."""


def block_influence(model: Any, stack: Stack, batches: Iterable[Any], run: Run) -> torch.Tensor:
    """How much each block of the stack changes the hidden state, float64 [length], from 0 to 2."""
    total, count = torch.zeros(stack.length, dtype=torch.float64), 0

    def watch(number: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            change = 1 - torch.cosine_similarity(before.double(), after.double(), dim=-1)
            total[number] += float(change.mean())

        return hook

    blocks = model.get_submodule(stack.path)
    handles = [block.register_forward_hook(watch(n), with_kwargs=True) for n, block in enumerate(blocks)]
    try:
        with torch.inference_mode():
            for inputs in batches:
                run(model, inputs)
                count += 1
    finally:
        for handle in handles:
            handle.remove()
    return total / max(count, 1)


class Activations:
    """Importance of every unit that may be cut, as `axes.Order` wants it after `keep`."""

    def __init__(self, model: Any, axes: Axes, batches: Iterable[Any], run: Run):
        self.axes = axes
        self.squares: dict[tuple[str, int, int], Any] = defaultdict(float)
        handles = [module.register_forward_pre_hook(hook) for module, hook in self._inputs(model)]
        handles += [module.register_forward_hook(self._channels) for module in self._norms(model)]
        try:
            with torch.inference_mode():
                for inputs in batches:
                    run(model, inputs)
        finally:
            for handle in handles:
                handle.remove()

    def keep(self, kind: str, stack: int, block: int, count: int) -> torch.Tensor:
        """The `count` most important units, int64, in their old order. block: −1 for all of the stack together."""
        found = [v for (k, s, b), v in self.squares.items() if (k, s) == (kind, stack) and block in (-1, b)]
        scores = torch.stack([torch.sqrt(value) for value in found]).sum(0)
        return scores.topk(count).indices.sort().values

    def _inputs(self, model: Any) -> Iterable[tuple[nn.Module, Any]]:
        """The projections behind feed-forward neurons and behind heads, each with its hook."""
        for number, stack in enumerate(self.axes.stacks):
            outputs = {one.output for block in self.axes.attentions[number] for one in block}
            for name, module in model.named_modules():
                block = stack.block_of(name)
                if block is None or not is_projection(module):
                    continue
                kind = self.axes.kinds.get((f"{name}.weight", 1 - output_dim(module)))
                if kind == "ffn" or (kind == "heads" and name in outputs):
                    yield module, self._watch(kind, number, block)

    def _watch(self, kind: str, stack: int, block: int) -> Any:
        widths = self.axes.widths

        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0].double().reshape(-1, args[0].shape[-1])
            if kind == "heads":
                x = x.reshape(len(x), widths.groups, -1).norm(dim=-1)
            self.squares[kind, stack, block] += x.abs().mean(0) ** 2

        return hook

    def _norms(self, model: Any) -> list[nn.Module]:
        """Modules whose parameters are all vectors of hidden channels."""
        found = []
        for name, module in model.named_modules():
            own = [(f"{name}.{key}", value) for key, value in module.named_parameters(recurse=False)]
            if own and all(value.ndim == 1 and self.axes.kinds.get((key, 0)) == "hidden" for key, value in own):
                found.append(module)
        return found

    def _channels(self, module: nn.Module, args: Any, output: Any) -> None:
        x = output.double().reshape(-1, output.shape[-1])
        if x.shape[-1] == self.axes.widths.hidden:
            self.squares["hidden", 0, -1] = self.squares["hidden", 0, -1] + x.abs().mean(0) ** 2
