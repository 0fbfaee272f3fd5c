"""Which tensor of a checkpoint a model's parameter is read from."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from corecompress.components import TensorInfo

Transformed = tuple[str, str, str, Any]
"""A tensor, the parameter that it goes into, the pattern of its name and the converter that make the parameter, or ""
and None for the tensor itself."""


@dataclass(frozen=True)
class StoredNames:
    """plain: parameter or buffer -> its tensor, for all that are stored as they are; merged: parameter [experts, …] ->
    for each expert the tensors whose rows stand in it, one behind the other; rows: first extents of tensors."""

    plain: dict[str, str]
    merged: dict[str, list[list[str]]]
    rows: dict[str, int]

    @classmethod
    def of(cls, model: Any, tensors: Iterable[TensorInfo]) -> StoredNames:
        """For that model's checkpoint."""
        rows = {info.name: info.shape[0] if info.shape else 1 for info in tensors}
        transformed = list(_transformed(model, rows))
        return cls(_plain(model, rows, transformed), _merged(transformed), rows)

    def tensors_of(self, parameter: str) -> list[str]:
        """Those that a parameter or buffer is made of; none for one that is not stored."""
        if parameter in self.plain:
            return [self.plain[parameter]]
        return list(itertools.chain.from_iterable(self.merged.get(parameter, [])))


def _plain(model: Any, stored: Collection[str], transformed: list[Transformed]) -> dict[str, str]:
    """The same name; with the base model's prefix added or taken away; renamed as transformers does it on loading; or
    that of a tied parameter. What transformers puts together from several tensors (`_merged`), or splits, is left
    out.
    """
    values: dict[int, list[str]] = {}  # names of one value: a tied one has several
    everything = itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    for name, value in everything:
        values.setdefault(id(value), []).append(name)
    prefix = getattr(model, "base_model_prefix", "")
    renamed = {target: name for name, target, _, converter in transformed if converter is None}
    found: dict[str, str] = {}
    for names in values.values():
        for name in names:
            candidates = (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}."), renamed.get(name, ""))
            same = [candidate for candidate in candidates if candidate in stored]
            if same:
                found |= dict.fromkeys(names, same[0])
                break
    return found


def _merged(transformed: list[Transformed]) -> dict[str, list[list[str]]]:
    """Of all that transformers stacks on loading, as experts that are stored one by one."""
    of_pattern: dict[tuple[str, str], list[str]] = {}
    patterns_of: dict[str, list[str]] = {}
    for name, target, pattern, converter in transformed:
        if converter is not None and _stacks(converter):
            of_pattern.setdefault((target, pattern), []).append(name)
            patterns_of[target] = converter.source_patterns
    found = {}
    for target, patterns in patterns_of.items():
        columns = [of_pattern.get((target, pattern), []) for pattern in patterns]
        if len({len(column) for column in columns}) == 1:
            found[target] = [list(row) for row in zip(*columns, strict=True)]
    return found


def _stacks(converter: Any) -> bool:
    """Whether it puts matrices into a stack, and what belongs together below each other, and does nothing else."""
    steps = [(type(step).__name__, getattr(step, "dim", None)) for step in converter.operations]
    return steps in ([("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)])


def _transformed(model: Any, stored: Iterable[str]) -> Iterator[Transformed]:
    """As transformers does it on loading (such as embed_out.weight to lm_head.weight), experts in their order."""
    from transformers import core_model_loading as loading
    from transformers.conversion_mapping import get_model_conversion_mapping

    if not hasattr(model, "base_model_prefix"):
        return
    transforms = get_model_conversion_mapping(model)
    converters = [step for step in transforms if isinstance(step, loading.WeightConverter)]
    renamings = [step for step in transforms if not isinstance(step, loading.WeightConverter)]
    by_pattern = {pattern: step for step in converters for pattern in step.source_patterns}
    state = model.state_dict()
    for name in sorted(stored, key=loading.dot_natural_key):
        target, pattern = loading.rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        yield name, target, pattern or "", by_pattern.get(pattern)
