"""How a component is used, as a person types it: shown by `corecompress plugins show`, run by the conformance kit."""

from __future__ import annotations

import dataclasses
import shlex

from corecompress.errors import CorecompressError
from corecompress.plugins import Provided, Registry

DATA = " --data "


def example_of(provided: Provided, registry: Registry) -> str:
    """A component's own example, or what stands in for it: of data the source `demo`, of a compressor its name, of a
    prior or an encoder a compressor that has an option of that kind's name; "" where none is installed."""
    name, kind = provided.component.name, provided.kind
    if provided.component.example:
        return provided.component.example
    if kind == "data":
        return f"{name}:demo"
    if kind == "compressor":
        return name
    compressors = [registry.get("compressor", name) for name in registry.names("compressor")]
    users = [user for user in compressors if _takes(user, kind)]
    users.sort(key=lambda user: not user.plugin.bundled)
    return f"{users[0].component.name}({kind}={name})" if users else ""


def split_example(example: str) -> tuple[str, str | None]:
    """(recipe, data SPEC or None) of an example that is no data's."""
    recipe, _, data = example.partition(DATA)
    return recipe.strip(), data.strip() or None


def command_of(provided: Provided, registry: Registry) -> str:
    """The command line that runs the example, or ""."""
    example = example_of(provided, registry)
    if not example:
        return ""
    if provided.kind == "data":
        return f"corecompress data show {shlex.quote(example)}"
    recipe, data = split_example(example)
    if generates(provided):
        specs = f"{DATA}{shlex.quote(data or '')} --encoder {shlex.quote(recipe)} --prior gaussian"
        return f"corecompress fit{specs} -o model"
    command = f"corecompress compress demo -o small -r {shlex.quote(recipe)}"
    return command if data is None else f"{command}{DATA}{shlex.quote(data)}"


def generates(provided: Provided) -> bool:
    """Whether it is an encoder that becomes a generative model."""
    try:
        return provided.kind == "encoder" and hasattr(provided.load(), "generate")
    except CorecompressError:
        return False


def _takes(user: Provided, kind: str) -> bool:
    try:
        return any(field.name == kind for field in dataclasses.fields(user.load().Options))
    except (CorecompressError, TypeError, AttributeError):
        return False
