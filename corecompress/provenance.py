"""Where the components of an artifact came from, and what mends one that is missing or too old."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from corecompress.artifact import Used
from corecompress.components import Kind
from corecompress.errors import CorecompressError
from corecompress.hookspecs import HOOK_API
from corecompress.plugins import Provided, Registry, registry
from corecompress.recipe import Spec, build_options
from corecompress.routing import Stage


def used_stage(stage: Stage, state_sha256: str | None = None) -> Used:
    """A stage of a recipe as the manifest records it, options complete."""
    return _used(stage.provided, stage.options, state_sha256)


def used_inside(stages: Iterable[Stage], known: Registry) -> tuple[Used, ...]:
    """The components that the stages' options name, `vae(prior=laplace)`: each once, in a fixed order."""
    found: dict[tuple[str, str], Used] = {}
    for stage in stages:
        for used in _inside(stage.options, known):
            found.setdefault((used.kind, json.dumps([used.name, used.options], sort_keys=True)), used)
    return tuple(found[key] for key in sorted(found))


def _inside(options: Any, known: Registry) -> Iterable[Used]:
    kinds: tuple[Kind, ...] = ("data", "encoder", "prior")
    for kind in kinds:  # an option that takes a component has the name of its kind
        value = getattr(options, kind, None)
        if isinstance(value, Spec):
            provided = known.get(kind, value.name)
            complete = build_options(provided.kind, provided.load(), value)
            yield _used(provided, complete, None)
            yield from _inside(complete, known)


def _used(provided: Provided, options: Any, state_sha256: str | None) -> Used:
    plugin, component = provided.plugin, provided.component
    written = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    plain = json.loads(json.dumps(written, default=str))  # a Spec as a recipe writes it
    origin = (plugin.distribution, plugin.version, component.api, plugin.source)
    return Used(provided.kind, component.name, plain, *origin, state_sha256)


def pip_line(used: Used) -> str:
    """What brings a component back, as a shell understands it; of a one-file plugin the option that loads it."""
    if used.version == "file":
        return used.source
    url = used.source.partition(" from ")[2]
    return f"pip install '{used.distribution} @ {url}'" if url else f"pip install '{used.distribution}>={used.version}'"


def trouble_with(used: Used) -> str | None:
    """Why a recorded component can't be had here (missing, older than what compressed, another's of that name)."""
    from packaging.version import InvalidVersion, Version

    if used.api > HOOK_API:
        return f"it was built for HOOK_API {used.api}, this is {HOOK_API}: pip install --upgrade corecompress"
    try:
        plugin = registry().get(used.kind, used.name).plugin  # type: ignore[arg-type]
    except CorecompressError as problem:
        return str(problem)
    if "file" in (used.version, plugin.version):
        return None
    if plugin.distribution != used.distribution:
        return f"'{used.name}' comes from {plugin.distribution} {plugin.version} here"
    try:
        older = Version(plugin.version) < Version(used.version)
    except InvalidVersion:
        return None
    return f"{plugin.distribution} {plugin.version} is too old" if older else None
