"""Which tensor of a checkpoint a model's parameter is read from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any


def stored_names(model: Any, stored: Iterable[str]) -> dict[str, str]:
    """Name of a parameter or buffer -> name of its tensor, for all that are stored as they are.

    The same name; with the base model's prefix added or taken away; renamed as transformers does it on loading; or
    that of a tied parameter. What transformers puts together from several tensors, or splits, is left out.
    """
    values: dict[int, list[str]] = {}  # names of one value: a tied one has several
    everything = itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    for name, value in everything:
        values.setdefault(id(value), []).append(name)
    have, prefix = set(stored), getattr(model, "base_model_prefix", "")
    renamed = _renamed(model, have)
    found: dict[str, str] = {}
    for names in values.values():
        for name in names:
            candidates = (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}."), renamed.get(name, ""))
            same = [candidate for candidate in candidates if candidate in have]
            if same:
                found |= dict.fromkeys(names, same[0])
                break
    return found


def _renamed(model: Any, stored: Iterable[str]) -> dict[str, str]:
    """Parameter -> tensor by transformers' own renamings, such as embed_out.weight to lm_head.weight."""
    from transformers import core_model_loading as loading
    from transformers.conversion_mapping import get_model_conversion_mapping

    if not hasattr(model, "base_model_prefix"):
        return {}
    transforms = get_model_conversion_mapping(model)
    converters = [step for step in transforms if isinstance(step, loading.WeightConverter)]
    renamings = [step for step in transforms if not isinstance(step, loading.WeightConverter)]
    state = model.state_dict()
    found = {}
    for name in stored:
        target, converter = loading.rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if converter is None:
            found[target] = name
    return found
