"""What a check is, what it is run on, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from corecompress.errors import CorecompressError
from corecompress.examples import example_of, generates, split_example
from corecompress.plugins import Provided, registry
from corecompress.recipe import Recipe, Spec, build, parse, parse_data

Scope = Literal["any", "data", "encoder", "generative", "prior", "tensor", "model"]
"""What a check is for: every component, a kind (encoders that generate are one of their own), or one of the two scopes
of compressors."""

Made = TypeVar("Made")


class CheckFailed(Exception):
    """What a check found, in one line."""


def need(held: Any, otherwise: str) -> None:
    """Raises CheckFailed with the line `otherwise` unless `held`."""
    if not held:
        raise CheckFailed(otherwise)


@dataclass
class Subject:
    """A component that is checked. folder: an empty folder for the checks' files; kept: what several of them use."""

    provided: Provided
    folder: Path
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.provided.component.name

    @property
    def scope(self) -> Scope:
        """Its kind; of a compressor "tensor" or "model" (tensor where it does not load: then that is the finding)."""
        kind = self.provided.kind
        if kind == "encoder":
            return "generative" if generates(self.provided) else "encoder"
        if kind != "compressor":
            return kind
        try:
            return "model" if getattr(self.provided.load(), "scope", "tensor") == "model" else "tensor"
        except CorecompressError:
            return "tensor"

    @cached_property
    def example(self) -> str:
        return example_of(self.provided, registry())

    @property
    def recipe(self) -> Recipe:
        return parse(split_example(self.example)[0])

    @property
    def data(self) -> str | None:
        """The data SPEC that the example has besides its recipe."""
        return split_example(self.example)[1]

    @property
    def spec(self) -> Spec:
        """The component with the options that its example gives it."""
        if self.provided.kind == "data":
            return parse_data(self.example)[0]
        stages = self.recipe.stages if self.example else ()
        return next(filter(None, (_find(stage, self.name) for stage in stages)), Spec(self.name))

    def build(self, *arguments: Any) -> Any:
        """A fresh instance: `Target(*arguments, options)`."""
        return build(registry(), self.provided.kind, self.spec, *arguments)

    def once(self, key: str, make: Callable[[], Made]) -> Made:
        """What `make` returns, made for the first check that asks."""
        if key not in self.kept:
            self.kept[key] = make()
        made: Made = self.kept[key]
        return made

    def place(self, name: str) -> Path:
        """A path in the subject's folder that isn't used yet."""
        path, number = self.folder / name, 2
        while path.exists():
            path, number = self.folder / f"{name}-{number}", number + 1
        return path

    def identity(self) -> dict[str, Any]:
        """What another process needs to build it: arguments of `rebuild`."""
        return {"kind": self.provided.kind, "spec": str(self.spec)}


def rebuild(kind: Any, spec: str, *arguments: Any) -> Any:
    """In another process: the component that `Subject.identity` names."""
    return build(registry(), kind, parse(spec).stages[0], *arguments)


def _find(spec: Spec, name: str) -> Spec | None:
    if spec.name == name:
        return spec
    inside = [value for value in spec.options.values() if isinstance(value, Spec)]
    return next(filter(None, (_find(value, name) for value in inside)), None)


@dataclass(frozen=True)
class Check:
    """One check. name: what reports, waivers and `pytest -k` call it; meaning: one line; run: raises CheckFailed, and
    may return a remark."""

    name: str
    meaning: str
    scope: Scope
    run: Callable[[Subject], str | None]

    def __str__(self) -> str:
        return self.name


CHECKS: list[Check] = []
"""All checks, in the order in which they run."""


def check(name: str, meaning: str, scope: Scope) -> Callable[[Callable[[Subject], str | None]], Callable[..., Any]]:
    """Register a function as a check."""

    def register(run: Callable[[Subject], str | None]) -> Callable[[Subject], str | None]:
        CHECKS.append(Check(name, meaning, scope, run))
        return run

    return register


@dataclass(frozen=True)
class Outcome:
    """What came of a check. remark: what was measured, what failed, or why it is waived."""

    component: str
    check: str
    status: Literal["passed", "failed", "waived"]
    meaning: str
    remark: str = ""

    def __str__(self) -> str:
        said = f" ({self.remark})" if self.status == "passed" and self.remark else ""
        more = f" — {self.remark}" if self.status != "passed" else ""
        status = self.status.upper() if self.status == "failed" else self.status
        return f"{status:6}  {self.component:24}  {self.check:18}  {self.meaning}{said}{more}"
