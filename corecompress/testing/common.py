"""Checks of every component, whatever its kind."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from corecompress.components import Data, Encoder, GenerativeEncoder, ModelCompressor, Prior, TensorCompressor
from corecompress.errors import CorecompressError
from corecompress.plugins import registry
from corecompress.recipe import Spec, build_options, parse_spec
from corecompress.testing import fresh
from corecompress.testing.kit import CheckFailed, Subject, check, need

HEAVY = frozenset(
    "torch transformers datasets numpy numba scipy pandas sklearn PIL tokenizers safetensors huggingface_hub "
    "tensorflow jax matplotlib spacy nltk pyarrow".split()
)
"""Modules that listing plugins must not import."""

PROTOCOLS = {
    "data": Data,
    "encoder": Encoder,
    "generative": GenerativeEncoder,
    "prior": Prior,
    "tensor": TensorCompressor,
    "model": ModelCompressor,
}


@check("light-import", "listing the plugin imports nothing heavy", "any")
def light_import(subject: Subject) -> None:
    heavy = fresh.call("corecompress.testing.common:heavy_imports", plugin=subject.provided.plugin.name)
    need(
        not heavy, f"importing {subject.provided.plugin.source} imports {', '.join(heavy)}; name it in a target instead"
    )


def heavy_imports(plugin: str) -> list[str]:
    """In another process: what discovering that plugin alone imports."""
    from corecompress.plugins import Choice, choose

    before = set(sys.modules)
    choose(Choice(allow=(plugin,)))
    registry()
    return sorted(HEAVY & {name.partition(".")[0] for name in set(sys.modules) - before})


@check("target", "the target resolves to a class that is built from its options", "any")
def target(subject: Subject) -> None:
    try:
        found = subject.provided.load()
    except CorecompressError as problem:
        raise CheckFailed(str(problem)) from None
    need(isinstance(found, type), f"{subject.provided.component.target} is no class")
    if subject.provided.kind != "data":
        subject.build()
    if subject.provided.kind == "compressor":
        scope = getattr(found, "scope", None)
        need(scope in ("tensor", "model"), f"scope is {scope!r}; inherit TensorCompressor or ModelCompressor")


@check("methods", "it has its Protocol's methods, with their arguments", "any")
def methods(subject: Subject) -> str | None:
    """Arguments with a default may be left out: within one HOOK_API a method may gain such."""
    protocol, found, without = PROTOCOLS[subject.scope], subject.provided.load(), []
    wanted_methods = {name: found for base in reversed(protocol.__mro__) for name, found in vars(base).items()}
    for name, wanted in wanted_methods.items():
        if name.startswith("_") or not inspect.isfunction(wanted):
            continue
        method = getattr(found, name, None)
        if not callable(method):
            raise CheckFailed(f"has no method {name}; see {protocol.__name__} in corecompress/components.py")
        parameters = inspect.signature(wanted).parameters.values()
        needed = [p for p in parameters if p.default is inspect.Parameter.empty]
        keywords = {p.name: None for p in needed if p.kind is inspect.Parameter.KEYWORD_ONLY}
        try:
            inspect.signature(method).bind(*[None] * (len(needed) - len(keywords)), **keywords)
        except TypeError as problem:
            shown = ", ".join(inspect.signature(wanted).parameters)
            raise CheckFailed(f"{name} does not take ({shown}): {problem}") from None
        theirs = inspect.signature(method).parameters
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in theirs.values()):
            without += [f"{name} leaves out {p.name}" for p in parameters if p.name not in theirs and p not in needed]
    return ", ".join(without) or None


@check("options", "options are documented, typed, and can be written in a recipe", "any")
def options(subject: Subject) -> str:
    declared = getattr(subject.provided.load(), "Options", None)
    if not isinstance(declared, type) or not dataclasses.is_dataclass(declared):
        raise CheckFailed("its class names no dataclass as Options (corecompress.components.NoOptions for none)")
    parameters: Any = getattr(declared, "__dataclass_params__")  # noqa: B009  (not in the stubs)
    need(parameters.frozen, "Options is not frozen; write @dataclass(frozen=True)")
    kinds = get_type_hints(declared)
    for option in dataclasses.fields(declared):
        need(
            str(option.metadata.get("help", "")).strip(),
            f"option '{option.name}' has no help; use option(default, help)",
        )
        need(_known(kinds[option.name]), f"option '{option.name}' is {kinds[option.name]}, which no recipe can write")
        missing = dataclasses.MISSING
        if option.default is missing and option.default_factory is missing:
            raise CheckFailed(f"option '{option.name}' has no default")
        default = option.default_factory() if option.default_factory is not missing else option.default
        written = str(Spec(subject.name, {option.name: default}))
        try:
            options = build_options(subject.provided.kind, subject.provided.load(), parse_spec(written))
            read = getattr(options, option.name)
        except CorecompressError as problem:
            raise CheckFailed(f"the default of '{option.name}' can't be written: {problem}") from None
        need(read == default, f"the default of '{option.name}' is {default!r}, and {read!r} when a recipe says so")
    return f"{len(dataclasses.fields(declared))} options"


def _known(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return True
    if get_origin(kind) in (Union, types.UnionType, tuple, list):
        return all(_known(part) for part in get_args(kind) if part is not Ellipsis)
    return kind in (int, float, bool, str, Spec, type(None))


@check("example", "its example runs", "any")
def example(subject: Subject) -> str:
    from corecompress import api
    from corecompress.testing import compressor, generative, samples

    if not subject.example:
        return f"no installed compressor takes {subject.provided.kind} components, so there is nothing to run"
    if subject.provided.kind == "data":
        api.describe_data(subject.example)
    elif subject.scope == "generative":
        generative.fitted(subject)
    else:
        out = subject.place("example")
        source = compressor.model(subject) if subject.scope == "tensor" else samples.MODEL
        api.compress(source, out, subject.recipe, data=subject.data, evaluated=False)
    return subject.example
