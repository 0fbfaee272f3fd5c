"""Everything in corecompress-vae that encodes and decodes: what comes back, how long it is, and what damage does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from corecompress.components import BITS, TensorInfo
from corecompress.errors import CorruptData
from corecompress.floats import to_float32
from corecompress.plugins import registry
from corecompress.recipe import build, parse_spec
from corecompress_vae import rotation
from corecompress_vae.chunks import fit_codes, from_chunks, to_chunks
from corecompress_vae.class_prior import ClassPrior
from corecompress_vae.classes import CLASSES, SPAN, class_deviation, fit_classes, one_class
from corecompress_vae.exact import decode_exact, encode_exact
from corecompress_vae.layout import layout_of
from corecompress_vae.levels import COARSE, ROOTS, code_steps, step_codes
from corecompress_vae.matrix import Scales, decode_matrix, encode_matrix
from corecompress_vae.quantise import quantise
from corecompress_vae.stream import decode_levels, encode_levels, walk
from corecompress_vae.tables import ROWS, SYMBOLS, ClassTables
from corecompress_vae.trellis import POLYNOMIALS, trellis
from corecompress_vae.values import from_float32, to_bf16

STATES = st.sampled_from([1, *POLYNOMIALS])
SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 40))
"""Rows and columns: less than a strip, several, and a narrow last one."""


def tables(prior: str = "gaussian") -> ClassTables:
    return ClassPrior(build(registry(), "prior", parse_spec(prior))).first()


GAUSSIAN = tables()


def bits_of(symbols: np.ndarray, index: np.ndarray, side: np.ndarray, used: ClassTables) -> float:
    """Ideal code length of a stream, escapes included."""
    probability = used.frequencies[index.astype(int), symbols] / 4096
    return float(-np.log2(probability).sum()) + 8 * side.size


def levels_for(rng: np.random.Generator, shape: tuple[int, int], states: int, width: float, wild: bool) -> np.ndarray:
    """Levels int32 [n, o] that obey the trellis; wild: some far beyond every table."""
    o, n = shape
    walker, levels = trellis(states), np.empty((n, o), np.int32)
    for j in range(n):
        state = 0
        for i in range(o):
            k = round(rng.standard_normal() * width)
            if wild and rng.random() < 0.1:
                k = int(rng.integers(-(1 << 28), 1 << 28))
            levels[j, i] = 2 * k + (state & 1)
            state = int(walker.after[2 * state + (k & 1)])
    return levels


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), SHAPES, STATES, st.floats(0.01, 80), st.booleans(), st.sampled_from([1, 2]))
def test_levels_come_back(
    seed: int, shape: tuple[int, int], states: int, width: float, wild: bool, threads: int
) -> None:
    levels = levels_for(np.random.default_rng(seed), shape, states, width, wild)
    rows, columns = fit_classes(levels)
    coded = encode_levels(levels, rows, columns, GAUSSIAN, trellis(states))
    steps, factor = np.exp2(np.arange(shape[1]) % 3).astype(np.float32), np.ones(shape[0], np.float32)
    out = np.empty(shape, np.float32)
    decode_levels(memoryview(coded), shape, rows, columns, GAUSSIAN, trellis(states), steps, factor, out, threads)
    assert np.array_equal(out, levels.T.astype(np.float32) * steps)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), STATES, st.floats(0.3, 40), st.booleans())
def test_streams_are_as_long_as_their_tables_say(seed: int, states: int, width: float, wild: bool) -> None:
    rng = np.random.default_rng(seed)
    levels = levels_for(rng, (400, 24), states, width, wild)
    rows, columns = fit_classes(levels)
    symbols, index, side = walk(levels, rows, columns, GAUSSIAN.frequencies, trellis(states))
    coded = encode_levels(levels, rows, columns, GAUSSIAN, trellis(states))
    ideal = bits_of(symbols, index, side, GAUSSIAN)
    assert abs(8 * coded.size - ideal) < 0.005 * ideal + 8 * 64


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, SHAPES, elements=st.floats(-1e4, 1e4, width=32)),
    STATES,
    st.floats(1e-2, 1e3),
    st.booleans(),
    st.booleans(),
)
def test_a_matrix_comes_back_near_and_the_same_in_bfloat16(
    weights: np.ndarray, states: int, step: float, bf16: bool, fitted: bool
) -> None:
    if bf16:
        weights = (to_bf16(weights).astype(np.uint32) << 16).view(np.float32)
    o, n = weights.shape
    scales = Scales(step_codes(np.full(n, step)), step_codes(np.ones(o)))
    coded = encode_matrix(weights, scales, GAUSSIAN, trellis(states), bf16, fitted)
    out = np.empty((o, n), np.float32)
    decode_matrix(memoryview(coded), out, GAUSSIAN, trellis(states), 1)
    levels = quantise(weights, scales.columns, scales.rows, None, GAUSSIAN.bits, trellis(states), bf16, fitted)
    assert np.array_equal(out, levels.T.astype(np.float32) * code_steps(scales.columns))
    # far from 0 an escape costs thirty bits, which the rate-aware search may pay for with error: √(0.45 · 30) steps
    assert np.abs(out - weights).max() <= 6 * code_steps(scales.columns)[0] + np.abs(weights).max() * 2e-7
    short = np.empty((o, n), np.uint16)
    decode_matrix(memoryview(coded), short, GAUSSIAN, trellis(states), 2)
    assert np.array_equal(short.reshape(-1), to_bf16(out.reshape(-1)))


@pytest.mark.parametrize("step", [1e-9, 1e-4])
def test_steps_finer_than_float_are_made_coarser(step: float) -> None:
    weights = np.array([[1e4, 3.0], [-2.5e3, 1e-3]], np.float32)
    coded = encode_matrix(
        weights, Scales(step_codes(np.full(2, step)), step_codes(np.ones(2))), GAUSSIAN, trellis(8), False
    )
    out = np.empty((2, 2), np.float32)
    decode_matrix(memoryview(coded), out, GAUSSIAN, trellis(8), 1)
    assert np.abs(out - weights).max(0) == pytest.approx(np.zeros(2), abs=1e4 * 2**-18)


def test_feedback_makes_the_outputs_error_smaller() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((48, 48)) * np.exp(rng.standard_normal(48))
    hessian = mixing @ mixing.T + 0.1 * np.eye(48)
    weights = rng.standard_normal((200, 48)).astype(np.float32)
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    unit = (upper / np.diag(upper)[:, None]).astype(np.float32)

    def loss(feedback: np.ndarray | None) -> float:
        scales = Scales(step_codes(np.full(48, 0.5)), step_codes(np.ones(200)), feedback)
        out = np.empty((200, 48), np.float32)
        coded = encode_matrix(weights, scales, GAUSSIAN, trellis(8), False)
        decode_matrix(memoryview(coded), out, GAUSSIAN, trellis(8), 1)
        return float(np.einsum("ij,jk,ik->", out - weights, hessian, out - weights))

    assert loss(unit) < 0.5 * loss(None)


@pytest.mark.parametrize("states", [1, 8, 64])
def test_feedback_among_rows_makes_what_they_do_together_smaller(states: int) -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((64, 64)) + 12 * rng.standard_normal((64, 3)) @ rng.standard_normal((3, 64))
    hessian = mixing @ mixing.T / 64 + np.eye(64)
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    fed = np.diag(upper)
    alone = np.diag(hessian) ** -0.5
    alone *= np.exp(np.log(fed).mean() - np.log(alone).mean())  # the same number of bits
    weights = rng.standard_normal((100, 40)).astype(np.float32)  # a group, and a part of one

    def loss(rows: np.ndarray, unit: np.ndarray | None) -> tuple[float, int]:
        factor = np.tile(rows, 2)[:100]
        scales = Scales(step_codes(np.full(40, 0.5)), step_codes(factor), row_unit=unit)
        out = np.empty((100, 40), np.float32)
        coded = encode_matrix(weights, scales, GAUSSIAN, trellis(states), False)
        decode_matrix(memoryview(coded), out, GAUSSIAN, trellis(states), 1)
        errors = np.pad(out - weights, ((0, 28), (0, 0))).reshape(2, 64, 40)
        return float(np.einsum("gij,ik,gkj->", errors, hessian, errors)), len(coded)

    unit = np.stack([upper / fed[:, None]] * 2).astype(np.float32)
    (without, bits), (together, more) = loss(alone, None), loss(fed, unit)
    assert together < 0.5 * without
    assert more < 1.05 * bits


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), SHAPES, STATES, st.booleans())
def test_rows_that_feed_nothing_are_quantised_as_ever(
    seed: int, shape: tuple[int, int], states: int, far: bool
) -> None:
    weights = (np.random.default_rng(seed).standard_normal(shape) * (1e4 if far else 3)).astype(np.float32)
    o, n = shape
    columns, rows = step_codes(np.full(n, 0.5)), step_codes(np.ones(o))
    nothing = np.stack([np.eye(64, dtype=np.float32)] * -(-o // 64))
    given_ = [
        quantise(weights, columns, rows, None, GAUSSIAN.bits, trellis(states), False, True, unit)
        for unit in (None, nothing)
    ]
    assert np.array_equal(*given_)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_class_tables_come_back(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    shares = np.exp(rng.standard_normal((ROWS, SYMBOLS)) * rng.uniform(0, 8))
    made = ClassTables.from_shares(shares)
    assert (made.frequencies.sum(1) == 4096).all()
    assert (made.frequencies[:, 0] > 0).all(), "without a slot for escapes some symbols have no code"
    used = rng.random(ROWS) < 0.5
    kept = made.only(used)
    again = ClassTables.from_bytes(kept.to_bytes())
    assert np.array_equal(again.frequencies, kept.frequencies)


def test_damaged_class_tables_are_noticed_or_other_tables() -> None:
    data, rng = GAUSSIAN.to_bytes(), np.random.default_rng(0)
    for _ in range(400):
        bad = bytearray(data)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        if rng.random() < 0.2:
            bad = bad[: rng.integers(len(bad))]
        try:
            made = ClassTables.from_bytes(bytes(bad))
        except CorruptData:
            continue
        assert (made.frequencies.sum(1) == 4096).all()
        assert (made.frequencies >= 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), SHAPES, STATES)
def test_a_damaged_matrix_never_crashes(seed: int, shape: tuple[int, int], states: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(shape).astype(np.float32)
    scales = Scales(step_codes(np.full(shape[1], 0.1)), step_codes(np.ones(shape[0])))
    coded = encode_matrix(weights, scales, GAUSSIAN, trellis(states), False)
    out = np.empty(shape, np.float32)
    for _ in range(40):
        bad = bytearray(coded)
        for _ in range(rng.integers(1, 4)):
            bad[rng.integers(len(bad))] = rng.integers(256)
        if rng.random() < 0.3:
            bad = bad[: rng.integers(len(bad) + 1)]
        try:
            decode_matrix(memoryview(bytes(bad)), out, GAUSSIAN, trellis(states), 1)
        except CorruptData:
            continue


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 5))
def test_rotation_is_undone_and_keeps_lengths(seed: int, n: int, o: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((o, n)).astype(np.float32)
    turned = rotation.rotate(rows, "a")
    assert np.allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(rows, axis=1), rtol=1e-5)
    rotation.rotate_back(turned, "a")
    assert np.allclose(turned, rows, atol=1e-5)


@pytest.mark.parametrize("n", [64, 100, 576])
def test_rotation_spreads_outliers_and_turns_hessians_with_the_weights(n: int) -> None:
    heavy = np.random.default_rng(0).standard_t(3, (200, n)).astype(np.float32)

    def kurtosis(x: np.ndarray) -> float:
        return float(np.mean(x**4) / np.mean(x**2) ** 2)

    assert kurtosis(rotation.rotate(heavy, "a")) < 0.5 * kurtosis(heavy)
    mixing = np.random.default_rng(1).standard_normal((n, n)) / n**0.5 + np.eye(n)
    upper = np.linalg.cholesky(mixing @ mixing.T).T
    steps = np.diag(upper).astype(np.float32)
    unit, turned_steps = rotation.rotate_factor((upper / steps[:, None]).astype(np.float32), steps, "a")
    factor = unit.astype(np.float64) * turned_steps[:, None]
    turn = rotation.rotate(np.eye(n, dtype=np.float32), "a")
    assert np.allclose(factor.T @ factor, turn.T @ (upper.T @ upper) @ turn, atol=1e-3)
    assert np.allclose(np.diag(unit), 1)
    assert (turned_steps > 0).all()


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(BITS)), st.binary(max_size=600))
def test_exact_is_exact(dtype: str, data: bytes) -> None:
    unit = max(BITS[dtype] // 8, 1)
    whole = np.frombuffer(data[: len(data) // (unit * 3) * unit * 3], np.uint8)
    info = TensorInfo("t", dtype, (whole.size * 8 // BITS[dtype],))
    coded = encode_exact(whole, info)
    assert np.array_equal(decode_exact(memoryview(coded), info), whole)
    with pytest.raises(CorruptData):
        decode_exact(memoryview(coded + b"x"), info)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), SHAPES, st.floats(0.05, 3000))
def test_classes_say_how_wide_levels_are(seed: int, shape: tuple[int, int], width: float) -> None:
    rng = np.random.default_rng(seed)
    levels = np.rint(rng.standard_normal((shape[1], shape[0])) * width).astype(np.int32)
    for rows, columns in (fit_classes(levels), one_class(levels, GAUSSIAN.bits)):
        assert rows.shape == (shape[0],)
        assert columns.shape == (shape[1],)
        assert int(rows.max()) < SPAN
        number = np.clip(rows.astype(int)[None] + columns.astype(int)[:, None] - SPAN, 0, CLASSES - 1)
        if levels.size > 200 and 1 < width < 100:
            deviation = float(np.sqrt(np.mean(np.square(levels, dtype=np.float64))))
            ratio = np.exp2(np.log2(np.vectorize(class_deviation)(number)).mean()) / deviation
            assert 0.5 < ratio < 2


def test_steps_are_the_same_on_every_machine() -> None:
    """No fraction of an octave is so near to the middle of two float32 that a last bit of pow could move it."""
    from fractions import Fraction

    for k, root in enumerate(ROOTS):
        above, below = np.nextafter(root, np.float32(4)), np.nextafter(root, np.float32(0))
        for other in (above, below):
            middle = (Fraction(float(root)) + Fraction(float(other))) / 2
            distance = abs(float(middle**64 / Fraction(2) ** k - 1)) / 64
            assert distance > 2.0**-46, k
    codes = step_codes(np.array([1e-9, 1.0, 3.7, 1e9]))
    assert (np.diff(codes) % COARSE == 0).all()
    assert np.allclose(np.log2(code_steps(codes[:1])), np.log2(1e-9), atol=1 / 64)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-6e4, 6e4, width=32)))
def test_dtypes_round_as_torch_does(values: np.ndarray) -> None:
    import torch

    expected = torch.from_numpy(values.copy()).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(to_bf16(values), expected)
    assert np.array_equal(to_float32(values.view(np.uint8), "F32"), values)
    half = from_float32(values, "F16")
    assert np.array_equal(half.view("<f2"), values.astype("<f2"))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), SHAPES, st.sampled_from([1, 3, 16]))
def test_chunks_come_back(seed: int, shape: tuple[int, int], size: int) -> None:
    matrix = (np.random.default_rng(seed).standard_normal(shape) * 0.02).astype(np.float32)
    rows, columns = fit_codes(matrix)
    chunks = to_chunks(matrix, rows, columns, size)
    assert chunks.shape == (shape[0] * -(-shape[1] // size), size)
    assert np.allclose(from_chunks(chunks, rows, columns), matrix, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "shape", "expected"),
    [
        ("F32", (64, 300), (1, 64, 300)),
        ("F16", (32, 16, 3, 3), (1, 32, 144)),
        ("BF16", (8, 64, 128), (8, 64, 128)),
        ("F32", (96, 1, 5, 5), (1, 96, 25)),
        ("F32", (128, 1, 3, 3), (1, 128, 9)),
        ("F32", (64, 32, 3), (1, 64, 96)),
        ("F32", (16, 8, 3, 3, 3), (1, 16, 216)),
        ("F32", (1, 4096), (1, 4096, 1)),
        ("F32", (4096, 1), (1, 4096, 1)),
        ("I64", (64, 300), None),
        ("F32", (4096,), None),
    ],
)
def test_how_tensors_become_matrices(dtype: str, shape: tuple[int, ...], expected: tuple[int, int, int] | None) -> None:
    layout = layout_of(TensorInfo("t", dtype, shape))
    assert (None if layout is None else (layout.count, layout.rows, layout.columns)) == expected
    if layout is not None:
        flat = np.arange(np.prod(shape))
        assert np.array_equal(np.sort(layout.matrices(flat).reshape(-1)), flat)
