"""A model's configuration as a tree of values, and models without weights made from a changed one.

What a field of a configuration does is found by changing it and looking at the shapes of the model that comes out, not
by knowing the family.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from corecompress.training.quiet import quiet

Field = tuple[str, ...]
"""A place in a configuration: ("num_hidden_layers",) or ("text_config", "num_hidden_layers")."""
Shapes = dict[str, tuple[int, ...]]

FFN = ("intermediate_size", "n_inner", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim")
HEADS = ("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads")
"""What configurations call a width, beside the names that their attribute_map gives."""


def leaves(tree: Mapping[str, Any], above: Field = ()) -> Iterator[tuple[Field, Any]]:
    """(field, value) of everything in a configuration that is no configuration itself."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def changed(config: Any, values: Mapping[Field, Any]) -> Any:
    """A copy of a configuration with other values. Raises what its class raises for values that don't fit."""
    tree = copy.deepcopy(config.to_dict())
    for field, value in values.items():
        at = tree
        for key in field[:-1]:
            at = at[key]
        at[field[-1]] = value
    with quiet():
        made = type(config).from_dict(tree)
    made._attn_implementation = getattr(config, "_attn_implementation", None)
    return made


def names_of(config: Any, general: str, others: tuple[str, ...] = ()) -> list[Field]:
    """The fields that hold what most configurations call `general`, in the part that is about the text."""
    part = config.get_text_config()
    above: Field = ()
    if part is not config:
        above = next(((key,) for key, value in vars(config).items() if value is part), ())
    known = part.to_dict()
    names = dict.fromkeys((part.attribute_map.get(general, general), *others))
    return [(*above, name) for name in names if name in known]


def value_of(config: Any, field: Field) -> Any:
    """What stands in a field."""
    for key in field:
        config = getattr(config, key)
    return config


def skeleton(cls: type[Any], config: Any) -> Any:
    """A model without weights (on torch's meta device): cheap, and it has all the shapes."""
    with quiet(), torch.device("meta"):
        return cls(copy.deepcopy(config))


def shapes(model: Any) -> Shapes:
    """The shape of every tensor that a checkpoint of the model would hold."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def difference(one: Shapes, other: Shapes) -> set[tuple[str, int]]:
    """(tensor, dimension) wherever two models of the same tensors differ."""
    found = set()
    for name in one.keys() & other.keys():
        if len(one[name]) == len(other[name]):
            pairs = zip(one[name], other[name], strict=True)
            found |= {(name, dim) for dim, (a, b) in enumerate(pairs) if a != b}
    return found
