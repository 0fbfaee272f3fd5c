"""Runs the checks of a plugin, or of one component."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from corecompress.errors import CorecompressError
from corecompress.plugins import Plugin, Provided, registry
from corecompress.testing import (  # noqa: F401
    common,
    compressor,
    data,
    encoder,
    generative,
    model_compressor,
    prior,
    robustness,
)
from corecompress.testing.kit import CHECKS, Check, CheckFailed, Outcome, Subject

FOUND = "found"
FOUND_MEANING = "the plugin loads and gives components, all of them usable"


@dataclass(frozen=True)
class Run:
    """A check that is ready to be run on a component. id: what pytest calls it."""

    id: str
    act: Callable[[], Outcome]

    def __str__(self) -> str:
        return self.id

    def __call__(self) -> Outcome:
        """Raises AssertionError with the outcome's line when it failed."""
        outcome = self.act()
        if outcome.status == "failed":
            raise AssertionError(str(outcome))
        return outcome


def runs(name: str) -> Iterator[Run]:
    """All checks of what `name` is: a distribution, an entry point or a component. Those of one component share a
    folder and what they make in it. Raises CorecompressError, with the nearest name, for one that isn't installed."""
    plugin, provided = find(name)
    yield Run(f"{plugin.distribution}-{FOUND}", lambda: found(plugin, provided))
    for each in provided:
        scratch = tempfile.TemporaryDirectory(prefix="corecompress-check-")  # goes with the subject
        subject = Subject(each, Path(scratch.name), {"scratch": scratch})
        for check in checks_of(subject):
            yield Run(f"{each.kind}-{each.component.name}-{check.name}", partial(run_check, check, subject))


def find(name: str) -> tuple[Plugin, list[Provided]]:
    """(the plugin, its components that are to be checked)."""
    known = registry()
    by_name = [p for p in known.plugins if name in (p.name, p.distribution)]
    mine = [provided for provided in known.find(name) if not by_name]
    if mine:
        return mine[0].plugin, mine
    if not by_name:
        raise known.unknown(name)
    plugin = by_name[0]
    names_of = [(kind, component.name) for kind, listed in plugin.components.items() for component in listed]
    return plugin, [known.get(kind, component) for kind, component in names_of]


def found(plugin: Plugin, provided: list[Provided]) -> Outcome:
    """A plugin that gives nothing, or something that isn't usable, fails before any other check."""
    ok = bool(provided) and not plugin.problems
    remark = ", ".join(f"{each.kind} {each.component.name}" for each in provided)
    if not ok:
        remark = "; ".join(plugin.problems) or "it gives no component, so there is nothing to check"
    return Outcome(plugin.distribution, FOUND, "passed" if ok else "failed", FOUND_MEANING, remark)


def checks_of(subject: Subject) -> list[Check]:
    """The checks that are for it, in their order, and the one of its waivers."""
    mine = [check for check in CHECKS if check.scope in ("any", subject.scope)]
    return [Check("waivers", "each waiver names a check and has a reason", "any", _waivers), *mine]


def _waivers(subject: Subject) -> str | None:
    known = {check.name for check in checks_of(subject)} - {"waivers"}
    for name, reason in subject.provided.component.waivers.items():
        if name not in known:
            raise CheckFailed(f"'{name}' is no check of it; there are {', '.join(sorted(known))}")
        if not str(reason).strip():
            raise CheckFailed(f"the waiver of '{name}' has no reason")
    count = len(subject.provided.component.waivers)
    return f"{count} waived" if count else None


def run_check(check: Check, subject: Subject) -> Outcome:
    """One check; whatever it raises is what it found."""
    component = f"{subject.provided.kind} {subject.name}"
    reason = str(subject.provided.component.waivers.get(check.name, "")).strip()
    if reason:
        return Outcome(component, check.name, "waived", check.meaning, reason)
    try:
        return Outcome(component, check.name, "passed", check.meaning, check.run(subject) or "")
    except CheckFailed as problem:
        remark = str(problem)
    except Exception as problem:
        remark = f"{type(problem).__name__}: {problem}" if not isinstance(problem, CorecompressError) else str(problem)
    return Outcome(component, check.name, "failed", check.meaning, " ".join(remark.split()))
