"""The compressor `lossless`, installed and found by its entry point: every bit of every dtype."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corecompress.components import BITS, Tensor, TensorCompressor, TensorInfo
from corecompress.errors import CorecompressError, CorruptData
from corecompress.plugins import registry
from corecompress.recipe import build, parse_spec


def lossless(text: str = "lossless") -> TensorCompressor:
    component: TensorCompressor = build(registry(), "compressor", parse_spec(text))
    return component


def tensor(dtype: str, data: np.ndarray) -> Tensor:
    data = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
    return Tensor(TensorInfo("t", dtype, (data.size * 8 // BITS[dtype],)), data)


def size_after(given_tensor: Tensor, text: str = "lossless") -> int:
    """Bytes of the payload; the round trip is checked with one and two threads."""
    component = lossless(text)
    payload = component.encode(given_tensor)
    for threads in (1, 2):
        assert np.array_equal(component.decode(memoryview(payload), given_tensor.info, threads), given_tensor.data)
    return len(payload)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(BITS)), st.binary(max_size=300), st.sampled_from(["lossless", "lossless(level=1)"]))
def test_any_bits_of_any_dtype(dtype: str, data: bytes, text: str) -> None:
    unit = max(BITS[dtype] // 8, 1) * (3 if dtype.startswith("F6") else 1)
    whole = np.frombuffer(data[: len(data) // unit * unit], np.uint8)
    assert size_after(tensor(dtype, whole), text) <= whole.size + 1


def test_special_values_over_several_chunks() -> None:
    values = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    values[::97], values[1::97], values[2::97], values[3::97] = np.nan, -0.0, np.inf, 1e-42
    values.view(np.uint32)[4::97] = 0x7FC12345  # a not-a-number with a payload
    for dtype, data in (("F32", values), ("F64", values.astype(np.float64)), ("F16", values.astype(np.float16))):
        assert size_after(tensor(dtype, data)) < data.nbytes


def test_upcast_floats_profit() -> None:
    values = (np.random.default_rng(1).standard_normal(300_000) * 0.02).astype(np.float32)
    bits = values.view(np.uint32)
    bf16 = tensor("BF16", (bits >> 16).astype(np.uint16))
    assert size_after(tensor("F32", bits & 0xFFFF0000)) < 1.01 * size_after(bf16)
    half = values.astype(np.float16)
    assert size_after(tensor("F32", half.astype(np.float32))) < 1.06 * half.nbytes


def test_integers_and_constants_profit() -> None:
    rng = np.random.default_rng(2)
    assert size_after(tensor("I64", rng.integers(0, 100, 50_000))) < 50_000
    assert size_after(tensor("I32", np.arange(50_000, dtype=np.int32))) < 120_000
    assert size_after(tensor("F32", np.zeros(1_000_000, np.float32))) < 200


def test_damage_is_an_error_or_another_tensor() -> None:
    component = lossless()
    original = tensor("BF16", np.random.default_rng(3).integers(15000, 15600, 3000).astype(np.uint16))
    payload = np.asarray(component.encode(original)).tobytes()
    for cut in range(0, len(payload), 7):
        with pytest.raises(CorruptData):
            component.decode(memoryview(payload[:cut]), original.info)
    for at in range(0, len(payload), 3):
        bad = bytearray(payload)
        bad[at] ^= 1 << at % 8
        try:
            assert not np.array_equal(component.decode(memoryview(bytes(bad)), original.info), original.data), at
        except CorruptData:
            continue


def test_wrong_level() -> None:
    with pytest.raises(CorecompressError, match="level is 7; it takes 1 or 2"):
        lossless("lossless(level=7)")
