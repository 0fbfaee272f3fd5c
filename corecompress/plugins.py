"""Plugins: found by entry points, loaded one by one, and none able to break another.

A plugin is an entry point in the group "corecompress" (or a file given by --plugin-file). Its module is imported,
its hooks are called, each guarded; what went wrong is kept beside what it gave, for `corecompress plugins`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from corecompress import hookspecs
from corecompress.components import Component, Kind
from corecompress.errors import CorecompressError
from corecompress.hookspecs import ENTRY_POINT_GROUP, HOOK_API, HOOKS

BUNDLED = frozenset(
    f"corecompress-{name}" for name in ("lossless", "text", "captioned", "vae", "distill", "generative")
)
"""Distributions that are released with the core; a name of theirs can't be taken by another."""


@dataclass
class Plugin:
    """A plugin as it was found, with its distribution and what happened to it.

    status: "ok", "failed" (nothing of it is usable), "partly" (some component isn't) or "blocked"; notes: what it uses
    that the next release will not have.
    """

    name: str
    distribution: str
    version: str
    source: str
    status: str = "ok"
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    components: dict[Kind, list[Component]] = field(default_factory=dict)

    @property
    def bundled(self) -> bool:
        return self.distribution in BUNDLED

    def fail(self, problem: str) -> None:
        self.problems.append(problem)
        self.status = "partly" if any(self.components.values()) else "failed"


@dataclass(frozen=True)
class Provided:
    """A component together with the plugin that gives it."""

    kind: Kind
    component: Component
    plugin: Plugin

    def load(self) -> type[Any]:
        """Import the target. Raises CorecompressError that names the component, the distribution and the mend."""
        module, _, attribute = self.component.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
        except Exception as problem:
            raise CorecompressError(
                f"{self.kind} '{self.component.name}' of {self.plugin.distribution} {self.plugin.version} "
                f"does not load: {_one_line(problem)}; mend: {_mend(problem, self.plugin)}"
            ) from problem


class Registry:
    """All plugins of this environment and the components that are usable."""

    def __init__(self, plugins: Sequence[Plugin]):
        self.plugins = list(plugins)
        self._provided: dict[tuple[Kind, str], Provided] = {}
        self._claims: dict[tuple[Kind, str], list[Plugin]] = {}
        for plugin in self.plugins:
            for kind, components in plugin.components.items():
                for component in components:
                    self._claims.setdefault((kind, component.name), []).append(plugin)
                    self._provided[kind, component.name] = Provided(kind, component, plugin)
        for (kind, name), claimants in self._claims.items():
            if len(claimants) > 1:
                self._settle(kind, name, claimants)

    def _settle(self, kind: Kind, name: str, claimants: list[Plugin]) -> None:
        """Two plugins give the same name: the bundled one keeps it, else nobody has it."""
        keeper = next((plugin for plugin in claimants if plugin.bundled), None)
        del self._provided[kind, name]
        for plugin in claimants:
            if plugin is keeper:
                component = next(c for c in plugin.components[kind] if c.name == name)
                self._provided[kind, name] = Provided(kind, component, plugin)
                continue
            others = ", ".join(f"{p.distribution} {p.version}" for p in claimants if p is not plugin) or "itself"
            plugin.components[kind] = [c for c in plugin.components[kind] if c.name != name]
            mend = f"use --block-plugin {plugin.distribution}, or ask its author for another name"
            plugin.fail(f"{kind} '{name}' is also given by {others}, so it isn't used from here; mend: {mend}")

    def get(self, kind: Kind, name: str) -> Provided:
        """The component of that kind and name. Raises CorecompressError with the known and the nearest names."""
        if (kind, name) in self._provided:
            return self._provided[kind, name]
        claimants = self._claims.get((kind, name), [])
        if claimants:
            who = " and ".join(f"{p.distribution} {p.version}" for p in claimants)
            raise CorecompressError(
                f"{kind} '{name}' is given by {who}; choose with --block-plugin {claimants[0].distribution}"
            )
        known = self.names(kind)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        text = f"no {kind} is called '{name}'" + (f"; did you mean '{close[0]}'?" if close else ".")
        text += f" Known: {', '.join(known) or 'none'}."
        elsewhere = [k for k in HOOKS if k != kind and name in self.names(k)]  # type: ignore[arg-type]
        if elsewhere:
            text += f" ('{name}' is a {elsewhere[0]}.)"
        if broken := [p.distribution for p in self.plugins if p.status in ("failed", "partly", "blocked")]:
            text += f" Not fully loaded: {', '.join(broken)}; see `corecompress plugins`."
        raise CorecompressError(text)

    def names(self, kind: Kind) -> list[str]:
        """Usable names of a kind, sorted."""
        return sorted(name for k, name in self._provided if k == kind)

    def find(self, name: str) -> list[Provided]:
        """Every usable component of that name, whatever its kind; else those of the plugin of that name."""
        ordered = [provided for _, provided in sorted(self._provided.items())]
        named = [provided for provided in ordered if provided.component.name == name]
        return named or [p for p in ordered if name in (p.plugin.name, p.plugin.distribution)]

    def unknown(self, name: str) -> CorecompressError:
        """The error for a name that neither a plugin nor a component has, with the nearest one."""
        components = {name for _, name in self._provided}
        known = sorted(components | {p.name for p in self.plugins} | {p.distribution for p in self.plugins})
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        return CorecompressError(f"no plugin or component is called '{name}'{hint} (`corecompress plugins` lists them)")


@dataclass(frozen=True)
class Choice:
    """Which plugins to load. allow: only these (None: all); block: not these; files: one-file plugins as well.

    Names are those of distributions or entry points. What the environment says is added:
    CORECOMPRESS_ALLOW_PLUGINS, CORECOMPRESS_BLOCK_PLUGINS (names with commas), CORECOMPRESS_PLUGIN_FILES (paths).
    """

    allow: tuple[str, ...] | None = None
    block: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def with_environment(self) -> Choice:
        def listed(variable: str, separator: str) -> tuple[str, ...]:
            return tuple(part.strip() for part in os.environ.get(variable, "").split(separator) if part.strip())

        allowed = listed("CORECOMPRESS_ALLOW_PLUGINS", ",")
        return Choice(
            (self.allow or ()) + allowed if self.allow is not None or allowed else None,
            self.block + listed("CORECOMPRESS_BLOCK_PLUGINS", ","),
            self.files + listed("CORECOMPRESS_PLUGIN_FILES", os.pathsep),
        )

    def reason_against(self, plugin: Plugin) -> str | None:
        """Why that plugin isn't loaded, or None when it is."""
        names = {_canonical(plugin.name), _canonical(plugin.distribution)}
        if names & {_canonical(name) for name in self.block}:
            return "blocked by --block-plugin or CORECOMPRESS_BLOCK_PLUGINS; mend: take it off that list"
        if self.allow is not None and not names & {_canonical(name) for name in self.allow}:
            return "not on the list of --allow-plugin or CORECOMPRESS_ALLOW_PLUGINS; mend: add it there"
        return None


_choice = Choice()


def choose(choice: Choice) -> None:
    """Set which plugins this process uses (the command line's options arrive here)."""
    global _choice
    _choice = choice
    registry.cache_clear()


def environment() -> dict[str, str]:
    """The choice of plugins as variables of the environment, for processes that this one starts."""
    choice = _choice.with_environment()
    found = {"CORECOMPRESS_BLOCK_PLUGINS": ",".join(choice.block)}
    found["CORECOMPRESS_PLUGIN_FILES"] = os.pathsep.join(str(Path(path).absolute()) for path in choice.files)
    if choice.allow is not None:
        found["CORECOMPRESS_ALLOW_PLUGINS"] = ",".join(choice.allow)
    return {name: value for name, value in found.items() if value}


@cache
def registry() -> Registry:
    """The plugins of this process, discovered once. Imports nothing heavy."""
    choice = _choice.with_environment()
    return Registry([*_installed(choice), *(_from_file(Path(path)) for path in dict.fromkeys(choice.files))])


def unknown_choices() -> list[str]:
    """Names on the allow and block lists that no plugin has: probably a typing error."""
    choice = _choice.with_environment()
    have = {_canonical(n) for p in registry().plugins for n in (p.name, p.distribution)}
    return [name for name in (choice.allow or ()) + choice.block if _canonical(name) not in have]


def _installed(choice: Choice) -> Iterable[Plugin]:
    points = sorted(
        metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda p: (p.dist.name if p.dist else "", p.name)
    )
    for point in dict.fromkeys(points):  # an editable install can show its metadata twice
        distribution, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "unknown")
        plugin = Plugin(point.name, distribution, version, f"entry point {point.value}{_origin(point.dist)}")
        if reason := choice.reason_against(plugin):
            plugin.status = "blocked"
            plugin.problems.append(reason)
        else:
            try:
                _call_hooks(plugin, point.load())
            except (Exception, SystemExit) as problem:
                plugin.fail(f"import of {point.value} raised {_one_line(problem)}; mend: {_mend(problem, plugin)}")
        yield plugin


def _origin(distribution: metadata.Distribution | None) -> str:
    """ " from URL" of what pip installed from a repository or an address (PEP 610), else ""; folders of this machine
    say nothing to others."""
    text = distribution.read_text("direct_url.json") if distribution else None
    try:
        said = json.loads(text or "{}")
        url, vcs = str(said.get("url", "")), said.get("vcs_info")
        if vcs:
            return f" from {vcs['vcs']}+{url}@{vcs['commit_id']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f" from {url}" if url.startswith(("http://", "https://")) else ""


def _from_file(path: Path) -> Plugin:
    """A one-file plugin: its module gets the file's name, so that targets can say "strategy:Class"."""
    # by its name alone: a manifest must not depend on where the file is, nor tell
    plugin = Plugin(path.stem, path.name, "file", f"--plugin-file {path.name}")
    if not path.is_file():
        raise CorecompressError(f"--plugin-file {path}: no such file")
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) != str(path.resolve()):
        raise CorecompressError(f"--plugin-file {path}: a module '{path.stem}' is loaded already; rename the file")
    try:
        if known is None:
            spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
            if spec is None or spec.loader is None:
                raise CorecompressError(f"--plugin-file {path}: not a Python file")
            known = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = known
            spec.loader.exec_module(known)
        _call_hooks(plugin, known)
    except CorecompressError:
        raise
    except (Exception, SystemExit) as problem:
        sys.modules.pop(path.stem, None)
        plugin.fail(f"import raised {_one_line(problem)}; mend: correct {path}")
    return plugin


def _call_hooks(plugin: Plugin, module: ModuleType) -> None:
    manager = pluggy.PluginManager("corecompress")
    manager.add_hookspecs(hookspecs)
    try:
        with warnings.catch_warnings(record=True) as deprecated:
            warnings.simplefilter("always")
            manager.register(module)
        plugin.notes += [str(warning.message) for warning in deprecated]
    except pluggy.PluginValidationError as problem:
        plugin.fail(f"{_one_line(problem)}; mend: write the hook's arguments as CONTRIBUTING.md shows them")
        return
    implemented = {caller.name for caller in manager.get_hookcallers(module) or ()}
    for name in sorted(implemented - set(HOOKS.values())):
        close = difflib.get_close_matches(name, HOOKS.values(), n=1, cutoff=0.4)
        plugin.fail(f"there is no hook '{name}'; mend: {f'call it {close[0]}' if close else 'see CONTRIBUTING.md'}")
    for kind, hook in HOOKS.items():
        if hook in implemented:
            try:
                components = [component for listed in getattr(manager.hook, hook)() for component in listed]
                plugin.components[kind] = [c for c in components if _usable(plugin, kind, c)]  # type: ignore[index, arg-type]
            except (Exception, SystemExit) as problem:
                plugin.fail(f"hook {hook} raised {_one_line(problem)}; mend: {_mend(problem, plugin)}")
    if not implemented:
        plugin.fail("it implements no hook; mend: mark its functions with @corecompress.hookimpl")
    elif plugin.problems:  # components may have come after the first problem
        plugin.status = "partly" if any(plugin.components.values()) else "failed"


def _usable(plugin: Plugin, kind: Kind, component: object) -> bool:
    if not isinstance(component, Component):
        plugin.fail(f"a {kind} is {component!r}; mend: return corecompress.Component records")
    elif component.api > HOOK_API:
        plugin.fail(
            f"{kind} '{component.name}' was built for HOOK_API {component.api}, this is {HOOK_API}; "
            "mend: pip install --upgrade corecompress"
        )
    elif ":" not in component.target:
        plugin.fail(
            f"{kind} '{component.name}' has target '{component.target}'; mend: write it as package.module:Class"
        )
    else:
        return True
    return False


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def _one_line(problem: BaseException) -> str:
    return " ".join(f"{type(problem).__name__}: {problem}".split())


def _mend(problem: BaseException, plugin: Plugin) -> str:
    if isinstance(problem, ModuleNotFoundError) and problem.name:
        return f"pip install {problem.name.partition('.')[0].replace('_', '-')}"
    if plugin.version == "file":
        return f"correct {plugin.distribution}"
    return f"pip install --upgrade {plugin.distribution}, or leave it out with --block-plugin {plugin.distribution}"
