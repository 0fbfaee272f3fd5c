"""Sizes that are hit, qualities that are kept, and where `vae` puts its bits."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import vae_models
from hypothesis import given, settings
from hypothesis import strategies as st
from vae_models import FAST, dense, gaussian, relative, write

import corecompress
from corecompress import rate_search
from corecompress.checkpoint import open_checkpoint
from corecompress.errors import CorecompressError


@pytest.mark.parametrize("bits", [2.5, 6.0])
def test_bits_are_hit_on_a_real_model(bits: float, minilm: Path, tmp_path: Path) -> None:
    done = corecompress.compress(minilm, tmp_path / "out", f"vae(bits={bits}, quantizer=trellis(states=4))")
    files = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert done.bytes == files
    parameters = sum(info.size for info in open_checkpoint(minilm).tensors)
    assert 8 * files / parameters == pytest.approx(bits, rel=0.01)
    assert corecompress.verify(tmp_path / "out").ok
    if bits > 5:
        from transformers import AutoModel

        plain, small = AutoModel.from_pretrained(minilm), AutoModel.from_pretrained(tmp_path / "out")
        worst = max(
            relative(b.detach().numpy(), a.detach().numpy())
            for a, b in zip(plain.parameters(), small.parameters(), strict=True)
        )
        assert 0 < worst < 0.1


def test_a_size_counts_a_table_that_is_stored_twice_once(tmp_path: Path) -> None:
    values = gaussian(2000, 64)
    source = write(tmp_path / "source", dict.fromkeys(("embed.weight", "lm_head.weight"), ("F32", values)))
    done = corecompress.compress(source, tmp_path / "out", "vae(quantizer=trellis(states=4))", max_size=60_000)
    assert len(done.search) == 1
    assert 0.98 * 60_000 <= done.bytes <= 60_000
    with pytest.raises(CorecompressError, match=r"about 3\.\d+ kB is the least"):
        corecompress.compress(source, tmp_path / "less", "vae(quantizer=trellis(states=4))", max_size=2_000)


def test_a_plan_says_about_what_will_be_written(minilm: Path, tmp_path: Path) -> None:
    """Its samples of a tensor have rows of classes that the sample of all tensors has not."""
    recipe = "vae(bits=3, quantizer=trellis(states=4))"
    expected = {row.name: row.bytes for row in corecompress.plan(minilm, recipe).tensors}
    corecompress.compress(minilm, tmp_path / "out", recipe)
    written = {row.name: row.bytes for row in corecompress.inspect(tmp_path / "out").tensors}
    assert sum(expected.values()) == pytest.approx(sum(written.values()), rel=0.06)
    table = "embeddings.word_embeddings.weight"
    assert expected[table] == pytest.approx(written[table], rel=0.15)


def test_a_plan_says_that_calibration_is_not_in_it(tmp_path: Path) -> None:
    source = vae_models.llama(tmp_path / "source")
    data = f"text:{tiny.corpus(tmp_path / 'text.txt')}"
    told = [
        corecompress.plan(source, recipe, data=given).calibrated
        for recipe, given in ((FAST, data), (FAST, None), ("lossless", data))
    ]
    assert told == [True, False, False]


@pytest.mark.parametrize(
    ("architecture", "names", "coarser", "finer"),
    [
        ("BertModel", ["embeddings.word_embeddings.weight"], {"embeddings.word_embeddings.weight"}, set()),
        ("LlamaForCausalLM", ["model.embed_tokens.weight"], set(), {"model.embed_tokens.weight"}),
        (
            "LlamaForCausalLM",
            ["model.embed_tokens.weight", "lm_head.weight"],
            {"model.embed_tokens.weight"},
            {"lm_head.weight"},
        ),
        (
            "GPTNeoXForCausalLM",
            ["gpt_neox.embed_in.weight", "embed_out.weight"],
            {"gpt_neox.embed_in.weight"},
            {"embed_out.weight"},
        ),
    ],
)
def test_without_data_input_tables_are_coarser_and_heads_finer(
    architecture: str, names: list[str], coarser: set[str], finer: set[str], tmp_path: Path
) -> None:
    tensors = {f"layers.{n}.weight": ("BF16", gaussian(128, 64, seed=n)) for n in range(8)}
    tensors |= {name: ("BF16", gaussian(2048, 64, seed=9 + n)) for n, name in enumerate(names)}
    source = write(tmp_path / "source", tensors, vocab_size=2048, architectures=[architecture])
    corecompress.compress(source, tmp_path / "out", "vae(step=0.5, quantizer=trellis(states=4))")
    before, after = dense(source), dense(tmp_path / "out")
    lost = {name: relative(after[name], value) for name, value in before.items()}
    usual = np.mean([value for name, value in lost.items() if name.startswith("layers.")])
    assert {name for name, value in lost.items() if value > 1.5 * usual} == coarser
    assert {name for name, value in lost.items() if value < usual / 1.5} == finer


@pytest.mark.parametrize("quantizer", ["scalar", "trellis(states=4)"])
@pytest.mark.parametrize("bits", [1.5, 2.5])
def test_one_class_a_matrix_hits_its_size_too(bits: float, quantizer: str, minilm: Path, tmp_path: Path) -> None:
    done = corecompress.compress(minilm, tmp_path / "out", f"vae(bits={bits}, encoder=identity, quantizer={quantizer})")
    assert 8 * done.bytes / sum(info.size for info in open_checkpoint(minilm).tensors) == pytest.approx(bits, rel=0.01)


@pytest.mark.parametrize("encoder", ["identity", "scale-hyperprior"])
@pytest.mark.parametrize("bits", [0.6, 1.1, 7.0])
def test_far_from_the_usual_the_size_is_hit_as_well(bits: float, encoder: str, tmp_path: Path) -> None:
    tensors = {f"{n}.weight": ("F32", gaussian(384, 512, seed=n)) for n in range(8)}
    source = write(tmp_path / "source", tensors)
    done = corecompress.compress(source, tmp_path / "out", f"vae(bits={bits}, encoder={encoder})")
    assert done.bits_per_weight == pytest.approx(bits, rel=0.01)


@pytest.mark.parametrize("quantizer", ["scalar", "trellis(states=4)"])
def test_one_class_a_matrix_hits_its_size_with_calibration(quantizer: str, tmp_path: Path) -> None:
    """Columns that differ by far in one class, and more weights than the sample has that a size is predicted from."""
    drawn = np.random.default_rng(0)

    def uneven(model: Any) -> None:
        for name, weights in model.named_parameters():
            if "proj" in name:
                weights *= weights.new_tensor(2.0 ** drawn.normal(0, 2, weights.shape[1]))

    source = vae_models.llama(
        tmp_path / "source", uneven, hidden_size=256, intermediate_size=896, initializer_range=0.02
    )
    data = f"text(length=32):{tiny.corpus(tmp_path / 'text.txt', documents=400)}"
    recipe = f"vae(bits=3, encoder=identity, calibration_tokens=2000, quantizer={quantizer})"
    done = corecompress.compress(source, tmp_path / "out", recipe, data=data)
    assert done.bits_per_weight == pytest.approx(3, rel=0.01)


def test_a_size_is_never_exceeded_and_used(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {f"{n}.weight": ("BF16", gaussian(256, 256, seed=n)) for n in range(6)})
    for most in (130_000, 200_000):
        done = corecompress.compress(source, tmp_path / str(most), FAST, max_size=most)
        assert 0.98 * most <= done.bytes <= most
        assert done.bytes == sum(path.stat().st_size for path in (tmp_path / str(most)).iterdir())
    with pytest.raises(CorecompressError, match=r"about .* is the least"):
        corecompress.compress(source, tmp_path / "none", FAST, max_size=3000)
    assert not (tmp_path / "none").exists()


def test_below_reach_says_the_least(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a.weight": ("F32", gaussian(256, 256)), "n.weight": ("F32", gaussian(5000))})
    with pytest.raises(CorecompressError, match=r"ask for more than that|about [\d.]+ is the least"):
        corecompress.compress(source, tmp_path / "out", "vae(bits=0.1)")
    with pytest.raises(CorecompressError, match=r"about [\d.]+ is the most"):
        corecompress.compress(source, tmp_path / "out", "vae(bits=31)")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("out.")] == ["source"]


def test_kl_stays_under_what_was_asked(tmp_path: Path) -> None:
    source = vae_models.llama(tmp_path / "source")
    text = tiny.corpus(tmp_path / "text.txt", documents=400)
    recipe = "vae(calibration_tokens=2000, quantizer=trellis(states=4))"
    done = corecompress.compress(source, tmp_path / "out", recipe, data=f"text(length=32):{text}", max_kl=0.05)
    assert done.evaluation is not None
    assert 0.01 < done.evaluation.metrics["kl"].value <= 0.05
    assert len(done.search) > 1
    assert (tmp_path / "out" / "corecompress.json").exists()


@settings(max_examples=300, deadline=None)
@given(
    slope=st.floats(-4, -1),
    bend=st.floats(0, 0.08),
    at=st.floats(1.0, 9.0),
    noise=st.lists(st.floats(0.98, 1.02), min_size=20, max_size=20),
)
def test_a_search_for_a_kl_closes_in(slope: float, bend: float, at: float, noise: list[float]) -> None:
    """Whatever the curve, and where KLs are measured with an error: two ends that are CLOSE in few steps, no rate twice."""
    most, low, high, bits, steps = 0.05, 0.0, math.inf, 4.0, list[rate_search.Step]()
    while high - low > rate_search.CLOSE:
        kl = most * 2 ** (slope * (bits - at) + bend * (bits - at) ** 2) * noise[len(steps)]
        steps.append(rate_search.Step(bits, 0, kl))
        low, high = (low, min(high, bits)) if kl <= most else (max(low, bits), high)
        bits = rate_search._next_bits(steps, most, low, high)
        assert len(steps) <= rate_search.STEPS
    tried = sorted(step.bits for step in steps)
    assert all(b - a > rate_search.CLOSE / 5 for a, b in itertools.pairwise(tried))


@pytest.mark.parametrize("way", ["gradients", "layers"])
def test_calibration_is_worth_its_time(way: str, tmp_path: Path) -> None:
    """At the same bits, KL with text is below KL without, for both ways; rotated as well."""
    source = vae_models.llama(tmp_path / "source", tie_word_embeddings=True, vocab_size=64)
    data = f"text(length=32):{tiny.corpus(tmp_path / 'text.txt', documents=400)}"
    rest = "bits=3.5, quantizer=trellis(states=4)"
    corecompress.compress(source, tmp_path / "free", f"vae({rest})")
    blind = corecompress.evaluate(source, tmp_path / "free", data).metrics["kl"].value
    for rotation in ("none", "hadamard"):
        recipe = f"vae({rest}, calibration={way}, calibration_tokens=3000, rotation={rotation})"
        out = tmp_path / rotation
        done = corecompress.compress(source, out, recipe, data=data)
        assert done.bits_per_weight == pytest.approx(3.5, rel=0.01)
        assert done.evaluation is not None
        assert done.evaluation.metrics["kl"].value < 0.9 * blind


def test_kl_falls_as_bits_rise(tmp_path: Path) -> None:
    source = vae_models.llama(tmp_path / "source")
    data = f"text(length=32):{tiny.corpus(tmp_path / 'text.txt', documents=400)}"
    found = []
    for bits in (3, 4.5, 7, 10):
        recipe = f"vae(bits={bits}, calibration_tokens=2000, quantizer=trellis(states=4))"
        done = corecompress.compress(source, tmp_path / str(bits), recipe, data=data, cache=tmp_path / "cache")
        assert done.evaluation is not None
        found.append(done.evaluation.metrics["kl"].value)
    assert all(b < 0.5 * a for a, b in itertools.pairwise(found)), found
