"""What a model is built of: its stacks of blocks and its attentions, found in its modules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from corecompress_distill.configs import Field, changed, leaves, skeleton

QUERY_KEY_VALUE = re.compile(r"(q|k|v|query|key|value)(_proj|_lin|_linear)?")
FUSED = re.compile(r"c_attn|query_key_value|W?qkv(_proj|_linear)?|in_proj")


@dataclass(frozen=True)
class Stack:
    """Blocks of one class, one after the other. path: of the ModuleList; fields: where the configuration says how
    many there are; lists: fields with an entry for each block."""

    path: str
    length: int
    fields: tuple[Field, ...]
    lists: tuple[Field, ...]

    def block_of(self, name: str) -> int | None:
        """The number of the block that a tensor or module belongs to, None outside of the stack."""
        found = re.match(re.escape(self.path) + r"\.(\d+)(\.|$)", name)
        return int(found[1]) if found else None

    def renamed(self, name: str, number: int) -> str:
        """The same tensor in another block."""
        return re.sub("^" + re.escape(self.path) + r"\.\d+", f"{self.path}.{number}", name)


def find_stacks(model: Any) -> list[Stack]:
    """The longest stack, or for an encoder-decoder both; [] where no part of the configuration says their length."""
    lists = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and len({type(block) for block in module}) == 1
    ]
    outer = [(p, m) for p, m in lists if not any(p.startswith(other + ".") for other, _ in lists)]
    outer.sort(key=lambda found: -sum(w.numel() for w in found[1].parameters()))
    outer.sort(key=lambda found: -len(found[1]))
    if model.config.is_encoder_decoder:
        sides = model.get_encoder(), model.get_decoder()
        chosen = [next(((p, m) for p, m in outer if _within(m, side)), None) for side in sides]
    else:
        chosen = [outer[0] if outer else None]
    stacks = [_with_fields(model, path, len(blocks)) for path, blocks in filter(None, chosen)]
    return [stack for stack in stacks if stack.fields]


def _within(module: nn.Module, side: nn.Module) -> bool:
    return any(inner is module for inner in side.modules())


def _with_fields(model: Any, path: str, length: int) -> Stack:
    """Find the fields by making each candidate smaller by one and looking whether the stack follows."""
    config = model.config
    all_leaves = list(leaves(config.to_dict()))
    per_block = {field for field, value in all_leaves if isinstance(value, list) and len(value) == length}
    fields, lists = [], []
    for field, value in all_leaves:
        if type(value) is not int or value != length or length < 2:
            continue
        siblings = [(f, v) for f, v in all_leaves if f in per_block and f[:-1] == field[:-1]]
        fewer: dict[Field, Any] = {field: length - 1, **{f: v[:-1] for f, v in siblings}}
        try:
            made = skeleton(type(model), changed(config, fewer))
            follows = len(made.get_submodule(path)) == length - 1
        except Exception:  # a configuration may refuse any value; then it's not this field
            follows = False
        if follows:
            fields.append(field)
            lists += [f for f, _ in siblings]
    if fields:
        # Configurations keep the number under a second name as well (BART's num_hidden_layers); it has to follow.
        above = fields[0][:-1]
        second = (*above, "num_hidden_layers")
        is_decoder = "decoder" in fields[0][-1]
        if second not in fields and not is_decoder and dict(all_leaves).get(second) == length:
            fields.append(second)
    return Stack(path, length, tuple(fields), tuple(dict.fromkeys(lists)))


@dataclass(frozen=True)
class Attention:
    """One attention of a block, by the paths of its projections. inputs: query, key and value, or the one
    projection that makes all three; output: the projection after it."""

    inputs: tuple[str, ...]
    output: str

    @property
    def fused(self) -> bool:
        return len(self.inputs) == 1


def find_attentions(model: Any, stack: Stack) -> list[list[Attention]]:
    """The attentions of each block: projections with the usual names, and the one beside them, or after them."""
    return [_attentions(model, f"{stack.path}.{number}") for number in range(stack.length)]


def _attentions(model: Any, block: str) -> list[Attention]:
    names = [f"{block}.{name}" for name, module in model.get_submodule(block).named_modules() if is_projection(module)]
    found, inputs = [], []
    for at, name in enumerate(names):
        last = name.rpartition(".")[2]
        if not FUSED.fullmatch(last) and not QUERY_KEY_VALUE.fullmatch(last):
            continue
        inputs.append(name)
        if FUSED.fullmatch(last) or len(inputs) == 3:
            above = name.rpartition(".")[0] + "."
            beside = [other for other in names if other.startswith(above) and other not in inputs]
            inputs.sort(key=lambda one: "qkv".find(one.rpartition(".")[2][0]))
            found += [Attention(tuple(inputs), output) for output in (beside or names[at + 1 :])[:1]]
            inputs = []
    return found


def is_projection(module: nn.Module) -> bool:
    """Whether it is a matrix of its own: nn.Linear, or Conv1D, which keeps its matrix the other way round."""
    weight = getattr(module, "weight", None)
    is_matrix = isinstance(weight, torch.Tensor) and weight.ndim == 2
    return is_matrix and not isinstance(module, nn.Embedding) and not list(module.children())


def output_dim(module: nn.Module) -> int:
    """The dimension of a projection's weight that its outputs are along."""
    return 0 if isinstance(module, nn.Linear) else 1
