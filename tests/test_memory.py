"""Peak resident memory stays under --max-memory whatever the size of the checkpoint, measured from outside."""

import json
import subprocess
import sys
from pathlib import Path

import checkpoints
import numpy as np
import pytest

from corecompress.components import TensorInfo
from corecompress.safetensors_file import header_bytes

PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(*arguments: object) -> int:
    """Bytes. From a small process: a child begins with the memory of the one that forked it."""
    command = [str(Path(sys.executable).with_name("corecompress")), *map(str, arguments)]
    done = subprocess.run([sys.executable, "-c", PEAK, *command], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024


def test_memory_has_a_ceiling(tmp_path: Path) -> None:
    parts = []
    for n in range(4):
        entries = [(f"l{n}.{k}.weight", "I16", (4000, 2500)) for k in range(10)]
        parts.append(checkpoints.weights(*entries, seed=10 * n))
    source = checkpoints.write_checkpoint(tmp_path / "source", parts)
    del parts
    limit = 600_000_000
    assert sum(p.stat().st_size for p in source.iterdir()) > 1.3 * limit
    assert peak("compress", source, "-o", tmp_path / "out", "--max-memory", limit, "-q") < limit
    assert peak("decompress", tmp_path / "out", "-o", tmp_path / "dense", "--max-memory", limit, "-q") < limit


@pytest.mark.slow
def test_8_gb_under_1500_mb(tmp_path: Path) -> None:
    """59 bfloat16 tensors of 134 MB in 8 shards; needs 21 GB of disk."""
    source, out, dense = tmp_path / "source", tmp_path / "out", tmp_path / "dense"
    source.mkdir()
    (source / "config.json").write_text('{\n  "model_type": "llama"\n}\n')
    rng = np.random.default_rng(0)
    weights = ((rng.standard_normal(1 << 26).astype(np.float32) * 0.02).view(np.uint32) >> 16).astype(np.uint16)
    weight_map = {}
    for shard in range(8):
        names = [f"layers.{n:02d}.weight" for n in range(59) if n // 8 == shard]
        path = source / f"model-{shard + 1:05d}-of-00008.safetensors"
        with open(path, "wb") as file:
            file.write(header_bytes([TensorInfo(name, "BF16", (8192, 8192)) for name in names], {"format": "pt"}))
            for name in names:
                file.write(np.roll(weights, int(rng.integers(1 << 26))).tobytes())
                weight_map[name] = path.name
    index = {"metadata": {"total_size": 59 * weights.nbytes}, "weight_map": weight_map}
    (source / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    compressing = peak("compress", source, "-o", out, "--max-memory", "1.5GB", "-q")
    decompressing = peak("decompress", out, "-o", dense, "--max-memory", "1.5GB", "-q")
    print(f"peak of compress {compressing / 1e6:.0f} MB, of decompress {decompressing / 1e6:.0f} MB")
    assert max(compressing, decompressing) < 1_500_000_000
    assert subprocess.run(["diff", "-r", source, dense], check=False).returncode == 0
