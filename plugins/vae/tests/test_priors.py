"""Every prior of the plugin, found by its name: rates, tables, codes, samples, state."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corecompress.errors import CorecompressError, CorruptData
from corecompress.plugins import registry
from corecompress.recipe import build, parse_spec
from corecompress_vae.class_prior import ClassPrior
from corecompress_vae.classes import CLASSES, ZERO
from corecompress_vae.tables import ROWS, SYMBOLS

NAMES = ("gaussian", "laplace", "logistic-mixture", "factorized", "hierarchical", "hadamard")
SHAPES = ("normal", "laplace", "student", "skewed", "constant", "few", "huge")


def prior(spec: str) -> Any:
    return build(registry(), "prior", parse_spec(spec))


def symbols_of(shape: str, n: int, width: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if shape == "constant":
        return np.full(n, round(width), np.int64)
    if shape == "few":
        return rng.choice([-3, 0, 7], n).astype(np.int64)
    if shape == "huge":
        return rng.integers(-(1 << 30), 1 << 30, n)
    draw = {
        "normal": rng.standard_normal(n),
        "laplace": rng.laplace(size=n),
        "student": rng.standard_t(2, n),
        "skewed": rng.gamma(2, size=n) - 1,
    }[shape]
    return np.rint(np.clip(draw * width, -1e8, 1e8)).astype(np.int64)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5, deadline=None)
@given(st.sampled_from(SHAPES), st.floats(0.2, 60), st.integers(0, 1000), st.integers(1, 5000))
@example("constant", 42.0, 0, 1696)
@example("skewed", 1.758546587491766, 675, 2256)  # hyper-latents take as many bytes coded as they are
def test_code_lengths_are_those_of_the_tables(name: str, shape: str, width: float, seed: int, n: int) -> None:
    made, symbols = prior(name), symbols_of(shape, n, width, seed)
    made.fit(symbols)
    coder = made.freeze()
    data, ideal = coder.compress(symbols), coder.bits(symbols)
    assert np.array_equal(coder.decompress(data, n), symbols)
    assert abs(8 * len(data) - ideal) < 0.005 * ideal + 8 * 64
    again = type(coder).from_bytes(coder.to_bytes())
    assert again.compress(symbols) == data
    assert np.array_equal(again.decompress(data, n), symbols)


@pytest.mark.parametrize("name", NAMES)
def test_classes_choose_the_tables(name: str) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, CLASSES, 6000)
    symbols = np.rint(rng.standard_normal(6000) * np.exp2((classes - ZERO) / 4)).astype(np.int64)
    made = prior(name)
    made.fit(symbols, classes)
    coder = made.freeze()
    data, ideal = coder.compress(symbols, classes), coder.bits(symbols, classes)
    assert np.array_equal(coder.decompress(data, 6000, classes), symbols)
    assert abs(8 * len(data) - ideal) < 0.005 * ideal + 8 * 64
    made.fit(symbols)
    assert ideal < 0.95 * made.freeze().bits(symbols), "to know the classes is worth something"


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_in_training_is_what_coding_takes(name: str) -> None:
    symbols = symbols_of("laplace", 30000, 6.0, 1)
    made = prior(name)
    made.fit(symbols)
    with torch.no_grad():
        rate = float(made.rate(torch.from_numpy(symbols)).mean())
    coded = 8 * len(made.freeze().compress(symbols)) / symbols.size
    # what was counted goes into the tables of a counted prior besides its shape, so it may be better than its rate
    assert coded < 1.01 * rate + 0.02
    assert coded > (0.9 if getattr(made, "counted", False) else 0.99) * rate - 0.02


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_has_a_gradient_and_every_class_sums_to_one(name: str) -> None:
    made = prior(name)
    noisy = (torch.randn(512) * 3).requires_grad_(True)
    made.rate(noisy).sum().backward()
    assert noisy.grad is not None
    assert bool(torch.isfinite(noisy.grad).all())
    assert bool((noisy.grad != 0).any())
    every = torch.arange(-20000, 20001)
    with torch.no_grad():
        for number in (0, ZERO, CLASSES - 8):
            mass = torch.exp2(-made.rate(every, torch.full(every.shape, number)).double()).sum()
            assert float(mass) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_of_the_fitted_width_and_of_the_seed(name: str) -> None:
    made = prior(name)
    made.fit(symbols_of("normal", 20000, 5.0, 0))
    draws = made.sample(4000, seed=3)
    assert draws.dtype == np.float32
    assert np.array_equal(draws, made.sample(4000, seed=3))
    assert not np.array_equal(draws, made.sample(4000, seed=4))
    assert 3 < draws.std() < 8


@pytest.mark.parametrize("name", NAMES)
def test_state_comes_back(name: str) -> None:
    made, other = prior(name), prior(name)
    symbols = symbols_of("student", 5000, 3.0, 2)
    made.fit(symbols)
    other.load_state_dict({key: np.array(value) for key, value in made.state_dict().items()})
    assert other.freeze().to_bytes() == made.freeze().to_bytes()


def test_families_fit_their_own_shape_best() -> None:
    """In bits: each of the three closed forms on 40,000 draws of itself, none more than a hundredth behind another."""
    rng = np.random.default_rng(0)
    draws = {
        "gaussian": rng.standard_normal(40000),
        "laplace": rng.laplace(size=40000) / 2**0.5,
        "hadamard": rng.standard_normal(40000) * rng.standard_normal(40000),
    }
    for own, values in draws.items():
        symbols = np.rint(values * 8).astype(np.int64)
        lengths = {}
        for name in NAMES:
            made = prior(name)
            made.fit(symbols)
            with torch.no_grad():
                lengths[name] = float(made.rate(torch.from_numpy(symbols)).mean())
        assert all(lengths[own] < lengths[name] + 0.01 for name in draws), (own, lengths)
        assert lengths["logistic-mixture"] < lengths[own] + 0.05
        assert lengths["factorized"] < lengths[own] + 0.05


def test_the_hadamard_density_is_that_of_a_product() -> None:
    """Against the density K0(|z|) / π, integrated over unit intervals numerically."""
    made = prior("hadamard")
    t = np.linspace(0, 12, 40001)

    def bessel_k0(z: np.ndarray) -> np.ndarray:
        return np.array([np.trapezoid(np.exp(-value * np.cosh(t)), t) for value in z])

    made.log_scale = torch.tensor(float(np.log(2.0)))
    for k in (1, 2, 5, 9):
        z = np.linspace((k - 0.5) / 2, (k + 0.5) / 2, 401)
        mass = np.trapezoid(bessel_k0(z) / np.pi, z)
        with torch.no_grad():
            rate = float(made.rate(torch.tensor([float(k)])))
        assert rate == pytest.approx(-np.log2(mass), abs=0.01)
    narrow = torch.tensor([0.4, 3.0, 40.0, 150.0], dtype=torch.float64, requires_grad=True)
    made.log_scale = torch.tensor(float(np.log(16.0)))  # an interval is a sixteenth of a deviation
    rates = made.rate(narrow)
    (slopes,) = torch.autograd.grad(rates.sum(), narrow)
    for at, rate, slope in zip(narrow.tolist(), rates.tolist(), slopes.tolist(), strict=True):
        low, high = (abs(np.linspace(at - 0.5 + d, at + 0.5 + d, 2000)) / 16 + 1e-12 for d in (-0.01, 0.01))
        sides = [-np.log2(np.trapezoid(bessel_k0(z) / np.pi, dx=1 / 16 / 1999)) for z in (low, high)]
        assert rate == pytest.approx(np.mean(sides), abs=2e-3)
        assert slope == pytest.approx((sides[1] - sides[0]) / 0.02, abs=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_of_what_is_no_number_is_none(name: str) -> None:
    """As training meets it, which stops at the last good checkpoint then."""
    assert torch.isnan(prior(name).rate(torch.tensor([1.0, torch.nan]))).tolist() == [False, True]


FREEZE = """
import hashlib, sys, numpy as np
from corecompress.plugins import registry
from corecompress.recipe import build, parse_spec
symbols = np.rint(np.random.default_rng(0).laplace(size=20000) * 4).astype(np.int64)
for name in sys.argv[1:]:
    made = build(registry(), "prior", parse_spec(name))
    made.fit(symbols)
    coder = made.freeze()
    print(hashlib.sha256(coder.to_bytes() + coder.compress(symbols)).hexdigest())
"""


def test_another_process_makes_the_same_bytes() -> None:
    command = [sys.executable, "-c", FREEZE, *NAMES]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    symbols = np.rint(np.random.default_rng(0).laplace(size=20000) * 4).astype(np.int64)
    mine = []
    for name in NAMES:
        made = prior(name)
        made.fit(symbols)
        coder = made.freeze()
        mine.append(hashlib.sha256(coder.to_bytes() + coder.compress(symbols)).hexdigest())
    assert mine == said


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_noticed_or_decodes_to_other_symbols(name: str) -> None:
    symbols, made = symbols_of("student", 3000, 5.0, 0), prior(name)
    made.fit(symbols)
    coder = made.freeze()
    data, rng = coder.compress(symbols), np.random.default_rng(0)
    for _ in range(100):
        bad = bytearray(data)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        try:
            assert coder.decompress(bytes(bad), 3000).shape == (3000,)
        except CorruptData:
            continue
    with pytest.raises(CorruptData):
        coder.decompress(data[: len(data) // 2], 3000)
    tables = coder.to_bytes()
    for _ in range(60):
        bad = bytearray(tables)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        try:
            type(coder).from_bytes(bytes(bad))
        except CorruptData:
            continue


@pytest.mark.parametrize("name", NAMES)
def test_class_tables_from_each_prior_cover_what_was_counted(name: str) -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros((ROWS, SYMBOLS))
    counts[2 * ZERO] = np.bincount(np.clip(np.rint(rng.standard_normal(5000)) + 128, 1, 255).astype(int), minlength=256)
    tables = ClassPrior(prior(name)).fit(counts)
    assert (tables.frequencies.sum(1) == 4096).all()
    ideal = float((counts * tables.bits.reshape(ROWS, SYMBOLS)).sum() / 5000)
    assert 2.0 < ideal < 2.5, "a normal distribution of width one, rounded, has 2.1 bits"


@pytest.mark.parametrize("spec", ["logistic-mixture(components=0)", "hierarchical(block=0)", "gaussian(width=2)"])
def test_impossible_options_are_refused(spec: str) -> None:
    with pytest.raises(CorecompressError):
        prior(spec)
