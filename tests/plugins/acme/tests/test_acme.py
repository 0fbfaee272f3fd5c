"""acme-compress, installed: the conformance kit, and what is particular to it."""

import numpy as np
import pytest

from corecompress import Tensor, TensorInfo
from corecompress.plugins import registry
from corecompress.recipe import build, parse_spec
from corecompress.testing import conformance


@pytest.mark.parametrize("check", conformance("acme-compress"), ids=str)
def test_conformance(check):
    check()


def pruned(recipe):
    weights = np.random.default_rng(0).standard_normal((32, 64)).astype("<f4")
    tensor = Tensor(TensorInfo("w", "F32", weights.shape), weights.view(np.uint8).reshape(-1))
    made = build(registry(), "compressor", parse_spec(recipe)).prune(tensor)
    return weights, made.data.view("<f4").reshape(weights.shape)


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.9])
def test_the_smallest_weights_go(sparsity):
    before, after = pruned(f"acme-prune(sparsity={sparsity})")
    assert (after == 0).mean() == pytest.approx(sparsity, abs=1e-3)
    assert np.abs(before[after == 0]).max() <= np.abs(before[after != 0]).min()
    assert (after[after != 0] == before[after != 0]).all()


def test_two_of_every_four():
    before, after = pruned("acme-prune(pattern=2:4)")
    assert ((after.reshape(-1, 4) == 0).sum(1) == 2).all()
    fours = np.abs(before).reshape(-1, 4)
    assert (
        np.where(after.reshape(-1, 4) == 0, fours, 0).max(1) <= np.where(after.reshape(-1, 4) == 0, 9, fours).min(1)
    ).all()
