"""Recipes: "acme-prune(sparsity=0.5) | vae(bits=3, prior=laplace)" or a TOML file, parsed and checked.

Text: stages separated by "|", each `name` or `name(option=value, …)`. A value is a number, true/false, none, a bare
word (also 2:4), a quoted string, a list [a, b] or another component with its options. Model compressors come first,
tensor compressors last; a tensor goes to the first of them that accepts it.

TOML:
    drop = ["*.unused_head.*"]                # tensors that shall not be in the output
    [[stage]]                                 # model compressors, in order
    use = "acme-prune(sparsity=0.5)"
    [[rule]]                                  # tensor compressors: the first rule that matches and accepts
    match = ["*embeddings*", "lm_head.*"]     # shell patterns on the tensor's name
    use = "lossless"
    [[rule]]
    match = "*"
    use = "vae"
    options = { bits = 3 }
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from corecompress.components import Kind
from corecompress.errors import CorecompressError
from corecompress.plugins import Registry


@dataclass(frozen=True)
class Spec:
    """A component by name with the options that were written, not yet checked."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={_written(value)}" for key, value in self.options.items())
        return f"{self.name}({inside})" if inside else self.name


@dataclass(frozen=True)
class Rule:
    """Tensors whose name matches one of the patterns go to this component, if it accepts them."""

    patterns: tuple[str, ...]
    use: Spec


@dataclass(frozen=True)
class Recipe:
    """What was asked for: `stages` in order (of a text recipe, all of them), `rules` of a TOML file, `drop`."""

    stages: tuple[Spec, ...]
    rules: tuple[Rule, ...] = ()
    drop: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [str(stage) for stage in self.stages]
        parts += [f"[{', '.join(rule.patterns)}] {rule.use}" for rule in self.rules]
        parts += [f"drop [{', '.join(self.drop)}]"] if self.drop else []
        return " | ".join(parts)


def parse(text: str) -> Recipe:
    """A recipe's text, or the path of a .toml file. Raises CorecompressError that shows the place."""
    if text.strip().endswith(".toml"):
        return _from_toml(Path(text.strip()))
    stages = _Parser(text).stages()
    return Recipe(stages)


def parse_spec(text: str) -> Spec:
    """One component with options, as in `--prior 'laplace(classes=4)'`."""
    stages = _Parser(text).stages()
    if len(stages) != 1:
        raise CorecompressError(f"'{text}': one component was expected, {len(stages)} are written")
    return stages[0]


def parse_data(text: str) -> tuple[Spec, str]:
    """A data SPEC, `name:source` or `name(option=value):source` -> (component, source)."""
    parser = _Parser(text, "--data")
    spec = parser.spec()
    if not parser.rest().startswith(":") or not parser.rest()[1:].strip():
        raise CorecompressError(f"--data '{text}': write NAME:SOURCE, for example text:corpus.txt")
    return spec, parser.rest()[1:].strip()


def build_options(kind: str, target: type[Any], spec: Spec) -> Any:
    """The target's Options with the written values, each checked for its name and type. kind: what errors call it."""
    declared: type[Any] = target.Options
    fields = {f.name: f for f in dataclasses.fields(declared)}
    types_ = get_type_hints(declared)
    values = {}
    for key, value in spec.options.items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1, cutoff=0.4)
            hint = f"did you mean '{close[0]}'? " if close else ""
            known = ", ".join(fields) or "none"
            raise CorecompressError(f"{kind} '{spec.name}' has no option '{key}'; {hint}Its options: {known}.")
        try:
            values[key] = _convert(value, types_[key])
        except _WrongType:
            raise CorecompressError(
                f"option '{key}' of {spec.name} is {_written(value)}; it takes {describe_type(types_[key])}"
            ) from None
    try:
        return declared(**values)
    except (TypeError, ValueError) as problem:
        raise CorecompressError(f"{kind} '{spec.name}': {problem}") from None


def build(registry: Registry, kind: Kind, spec: Spec, *arguments: Any) -> Any:
    """Find, import and construct a component: `Target(*arguments, options)`."""
    provided = registry.get(kind, spec.name)
    target = provided.load()
    return target(*arguments, build_options(kind, target, spec))


def describe_type(kind: Any) -> str:
    """A type as a person writes values of it: "a whole number", "one of a, b", …"""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(describe_type(part) for part in get_args(kind))
    if get_origin(kind) in (tuple, list):
        return f"a list, each {describe_type(get_args(kind)[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Spec: "a component"}
    return "none" if kind is type(None) else names.get(kind, str(kind))


class _WrongType(Exception):
    pass


def _convert(value: Any, kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        for part in get_args(kind):
            try:
                return _convert(value, part)
            except _WrongType:
                continue
    elif get_origin(kind) is Literal:
        word = value.name if isinstance(value, Spec) and not value.options else value
        if word is None and "none" in get_args(kind):  # the word, not the value
            return "none"
        if word in get_args(kind) and type(word) in {type(choice) for choice in get_args(kind)}:
            return word
    elif get_origin(kind) in (tuple, list):
        items = value if isinstance(value, list) else [value]
        converted = [_convert(item, get_args(kind)[0]) for item in items]
        return tuple(converted) if get_origin(kind) is tuple else converted
    elif kind is type(None):
        if value is None:
            return None
    elif kind is Spec:
        if isinstance(value, Spec):
            return value
        if isinstance(value, str):
            return parse_spec(value)
    elif kind is str:
        if isinstance(value, str | Spec):
            return str(value)
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif kind is Any or (isinstance(kind, type) and type(value) is kind):
        return value
    raise _WrongType


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, str) and (value in _WORDS or not re.fullmatch(r"[A-Za-z_][\w.+-]*", value)):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


_TOKEN = re.compile(
    r"""\s*(?: (?P<number>[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|inf|nan)(?![\w.:-]))
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<word>[A-Za-z_][\w.+-]*|\d+:\d+)
      | (?P<sign>[()\[\],=|]) )""",
    re.VERBOSE,
)
_WORDS = {"true": True, "false": False, "True": True, "False": False, "none": None, "None": None}


class _Parser:
    """Recursive descent over the grammar in the module's docstring."""

    def __init__(self, text: str, what: str = "recipe"):
        self.text, self.what, self.at = text, what, 0

    def rest(self) -> str:
        return self.text[self.at :]

    def fail(self, expected: str) -> CorecompressError:
        where = f"at '{self.rest().strip()[:20]}'" if self.rest().strip() else "at its end"
        return CorecompressError(f"{self.what} '{self.text}': {expected} was expected {where}")

    def peek(self) -> tuple[str, str]:
        found = _TOKEN.match(self.text, self.at)
        if found is None or found.lastgroup is None:
            return ("other" if self.rest().strip() else "end"), ""
        return found.lastgroup, found.group(found.lastgroup)

    def take(self) -> str:
        found = _TOKEN.match(self.text, self.at)
        assert found is not None
        self.at = found.end()
        return found.group(found.lastgroup or 0)

    def expect(self, sign: str) -> None:
        if self.peek() != ("sign", sign):
            raise self.fail(f"'{sign}'")
        self.take()

    def stages(self) -> tuple[Spec, ...]:
        stages = [self.spec()]
        while self.peek() == ("sign", "|"):
            self.take()
            stages.append(self.spec())
        if self.peek()[0] != "end":
            raise self.fail("'|' or the end")
        return tuple(stages)

    def spec(self) -> Spec:
        if self.peek()[0] != "word":
            raise self.fail("a component's name")
        name, options = self.take(), {}
        if self.peek() == ("sign", "("):
            self.take()
            while self.peek() != ("sign", ")"):
                if self.peek()[0] != "word":
                    raise self.fail("an option's name or ')'")
                key = self.take()
                self.expect("=")
                if key in options:
                    raise CorecompressError(f"{self.what} '{self.text}': option '{key}' is written twice")
                options[key] = self.value()
                if self.peek() != ("sign", ")"):
                    self.expect(",")
            self.take()
        return Spec(name, options)

    def value(self) -> Any:
        kind, token = self.peek()
        if kind == "number":
            self.take()
            return int(token) if re.fullmatch(r"[+-]?\d+", token) else float(token)
        if kind == "string":
            self.take()
            return re.sub(r"\\(.)", r"\1", token[1:-1])
        if (kind, token) == ("sign", "["):
            return self.items()
        if kind == "word" and token in _WORDS:
            self.take()
            return _WORDS[token]
        if kind != "word":
            raise self.fail("a value" if kind == "sign" or kind == "end" else "a value (a path in quotes)")
        return self.spec()

    def items(self) -> list[Any]:
        self.take()
        items = []
        while self.peek() != ("sign", "]"):
            items.append(self.value())
            if self.peek() != ("sign", "]"):
                self.expect(",")
        self.take()
        return items


def _from_toml(path: Path) -> Recipe:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CorecompressError(f"recipe {path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise CorecompressError(f"recipe {path}: {problem}") from None
    _only(document, {"stage", "rule", "drop"}, f"recipe {path}")
    stages = [
        _use(entry, f"recipe {path}, stage {n}", set()) for n, entry in enumerate(_tables(document, "stage", path), 1)
    ]
    rules = []
    for number, entry in enumerate(_tables(document, "rule", path), 1):
        where = f"recipe {path}, rule {number}"
        spec = _use(entry, where, {"match"})
        rules.append(Rule(_patterns(entry.get("match", "*"), f"{where}: match"), spec))
    if not stages and not rules:
        raise CorecompressError(f"recipe {path}: no [[stage]] and no [[rule]] in it")
    return Recipe(tuple(stages), tuple(rules), _patterns(document.get("drop", []), f"recipe {path}: drop"))


def _tables(document: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    tables = document.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise CorecompressError(f"recipe {path}: write {key} as [[{key}]] tables")
    return tables


def _use(entry: dict[str, Any], where: str, more: set[str]) -> Spec:
    _only(entry, {"use", "options"} | more, where)
    if not isinstance(entry.get("use"), str) or not isinstance(entry.get("options", {}), dict):
        raise CorecompressError(f'{where}: use = "component" is missing, or options is no table')
    spec = parse_spec(entry["use"])
    return Spec(spec.name, {**spec.options, **entry.get("options", {})})


def _patterns(value: Any, where: str) -> tuple[str, ...]:
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise CorecompressError(f"{where}: a pattern or a list of patterns was expected")
    return tuple(patterns)


def _only(table: dict[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise CorecompressError(f"{where}: '{key}' is not known here{hint} Known: {', '.join(sorted(known))}.")
