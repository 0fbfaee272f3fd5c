"""Recipes: text and TOML, options, routing by pattern."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import checkpoints
import pytest
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st

import corecompress
from corecompress.errors import CorecompressError
from corecompress.recipe import Spec, build_options, parse, parse_data, parse_spec

words = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(lambda w: w not in ("true", "false", "none"))
plain = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=12)


def specs(value: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(Spec, words, st.dictionaries(words.map(lambda w: w.replace("-", "_")), value, max_size=3))


values = st.recursive(plain | texts, lambda v: st.lists(v, max_size=3) | specs(v), max_leaves=6)


def as_words(value: object) -> object:
    """Bare words and components without options are written alike."""
    if isinstance(value, Spec):
        return Spec(value.name, {k: as_words(v) for k, v in value.options.items()}) if value.options else value.name
    return [as_words(v) for v in value] if isinstance(value, list) else value


@given(specs(values))
def test_what_is_written_is_read_again(spec: Spec) -> None:
    again = parse_spec(str(spec))
    assert as_words(again) == as_words(spec)
    assert str(again) == str(spec)


@given(st.text(alphabet="ab(),=|[]\"' 1.-", max_size=25))
def test_any_text_parses_or_says_why(text: str) -> None:
    try:
        parse(text)
    except CorecompressError as problem:
        assert "\n" not in str(problem)


def test_examples() -> None:
    recipe = parse('acme-prune(sparsity=0.5) | vae(bits=3, prior=laplace(classes=4), keep=["a.*", b])')
    assert [stage.name for stage in recipe.stages] == ["acme-prune", "vae"]
    assert recipe.stages[1].options["prior"] == Spec("laplace", {"classes": 4})
    assert parse_data("text(length=512):dir/corpus.txt") == (Spec("text", {"length": 512}), "dir/corpus.txt")
    assert parse_data("text:org/name:config") == (Spec("text"), "org/name:config")
    with pytest.raises(CorecompressError, match="NAME:SOURCE"):
        parse_data("text")


@dataclass(frozen=True)
class Turned:
    turn: Literal["none", "hadamard"] = "hadamard"
    most: int | None = 1


@pytest.mark.parametrize(("written", "expected"), [("none", "none"), ("hadamard", "hadamard"), ('"none"', "none")])
def test_none_is_a_word_where_it_is_one_of_the_choices(written: str, expected: str) -> None:
    target = type("Target", (), {"Options": Turned})
    options = build_options("compressor", target, parse_spec(f"turner(turn={written}, most=none)"))
    assert options == Turned(expected, None)


@dataclass(frozen=True)
class Words:
    """Options whose values look like something else."""

    pattern: Literal["none", "2:4"] = "2:4"
    follow: Literal["off", "on"] | None = None


class Target:
    Options = Words


def test_words_that_look_like_something_else() -> None:
    def options(text: str) -> Words:
        return build_options("compressor", Target, parse_spec(text))

    assert options("lossless(pattern=none)").pattern == "none", "the word, not the value"
    assert options("lossless(pattern=2:4)").pattern == "2:4"
    assert options('lossless(pattern="2:4")') == options(str(parse_spec("lossless(pattern=2:4)")))
    assert options("lossless(follow=none)").follow is None
    assert options("lossless(follow=on)").follow == "on"
    with pytest.raises(CorecompressError, match="one of none, 2:4"):
        options("lossless(pattern=1:4)")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    entries = [("emb.weight", "F32", (100, 40)), ("layer.0.weight", "F32", (40, 40)), ("layer.0.bias", "F32", (40,))]
    return checkpoints.write_checkpoint(
        tmp_path / "model", [checkpoints.weights(*entries, ("head.weight", "F32", (9, 40)))]
    )


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def test_rules_drop_and_plan(model: Path, cli: Cli, tmp_path: Path) -> None:
    recipe = toml(
        tmp_path,
        'drop = ["head.*"]\n[[rule]]\nmatch = ["emb.*", "*.bias"]\nuse = "lossless(level=1)"\n'
        '[[rule]]\nuse = "lossless"\noptions = { level = 2 }\n',
    )
    planned = json.loads(cli("plan", model, "-r", recipe, "--json").stdout)
    assert [(count, text.partition("]")[0]) for text, count, _, _ in planned["rules"]] == [
        (2, "[emb.*, *.bias"),
        (1, "[*"),
    ]
    assert planned["dropped"] == ["head.weight"]
    summary = corecompress.compress(model, tmp_path / "out", recipe=str(recipe))
    assert {row.name for row in summary.tensors} == {"emb.weight", "layer.0.weight", "layer.0.bias"}
    verified = corecompress.verify(tmp_path / "out", against=model)
    assert verified.problems == ("tensor 'head.weight': is only in the original",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[[rule]]\nmatch = "enb.*"\nuse = "lossless"',
            "pattern 'enb.*' matches no tensor; the nearest tensor is 'emb.weight'",
        ),
        ('drop = ["nothing.*"]\n[[rule]]\nuse = "lossless"', "pattern 'nothing.*' matches no tensor"),
        ('[[rule]]\nuse = "lossless"\n[[rule]]\nmatch = "emb.*"\nuse = "lossless"', "takes no tensor"),
        ('[[rule]]\nmatsch = "emb.*"\nuse = "lossless"', "did you mean 'match'?"),
        ('[[rules]]\nuse = "lossless"', "did you mean 'rule'?"),
        ('[[rule]]\nmatch = "*"', "is missing"),
        ("x = [", "recipe.toml"),
        ("", "no [[stage]] and no [[rule]]"),
        ('[[rule]]\nuse = "lossless"\noptions = { level = "2" }', "it takes a whole number"),
    ],
)
def test_mistakes_in_toml(model: Path, refused, tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refused("compress", model, "-o", tmp_path / "out", "-r", toml(tmp_path, text))


def test_what_no_rule_takes_stays_exact(model: Path, tmp_path: Path) -> None:
    recipe = toml(tmp_path, '[[rule]]\nmatch = "emb.*"\nuse = "lossless(level=1)"')
    summary = corecompress.compress(model, tmp_path / "out", recipe=str(recipe))
    assert len(summary.tensors) == 4
    assert corecompress.verify(tmp_path / "out", against=model).ok
