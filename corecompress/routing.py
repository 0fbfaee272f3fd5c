"""Which component takes which tensor: a recipe's rules applied to a checkpoint's names."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from corecompress.components import ModelCompressor, TensorCompressor, TensorInfo
from corecompress.errors import CorecompressError
from corecompress.plugins import Provided, Registry
from corecompress.recipe import Recipe, Rule, Spec, build_options

OTHERWISE = Rule(("*",), Spec("lossless"))
"""What no rule takes stays exact."""


@dataclass(frozen=True)
class Stage:
    """A component of the recipe, built: where it comes from, its options as written and as completed."""

    provided: Provided
    spec: Spec
    component: Any
    options: Any

    @property
    def scope(self) -> str:
        return str(self.component.scope)


@dataclass(frozen=True)
class Resolved:
    """A recipe whose components exist and whose options are checked."""

    recipe: Recipe
    model_stages: tuple[Stage, ...]
    rules: tuple[tuple[Rule, Stage], ...]


@dataclass(frozen=True)
class Routing:
    """The outcome: component number of each tensor (None: dropped), in the order of the tensors."""

    stages: tuple[Stage, ...]
    rules: tuple[Rule, ...]
    number_of: dict[str, int]
    dropped: tuple[str, ...]

    def stage_of(self, name: str) -> Stage:
        return self.stages[self.number_of[name]]


def resolve(recipe: Recipe, registry: Registry) -> Resolved:
    """Build every component. Raises CorecompressError for unknown names, wrong options and stages out of order."""
    stages = [_stage(registry, spec) for spec in recipe.stages]
    model = [stage for stage in stages if stage.scope == "model"]
    tensor = stages[len(model) :]
    for stage in tensor:
        if stage.scope == "model":
            raise CorecompressError(
                f"recipe '{recipe}': {stage.spec.name} makes a model, so it comes before all that codes tensors"
            )
    rules = [(Rule(("*",), stage.spec), stage) for stage in tensor]
    for rule in recipe.rules:
        stage = _stage(registry, rule.use)
        if stage.scope == "model":
            raise CorecompressError(
                f"recipe '{recipe}': {rule.use.name} makes a model; write it as a [[stage]], not as a [[rule]]"
            )
        rules.append((rule, stage))
    return Resolved(recipe, tuple(model), tuple(rules))


def route(resolved: Resolved, infos: Sequence[TensorInfo], registry: Registry) -> Routing:
    """Give every tensor to the first rule that matches its name and accepts it.

    Raises CorecompressError for a pattern that matches no tensor, and for a rule that takes none.
    """
    names = [info.name for info in infos]
    for pattern in [*resolved.recipe.drop, *(p for rule in resolved.recipe.rules for p in rule.patterns)]:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            close = difflib.get_close_matches(pattern.strip("*"), names, n=1, cutoff=0.3)
            hint = f"; the nearest tensor is '{close[0]}'" if close else ""
            raise CorecompressError(
                f"recipe: pattern '{pattern}' matches no tensor{hint} (`corecompress inspect` lists them)"
            )
    dropped = tuple(name for name in names if _matches(name, resolved.recipe.drop))
    rules, stages = [rule for rule, _ in resolved.rules], [stage for _, stage in resolved.rules]
    number_of: dict[str, int] = {}
    for info in infos:
        if info.name in dropped:
            continue
        number = _first(info, rules, stages)
        if number is None:
            if OTHERWISE not in rules:
                rules.append(OTHERWISE)
                stages.append(_stage(registry, OTHERWISE.use))
            number = rules.index(OTHERWISE)
        number_of[info.name] = number
    for number, rule in enumerate(rules):
        if number not in number_of.values():
            raise CorecompressError(
                f"recipe: rule [{', '.join(rule.patterns)}] {rule.use} takes no tensor: "
                f"earlier rules take what it matches, or {rule.use.name} does not accept it; remove the rule"
            )
    return Routing(tuple(stages), tuple(rules), number_of, dropped)


def _stage(registry: Registry, spec: Spec) -> Stage:
    provided = registry.get("compressor", spec.name)
    target = provided.load()
    options = build_options("compressor", target, spec)
    component: TensorCompressor | ModelCompressor = target(options)
    protocol = {"tensor": TensorCompressor, "model": ModelCompressor}.get(getattr(component, "scope", ""))
    needed = [n for n in vars(protocol) if not n.startswith("_")] if protocol else ["scope"]
    if missing := [name for name in needed if not hasattr(component, name)]:
        who = f"{provided.plugin.distribution} {provided.plugin.version}"
        raise CorecompressError(f"compressor '{spec.name}' of {who} lacks {', '.join(missing)}; tell its author")
    return Stage(provided, spec, component, options)


def _first(info: TensorInfo, rules: list[Rule], stages: list[Stage]) -> int | None:
    for number, (rule, stage) in enumerate(zip(rules, stages, strict=True)):
        if _matches(info.name, rule.patterns) and stage.component.accepts(info):
            return number
    return None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
