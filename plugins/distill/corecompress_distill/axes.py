"""Which dimension of which tensor is the hidden size, a feed-forward size or the heads of a model.

Found by making models without weights from configurations in which one width is smaller, and looking at what shrinks.
Some configurations tie the heads' width to the hidden size (head width = hidden size / heads); there the projections
of the attentions tell the two apart. `proven` then moves all units about in the real model, which must not change
what it computes: a family that this file misunderstands is found out before anything is cut.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from corecompress.errors import CorecompressError
from corecompress_distill.configs import (
    FFN,
    HEADS,
    Field,
    changed,
    difference,
    names_of,
    shapes,
    skeleton,
    value_of,
)
from corecompress_distill.structure import Attention, Stack, find_attentions, output_dim

Kind = Literal["hidden", "ffn", "heads"]


@dataclass(frozen=True)
class Widths:
    """Sizes of a model. groups: key and value heads, which several query heads share."""

    hidden: int
    ffn: int
    heads: int
    groups: int
    head_width: int
    tied: bool = False

    @property
    def shared(self) -> int:
        """Query heads of one group."""
        return self.heads // self.groups


@dataclass(frozen=True)
class Axes:
    """kinds: what each (tensor, dimension) that can be cut is; interleaved: whether a fused projection has query, key
    and value of head 0 first, then of head 1, … ; common: whether all blocks share their heads' order, as where all
    use one table of position biases; notes: what a configuration said against a smaller width."""

    kinds: dict[tuple[str, int], Kind]
    widths: Widths
    stacks: tuple[Stack, ...]
    attentions: tuple[list[list[Attention]], ...]
    interleaved: bool = False
    common: bool = False
    notes: dict[str, str] = field(default_factory=dict)


def read_widths(config: Any) -> Widths:
    """Sizes as the configuration gives them. Raises CorecompressError where it gives none."""

    def first(fields: list[Field]) -> int | None:
        values = [value_of(config, name) for name in fields]
        return next((value for value in values if isinstance(value, int)), None)

    hidden, heads = first(names_of(config, "hidden_size")), first(names_of(config, "num_attention_heads", HEADS))
    if hidden is None or heads is None:
        raise CorecompressError(
            f"distill: {type(config).__name__} names no hidden size and heads, so its width can't be cut; try layers="
        )
    ffn = first(names_of(config, "intermediate_size", FFN)) or 4 * hidden
    groups = first(names_of(config, "num_key_value_heads")) or heads
    width = first(names_of(config, "head_dim")) or hidden // heads
    return Widths(hidden, ffn, heads, groups, width)


def config_values(config: Any, old: Widths, new: Widths) -> dict[Field, Any]:
    """The fields that turn a configuration of `old` widths into one of `new` ones."""
    values: dict[Field, Any] = dict.fromkeys(names_of(config, "hidden_size"), new.hidden)
    values |= dict.fromkeys(names_of(config, "num_attention_heads", HEADS), new.heads)
    values |= dict.fromkeys(names_of(config, "num_key_value_heads"), new.groups)
    values |= dict.fromkeys(names_of(config, "intermediate_size", FFN), new.ffn)
    if not old.tied:
        values |= dict.fromkeys(names_of(config, "head_dim") or [("head_dim",)], new.head_width)
    return values


def find_axes(model: Any, stacks: list[Stack]) -> Axes:
    """Look for all three kinds; one that isn't found has no entry in `kinds`, and a line in `notes` that says why."""
    cls, config, old = type(model), model.config, read_widths(model.config)
    whole = shapes(model)
    attentions = tuple(find_attentions(model, stack) for stack in stacks)
    projections = _head_dimensions(model, attentions)
    kinds: dict[tuple[str, int], Kind] = {}
    notes: dict[str, str] = {}

    def shrunk(new: Widths) -> set[tuple[str, int]]:
        try:
            return difference(whole, shapes(skeleton(cls, changed(config, config_values(config, old, new)))))
        except Exception as problem:  # a configuration says no in its own way
            notes["problem"] = " ".join(str(problem).split())[:160]
            return set()

    groups = _fewer_groups(old)
    fewer = replace(old, heads=groups * old.shared, groups=groups)
    free = shrunk(fewer) if old.groups > 1 else set()
    old = replace(old, tied=not free)
    if free:
        kinds |= dict.fromkeys(free, "heads")
        kinds |= dict.fromkeys(shrunk(replace(old, hidden=max(old.hidden - old.heads, 2))), "hidden")
    elif old.groups > 1:
        smaller = replace(old, heads=old.heads - old.shared, groups=old.groups - 1)
        smaller = replace(smaller, hidden=smaller.heads * old.head_width)
        both = shrunk(smaller)
        kinds |= {place: "heads" if place in projections else "hidden" for place in both}
    kinds |= dict.fromkeys(shrunk(replace(old, ffn=old.ffn - 1)), "ffn")
    return Axes(kinds, old, tuple(stacks), attentions, notes=notes)


def _fewer_groups(widths: Widths) -> int:
    """A smaller number of groups, such that the hidden size stays a multiple of the heads (some insist on it)."""
    fits = (n for n in range(widths.groups - 1, 0, -1) if widths.hidden % (n * widths.shared) == 0)
    return next(fits, widths.groups - 1)


def _head_dimensions(model: Any, attentions: tuple[list[list[Attention]], ...]) -> set[tuple[str, int]]:
    """Outputs of query, key and value projections, inputs of what follows them."""
    found = set()
    for attention in (one for stack in attentions for block in stack for one in block):
        for name in attention.inputs:
            dim = output_dim(model.get_submodule(name))
            found |= {(f"{name}.weight", dim), (f"{name}.bias", 0)}
        found.add((f"{attention.output}.weight", 1 - output_dim(model.get_submodule(attention.output))))
    return found


Order = Callable[[Kind, int, int], torch.Tensor]
"""(kind, number of the stack, number of the block or −1 for all) -> the units that are kept, in their order, int64."""


def cut(state: dict[str, torch.Tensor], names: dict[str, str], axes: Axes, order: Order) -> dict[str, torch.Tensor]:
    """Tensors with the units of `order` only. names: name in the result -> name in `state`."""
    made = {}
    for name, source in names.items():
        tensor = state[source]
        for dim in range(tensor.ndim):
            kind = axes.kinds.get((source, dim))
            if kind is not None:
                tensor = tensor.index_select(dim, _positions(axes, kind, source, tensor.shape[dim], order))
        made[name] = tensor.clone()
    return made


def _positions(axes: Axes, kind: Kind, name: str, size: int, order: Order) -> torch.Tensor:
    """Where the kept units stand along a dimension of `size`. Raises ValueError for a size that isn't made of them."""
    place = next(((n, b) for n, s in enumerate(axes.stacks) if (b := s.block_of(name)) is not None), (0, -1))
    widths = axes.widths
    if kind == "heads":
        groups = order(kind, place[0], -1 if axes.common else place[1])
        return _head_positions(size, groups, widths, axes.interleaved)
    units = order(kind, *(place if kind == "ffn" else (0, -1)))
    count = widths.hidden if kind == "hidden" else widths.ffn
    if size % count:
        raise ValueError(f"{name} has a dimension of {size}, which isn't made of {count} units")
    return torch.cat([units + count * part for part in range(size // count)])


def _head_positions(size: int, groups: torch.Tensor, widths: Widths, interleaved: bool) -> torch.Tensor:
    """Places of the kept groups (a key-value head with its query heads) in a projection, a fused one, or a table."""
    shared, width, count = widths.shared, widths.head_width, widths.groups
    queries = (groups[:, None] * shared + torch.arange(shared)).flatten()
    if size == widths.heads:
        return queries
    if size == widths.heads * width:
        return _spread(queries, width)
    if size == count * width:
        return _spread(groups, width)
    if size != (widths.heads + 2 * count) * width:
        raise ValueError(f"a dimension of {size} isn't made of {widths.heads} heads of {width}")
    if interleaved:
        return _spread(groups, (shared + 2) * width)
    first = [_spread(queries, width), _spread(groups, width) + widths.heads * width]
    return torch.cat([*first, _spread(groups, width) + (widths.heads + count) * width])


def _spread(units: torch.Tensor, width: int) -> torch.Tensor:
    return (units[:, None] * width + torch.arange(width)).flatten()


def proven(model: Any, axes: Axes, kinds: set[Kind], run: Callable[[Any], torch.Tensor]) -> Axes:
    """The axes with `interleaved` and `common` as they have to be: such that the model with its units in another order
    computes the same. run: the model's outputs for some input, any hidden units last.

    Raises CorecompressError for a kind of unit that can't be moved about: it can't be cut either.
    """
    model = model.eval()
    with torch.no_grad():
        before = run(model)
    for kind in sorted(kinds):
        if kind not in axes.kinds.values():
            raise _unknown(model, axes, kind)
    variants = [(i, c) for c in (False, True) for i in (False, True)] if "heads" in kinds else [(False, False)]
    for interleaved, common in variants:
        tried = replace(axes, interleaved=interleaved, common=common)
        if all(_is_same(model, tried, kind, run, before) for kind in sorted(kinds)):
            return tried
    raise _unknown(model, axes, next(k for k in sorted(kinds) if not _is_same(model, axes, k, run, before)))


def _is_same(model: Any, axes: Axes, kind: Kind, run: Callable[[Any], torch.Tensor], before: torch.Tensor) -> bool:
    generator = torch.Generator().manual_seed(0)
    drawn: dict[tuple[Any, ...], torch.Tensor] = {}
    counts = {"hidden": axes.widths.hidden, "ffn": axes.widths.ffn, "heads": axes.widths.groups}

    def order(asked: Kind, stack: int, block: int) -> torch.Tensor:
        if asked != kind:
            return torch.arange(counts[asked])
        return drawn.setdefault((stack, block), torch.randperm(counts[asked], generator=generator))

    moved = copy.deepcopy(model)
    state = model.state_dict()
    try:
        moved.load_state_dict(cut(state, {name: name for name in state}, axes, order))
    except ValueError:
        return False
    with torch.no_grad():
        after = run(moved)
    if kind == "hidden" and after.shape[-1] == axes.widths.hidden:
        before = before[..., order("hidden", 0, -1)]
    return bool(torch.allclose(after, before, rtol=1e-3, atol=1e-4 * float(before.abs().max())))


def _unknown(model: Any, axes: Axes, kind: Kind) -> CorecompressError:
    works = sorted({*axes.kinds.values()} - {kind})
    offer = ", ".join([*(["layers=N"] if axes.stacks else []), *(f"{name}=N" for name in works)]) or "student=FOLDER"
    why = f" ({axes.notes['problem']})" if "problem" in axes.notes else ""
    return CorecompressError(
        f"distill: where {kind} stand in a {type(model).__name__} is not clear{why}, so {kind}= can't be cut; "
        f"what may be: {offer}"
    )
