"""Files: dtypes, shards, tied tensors, what goes along, what the hub gives, memory."""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import corecompress
from corecompress.checkpoint import open_checkpoint
from corecompress.components import BITS, TensorInfo
from corecompress.safetensors_file import header_bytes, read_header

shapes = st.lists(st.integers(0, 7), max_size=4).map(tuple)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(BITS)), shapes), min_size=1, max_size=6))
def test_any_dtypes_and_shapes(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[str, tuple[int, ...]]]
) -> None:
    kinds = [(dtype, shape) for dtype, shape in kinds if int(np.prod(shape)) * BITS[dtype] % 8 == 0]
    if not kinds:
        return
    folder = tmp_path_factory.mktemp("any")
    tensors = checkpoints.weights(*((f"t{n}", dtype, shape) for n, (dtype, shape) in enumerate(kinds)))
    source = checkpoints.write_checkpoint(folder / "source", [tensors])
    corecompress.compress(source, folder / "out")
    corecompress.decompress(folder / "out", folder / "dense")
    assert (folder / "dense" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def test_every_dtype_at_once(tmp_path: Path, cli: Cli) -> None:
    entries = [(f"{dtype}.{n}", dtype, shape) for dtype in BITS for n, shape in enumerate([(4, 6), (8,), (0, 5)])]
    entries += [(f"{dtype}.scalar", dtype, ()) for dtype in BITS if BITS[dtype] >= 8]
    source = checkpoints.write_checkpoint(tmp_path / "source", [checkpoints.weights(*entries)])
    assert cli("compress", source, "-o", tmp_path / "out", "-q").returncode == 0
    assert cli("decompress", tmp_path / "out", "-o", tmp_path / "dense", "-q").returncode == 0
    assert subprocess.run(["diff", "-r", source, tmp_path / "dense"], check=False).returncode == 0


def test_a_file_written_by_the_library_is_read_the_same(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6.0).reshape(2, 3), "a": np.zeros((0, 4), np.float16), "c": np.array(3, np.int64)}
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt", "note": "ü"})
    header = read_header(tmp_path / "x.safetensors")
    assert header.metadata == {"format": "pt", "note": "ü"}
    assert {s.info.name: s.info.shape for s in header.tensors} == {"b": (2, 3), "a": (0, 4), "c": ()}
    start = (tmp_path / "x.safetensors").read_bytes()[: header.data_start]
    assert header_bytes([s.info for s in header.tensors], header.metadata) == start


@settings(max_examples=200)
@given(st.binary(max_size=80) | st.text(max_size=60).map(lambda t: len(t.encode()).to_bytes(8, "little") + t.encode()))
def test_a_header_from_a_stranger(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "stranger.safetensors"
    path.write_bytes(data)
    try:
        read_header(path)
    except corecompress.CorecompressError as problem:
        assert "stranger.safetensors" in str(problem)


def test_shards_in_and_out(tmp_path: Path, cli: Cli) -> None:
    parts = [
        checkpoints.weights(*((f"l{n}.{k}.weight", "BF16", (60, 50)) for k in range(4)), seed=4 * n) for n in range(3)
    ]
    source = checkpoints.write_checkpoint(tmp_path / "source", parts)
    assert cli("compress", source, "-o", tmp_path / "out", "--shard-size", "20kB", "-q").returncode == 0
    index = json.loads((tmp_path / "out" / "corecompress.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert all((tmp_path / "out" / name).stat().st_size < 21_500 for name in index["weight_map"].values())
    assert cli("decompress", tmp_path / "out", "-o", tmp_path / "dense", "-q").returncode == 0
    assert subprocess.run(["diff", "-r", source, tmp_path / "dense"], check=False).returncode == 0


def test_tied_tensors_are_stored_once(tmp_path: Path) -> None:
    tensors = checkpoints.weights(("embed.weight", "BF16", (300, 64)), ("layer.weight", "BF16", (64, 64)))
    tensors["lm_head.weight"] = tensors["embed.weight"]
    source = checkpoints.write_checkpoint(tmp_path / "source", [tensors])
    summary = corecompress.compress(source, tmp_path / "out")
    rows = {row.name: row for row in summary.tensors}
    assert rows["lm_head.weight"].same_as == "embed.weight"
    assert rows["lm_head.weight"].bytes == 0
    assert summary.parameters == 300 * 64 + 64 * 64
    corecompress.decompress(tmp_path / "out", tmp_path / "dense")
    assert (tmp_path / "dense" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def test_twins_are_told_from_those_that_only_begin_alike(tmp_path: Path) -> None:
    """Equal bytes of another dtype or shape, and tensors that differ in their last element, are stored each."""
    tensors = checkpoints.weights(("a.weight", "F32", (80, 64)), ("other.weight", "F32", (80, 64)))
    dtype, shape, data = tensors["a.weight"]
    tensors["b.weight"] = (dtype, shape, data)
    tensors["c.weight"] = (dtype, shape, np.append(data[:-1], data[-1:] ^ 1))
    tensors["d.weight"] = (dtype, (64, 80), data)
    tensors["e.weight"] = ("I32", shape, data)
    tensors["f.weight"] = (dtype, (0, 64), data[:0])
    tensors["g.weight"] = (dtype, (0, 64), data[:0])
    source = checkpoints.write_checkpoint(tmp_path / "source", [tensors])
    planned = corecompress.plan(source, "lossless")
    done = corecompress.compress(source, tmp_path / "out")
    for rows in (planned.tensors, done.tensors):
        assert {row.name: row.same_as for row in rows if row.same_as} == {"b.weight": "a.weight"}
    corecompress.decompress(tmp_path / "out", tmp_path / "dense")
    assert (tmp_path / "dense" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def test_what_goes_along_and_what_stays(small: Path, tmp_path: Path) -> None:
    (small / "1_Pooling").mkdir()
    (small / "1_Pooling" / "config.json").write_text("{}")
    (small / "2_Dense").mkdir()
    (small / "2_Dense" / "pytorch_model.bin").write_bytes(b"part of the model")
    (small / "onnx").mkdir()
    (small / "onnx" / "model.onnx").write_bytes(b"copy")
    for name in ("pytorch_model.bin", "tf_model.h5", "model.fp16.safetensors", ".git/config"):
        (small / name).parent.mkdir(exist_ok=True)
        (small / name).write_bytes(b"copy")
    (small / "README.md").write_text("the original card")
    checkpoint = open_checkpoint(small)
    assert set(checkpoint.left) == {"pytorch_model.bin", "tf_model.h5", "model.fp16.safetensors", "onnx/model.onnx"}
    corecompress.compress(small, tmp_path / "out")
    out = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert {"1_Pooling/config.json", "2_Dense/pytorch_model.bin", "tokenizer.json", "README.original.md"} <= out
    assert not out & {"pytorch_model.bin", "onnx/model.onnx", ".git/config", "model.safetensors"}
    assert "from_pretrained" in (tmp_path / "out" / "README.md").read_text()
    corecompress.decompress(tmp_path / "out", tmp_path / "dense")
    assert (tmp_path / "dense" / "README.md").read_text() == "the original card"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as a snapshot needs."""

    folder: Path
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_GET(self, body: bool = True) -> None:
        files = sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            entries = [
                {"type": "file", "path": n, "rfilename": n, "size": (self.folder / n).stat().st_size, "oid": "0"}
                for n in files
            ]
            info = {
                "id": "org/model",
                "modelId": "org/model",
                "sha": self.commit,
                "siblings": entries,
                "tags": [],
                "downloads": 0,
            }
            answer = json.dumps(entries if "tree" in parts else info).encode()
            headers = {"Content-Type": "application/json"}
        elif "resolve" in parts and "/".join(parts[4:]) in files:
            answer = (self.folder / "/".join(parts[4:])).read_bytes()
            headers = {"ETag": f'"{abs(hash(answer))}"', "X-Repo-Commit": self.commit}
        else:
            return self.send_error(404)
        self.send_response(200)
        for key, value in (headers | {"Content-Length": str(len(answer))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(answer)

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(small: Path, tmp_path: Path):
    """A hub on this machine that has org/model; the environment that makes huggingface_hub use it."""
    Hub.folder = small
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    yield {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    server.shutdown()


def test_hub_id_with_its_revision_in_the_manifest(hub: dict[str, str], small: Path, cli: Cli, tmp_path: Path) -> None:
    (small / "pytorch_model.bin").write_bytes(b"a copy that nobody needs")
    done = cli("compress", "org/model", "-o", tmp_path / "out", "-q", **hub)
    assert done.returncode == 0, done.stderr
    source = json.loads((tmp_path / "out" / "corecompress.json").read_text())["source"]
    assert (source["name"], source["revision"]) == ("org/model", Hub.commit)
    assert not list((tmp_path / "hf").rglob("pytorch_model.bin"))
    assert cli("verify", tmp_path / "out", "--against", small, "-q").returncode == 0


def test_manifest_says_everything(small: Path, tmp_path: Path) -> None:
    corecompress.compress(small, tmp_path / "out", recipe="lossless(level=1)", seed=5)
    manifest = json.loads((tmp_path / "out" / "corecompress.json").read_text())
    assert manifest["format"] == 1
    assert (manifest["recipe"], manifest["seed"]) == ("lossless(level=1)", 5)
    component = manifest["components"][0]
    assert (component["distribution"], component["name"], component["options"]) == (
        "corecompress-lossless",
        "lossless",
        {"level": 1},
    )
    sha256 = subprocess.run(
        ["sha256sum", small / "model.safetensors"], capture_output=True, text=True, check=True
    ).stdout
    assert manifest["source"]["shards"][0]["sha256"] == sha256.split()[0]
    record = manifest["tensors"][0]
    assert {"name", "dtype", "shape", "component", "bytes", "payload_sha256", "xxh3_128"} <= record.keys()


def test_a_newer_format_is_refused(small: Path, refused, tmp_path: Path) -> None:
    corecompress.compress(small, tmp_path / "out")
    path = tmp_path / "out" / "corecompress.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    assert "pip install --upgrade corecompress" in refused("inspect", tmp_path / "out")


def test_empty_tensor_info() -> None:
    assert TensorInfo("x", "F32", (0, 3)).nbytes == 0
    assert TensorInfo("x", "F32", ()).nbytes == 4
