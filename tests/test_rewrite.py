"""What model compressors are given: a checkpoint written again, and bytes as float32."""

from __future__ import annotations

import json
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from corecompress import CorecompressError, Tensor, TensorInfo
from corecompress.checkpoint import open_checkpoint
from corecompress.floats import FLOATS, from_float32, to_float32
from corecompress.progress import Silent
from corecompress.rewrite import rewrite_checkpoint


@given(st.sampled_from(FLOATS), hnp.arrays(np.uint16, st.integers(0, 40), elements=st.integers(0, 65535)))
def test_every_value_of_every_dtype_comes_back(dtype: str, bits: np.ndarray) -> None:
    data = (bits.astype(np.uint32) << 16 if dtype == "F32" else bits).view(np.uint8)
    values = to_float32(data, dtype)
    back = to_float32(from_float32(values, dtype), dtype)
    assert np.array_equal(values, back, equal_nan=True)


def test_rounding_is_to_nearest_even_and_beyond_the_range_to_infinity() -> None:
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -0.0, 3.4e38, np.nan], np.float32)
    back = to_float32(from_float32(values, "BF16"), "BF16")
    assert back[:4].tolist() == [1.0, 1 + 2**-6, 1 + 2**-7, -0.0]
    assert np.isinf(back[4])
    assert np.isnan(back[5])
    assert np.isinf(to_float32(from_float32(np.float32([1e6]), "F16"), "F16")).all()


def test_shards_metadata_and_other_files_stay(tmp_path: Path) -> None:
    parts = [checkpoints.weights((f"{n}.weight", "BF16", (20, 30)), (f"{n}.ids", "I64", (5,)), seed=n) for n in (1, 2)]
    source = checkpoints.write_checkpoint(tmp_path / "source", parts)
    (source / "tokenizer").mkdir()
    (source / "tokenizer" / "vocab.txt").write_text("a b")
    out = tmp_path / "out"
    out.mkdir()

    def negate(tensor: Tensor) -> Tensor:
        if tensor.info.dtype != "BF16":
            return tensor
        return Tensor(tensor.info, from_float32(-to_float32(tensor.data, "BF16"), "BF16"))

    rewrite_checkpoint(open_checkpoint(source), out, negate, Silent())
    before, after = open_checkpoint(source), open_checkpoint(out)
    assert after.tensors == before.tensors
    assert [shard.path.name for shard in after.shards] == [shard.path.name for shard in before.shards]
    assert (out / "tokenizer" / "vocab.txt").read_text() == "a b"
    assert json.loads((out / "config.json").read_text()) == before.config
    assert after.index_metadata == before.index_metadata
    assert np.array_equal(before.read("1.ids").data, after.read("1.ids").data)
    values = [to_float32(c.read("2.weight").data, "BF16") for c in (before, after)]
    assert np.array_equal(values[0], -values[1])


def test_another_shape_is_refused(small: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    def halve(tensor: Tensor) -> Tensor:
        half = tensor.data[: tensor.data.size // 2]
        return Tensor(TensorInfo(tensor.info.name, "U8", (half.size,)), half)

    with pytest.raises(CorecompressError, match="dtype and shape"):
        rewrite_checkpoint(open_checkpoint(small), tmp_path / "out", halve, Silent())
