"""What bad input gets: one line, exit code 2, nothing under the target's name, the source untouched."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
from conftest import Cli

import corecompress

Refused = Callable[..., str]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def nothing_at(out: Path) -> bool:
    return not any(path.name.startswith(out.name) for path in out.parent.iterdir())


def test_missing_folder(refused: Refused, out: Path) -> None:
    assert "./nowhere: no such folder" in refused("compress", "./nowhere", "-o", out)
    assert nothing_at(out)


def test_file_instead_of_folder(refused: Refused, small: Path, out: Path) -> None:
    assert "give the folder" in refused("compress", small / "model.safetensors", "-o", out)


def test_no_config(refused: Refused, small: Path, out: Path) -> None:
    (small / "config.json").unlink()
    assert "no config.json" in refused("compress", small, "-o", out)
    assert nothing_at(out)


def test_config_that_is_no_json(refused: Refused, small: Path, out: Path) -> None:
    (small / "config.json").write_text("{")
    assert "config.json" in refused("compress", small, "-o", out)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("losless", "did you mean 'lossless'?"),
        ("lossless(levle=1)", "did you mean 'level'?"),
        ("lossless(level=high)", "option 'level' of lossless is high; it takes a whole number"),
        ("lossless(level=1.5)", "it takes a whole number"),
        ("lossless(level=9)", "level is 9; it takes 1 or 2"),
        ("lossless(level=1", "was expected at its end"),
        ("lossless |", "a component's name was expected at its end"),
        ("", "a component's name"),
        ("lossless | lossless", "takes no tensor"),
        ("no-such.toml", "no such file"),
    ],
)
def test_recipes(refused: Refused, small: Path, out: Path, recipe: str, expected: str) -> None:
    assert expected in refused("compress", small, "-o", out, "-r", recipe)
    assert nothing_at(out)


@pytest.mark.parametrize("cut", [4, 100, 5000, -1])
def test_truncated(refused: Refused, small: Path, out: Path, cut: int) -> None:
    path = small / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    assert "model.safetensors" in refused("compress", small, "-o", out)
    assert nothing_at(out)


def edit_header(path: Path, change: Callable[[dict], None]) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode().ljust(length)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def test_overlapping_tensors(refused: Refused, small: Path, out: Path) -> None:
    def overlap(header: dict) -> None:
        header["b.weight"]["data_offsets"] = [i - 400 for i in header["b.weight"]["data_offsets"]]

    edit_header(small / "model.safetensors", overlap)
    assert "overlaps" in refused("compress", small, "-o", out)


def test_wrong_dtype_and_shape(refused: Refused, small: Path, out: Path) -> None:
    edit_header(small / "model.safetensors", lambda header: header["b.weight"].update(shape=[256, 255]))
    assert "'b.weight'" in refused("compress", small, "-o", out)
    edit_header(small / "model.safetensors", lambda header: header["b.weight"].update(dtype="F99"))
    assert "F99" in refused("compress", small, "-o", out)


def sharded(folder: Path) -> Path:
    parts = [checkpoints.weights((f"layer.{n}.weight", "F32", (50, 50))) for n in range(3)]
    return checkpoints.write_checkpoint(folder, parts)


def test_index_names_a_missing_shard(refused: Refused, tmp_path: Path, out: Path) -> None:
    folder = sharded(tmp_path / "sharded")
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors, which is missing" in refused("compress", folder, "-o", out)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/model.safetensors"])
def test_index_leads_outside(refused: Refused, tmp_path: Path, out: Path, name: str) -> None:
    folder = sharded(tmp_path / "sharded")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["layer.0.weight"] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "no safetensors file of this folder" in refused("compress", folder, "-o", out)


def test_pickle_only(refused: Refused, small: Path, out: Path) -> None:
    (small / "model.safetensors").rename(small / "pytorch_model.bin")
    line = refused("compress", small, "-o", out)
    assert "pytorch_model.bin" in line
    assert "save_pretrained" in line


def test_the_command_that_converts_a_pickle_keeps_the_head(refused: Refused, tmp_path: Path, out: Path) -> None:
    import torch
    import transformers as tf

    size = {
        "vocab_size": 30,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = tf.BertForMaskedLM(tf.BertConfig(**size))
    folder = tmp_path / "pickled"
    model.config.architectures = ["BertForMaskedLM"]
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    command = refused("compress", folder, "-o", out).rpartition('python -c "')[2].rpartition('"')[0]
    subprocess.run([sys.executable, "-c", command], check=True, capture_output=True)
    names = {row.name for row in corecompress.inspect(tmp_path / "pickled-safetensors").tensors}
    assert "cls.predictions.transform.dense.weight" in names


def test_compressed_already(refused: Refused, small: Path, out: Path, tmp_path: Path) -> None:
    corecompress.compress(small, tmp_path / "once")
    assert "compressed already" in refused("compress", tmp_path / "once", "-o", out)


def test_quantized_by_another(refused: Refused, small: Path, out: Path) -> None:
    (small / "config.json").write_text('{"model_type": "bert", "quantization_config": {"quant_method": "gptq"}}')
    assert "quantized by gptq" in refused("compress", small, "-o", out)


def test_existing_target_stays(refused: Refused, small: Path, out: Path, cli: Cli) -> None:
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    assert "exists already" in refused("compress", small, "-o", out)
    assert "choose another -o, or add --force" in refused("compress", small, "-o", out, "--resume")
    assert "holds no checkpoint" in refused("compress", small, "-o", out, "--force")
    assert (out / "mine.txt").read_text() == "precious"
    (out / "config.json").write_text("{}")
    assert cli("compress", small, "-o", out, "--force", "-q").returncode == 0
    assert not (out / "mine.txt").exists()
    assert "whole, so there is nothing to go on with" in refused("compress", small, "-o", out, "--resume")


def test_target_that_holds_the_source(refused: Refused, small: Path) -> None:
    assert "holds the source" in refused("compress", small, "-o", small, "--force")
    assert (small / "model.safetensors").exists()


def test_read_only_target(refused: Refused, small: Path) -> None:
    assert "can't be written" in refused("compress", small, "-o", "/proc/corecompress-test/out")
    assert "can't be written" in refused("compress", small, "-o", "/proc/corecompress-test")


def test_second_process_on_the_same_target(refused: Refused, small: Path, out: Path) -> None:
    from filelock import FileLock

    with FileLock(out.with_name(out.name + ".lock")):
        assert "another process" in refused("compress", small, "-o", out)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_full_disk(refused: Refused, cli: Cli, tmp_path: Path) -> None:
    source = checkpoints.write_checkpoint(
        tmp_path / "source", [checkpoints.weights(*((f"w{n}", "F32", (500, 500)) for n in range(8)))]
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False).returncode:
        pytest.fail("a tmpfs can't be mounted here, although this is root")
    try:
        line = refused("compress", source, "-o", disk / "out")
        assert "No space left" in line
        assert "--resume" in line
        assert not (disk / "out").exists()
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        assert cli("compress", source, "-o", disk / "out", "--resume", "-q").returncode == 0
        corecompress.compress(source, tmp_path / "straight")
        assert subprocess.run(["diff", "-r", disk / "out", tmp_path / "straight"], check=False).returncode == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_hub_without_network(refused: Refused, out: Path, tmp_path: Path) -> None:
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    line = refused("compress", "some-org/some-model", "-o", out, **settings)
    assert "some-org/some-model" in line
    assert "network" in line
    assert nothing_at(out)


def test_bad_usage(refused: Refused, small: Path, out: Path) -> None:
    assert "Missing option '--out'" in refused("compress", small)
    assert "Did you mean 'compress'?" in refused("compres", small)
    assert "is no size" in refused("compress", small, "-o", out, "--max-memory", "lots")
    assert "no corecompress.json" in refused("verify", small)
    assert "no corecompress.json" in refused("decompress", small, "-o", out)
    assert "alone needs" in refused("compress", small, "-o", out, "--max-memory", "1MB")


@pytest.mark.parametrize("verb", ["compress", "plan", "fit", "evaluate", "compare"])
def test_a_seed_below_zero(refused: Refused, verb: str) -> None:
    assert "'--seed': -1 is not in the range" in refused(verb, "--seed", -1)


FLIP_AND_LOAD = """
import sys
from pathlib import Path
import transformers
transformers.logging.set_verbosity_error()
folder = Path(sys.argv[1])
unseen = []
for line in sys.stdin:
    name, at, bit = line.split()
    path = folder / name
    good = path.read_bytes()
    bad = bytearray(good)
    bad[int(at)] ^= 1 << int(bit)
    path.write_bytes(bad)
    try:
        transformers.AutoModel.from_pretrained(folder)
        unseen.append(line)
    except Exception as problem:
        pass
    path.write_bytes(good)
print(len(unseen), unseen)
"""


def test_flipped_bits_are_found(minilm: Path, cli: Cli, tmp_path: Path) -> None:
    """In every file: by verify, and (but for the card, which does not touch the model) by loading."""
    tiny = tmp_path / "tiny"
    code = (
        "import sys, transformers as t; t.BertModel(t.BertConfig(hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=2, intermediate_size=64, vocab_size=500)).save_pretrained(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, tiny], check=True, capture_output=True)
    for name in ("tokenizer.json", "1_Pooling/config.json"):
        (tiny / name).parent.mkdir(exist_ok=True)
        shutil.copy(minilm / name, tiny / name)
    out = tmp_path / "out"
    assert cli("compress", tiny, "-o", out, "-q").returncode == 0
    rng = random.Random(0)
    flips = []
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        size = path.stat().st_size
        places = {0, size - 1, *(rng.randrange(size) for _ in range(6))}
        flips += [(path.relative_to(out).as_posix(), at, rng.randrange(8)) for at in sorted(places)]
    text = "\n".join(f"{name} {at} {bit}" for name, at, bit in flips if name != "README.md")
    done = subprocess.run(
        [sys.executable, "-c", FLIP_AND_LOAD, out], input=text, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("0 "), done.stdout
    for name, at, bit in flips:
        good = (out / name).read_bytes()
        bad = bytearray(good)
        bad[at] ^= 1 << bit
        (out / name).write_bytes(bad)
        verified = corecompress.verify(out)
        assert not verified.ok, (name, at, bit)
        (out / name).write_bytes(good)
    assert corecompress.verify(out).ok
    bad = bytearray((out / "corecompress.safetensors").read_bytes())
    bad[-2000] ^= 1
    (out / "corecompress.safetensors").write_bytes(bad)
    done = cli("verify", out)
    assert done.returncode == 1
    assert "tensor '" in done.stdout
