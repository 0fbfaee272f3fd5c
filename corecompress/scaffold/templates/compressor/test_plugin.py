"""What is particular to `$distribution`."""

import numpy as np
import pytest

import corecompress
from corecompress import CorecompressError, Tensor, TensorInfo
from corecompress.plugins import registry
from corecompress.recipe import build, parse_spec
from corecompress.testing.samples import MODEL


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_no_weight_is_off_by_more_than_half_a_step(bits):
    component = build(registry(), "compressor", parse_spec(f"$distribution(bits={bits}, group=64)"))
    weights = np.random.default_rng(0).standard_normal((40, 64)).astype("<f4")
    tensor = Tensor(TensorInfo("w", "F32", weights.shape), weights.view(np.uint8).reshape(-1))
    back = component.decode(memoryview(component.encode(tensor)), tensor.info).view("<f4").reshape(40, 64)
    step = np.abs(weights).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
    assert (np.abs(back - weights) <= 0.5001 * step).all()


def test_more_bits_take_more_bytes(tmp_path):
    sizes = []
    for bits in (2, 4, 8):
        corecompress.compress(MODEL, tmp_path / str(bits), f"$distribution(bits={bits})")
        sizes.append(corecompress.inspect(tmp_path / str(bits)).weight_bytes)
    assert sizes == sorted(sizes)


def test_wrong_options_are_refused():
    with pytest.raises(CorecompressError, match="bits is 9; it takes 2 to 8"):
        build(registry(), "compressor", parse_spec("$distribution(bits=9)"))
