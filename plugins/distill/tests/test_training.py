"""Training through the public doors: it learns, stops, resumes to the same bytes, keeps the teacher's outputs, and
says in time what won't work."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from families import save

import corecompress
from corecompress.errors import CorecompressError

COMMAND = Path(sys.executable).with_name("corecompress")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


class Listener:
    """A Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, what: str, total: int, unit: str = "bytes") -> None:
        self.lines.append(what)

    def describe(self, what: str) -> None:
        self.lines.append(what)

    def advance(self, amount: int) -> None:
        pass

    def say(self, line: str) -> None:
        self.lines.append(line)

    note = say


def distil(source: Path, options: str, data: str | None, out: Path, **more: Any) -> dict[str, Any]:
    """Run it; the log of the training."""
    corecompress.compress(source, out, f"distill({options})", data=data, evaluated=False, **more)
    return json.loads((out / "distillation.json").read_text())


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("bert") / "bert", "bert")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("llama") / "llama", "llama")


def test_it_learns_and_leaves_a_whole_folder(bert: Path, text: str, tmp_path: Path) -> None:
    listener, out = Listener(), tmp_path / "out"
    pooling = bert.parent / "bert" / "1_Pooling"
    pooling.mkdir(exist_ok=True)
    (pooling / "config.json").write_text('{"word_embedding_dimension": 32, "pooling_mode_cls_token": true}')
    (bert / "modules.json").write_text(
        '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]'
    )
    summary = corecompress.compress(
        bert, out, "distill(layers=2, hidden=16, ffn=24, steps=60)", data=text, evaluated=False, progress=listener
    )
    log = json.loads((out / "distillation.json").read_text())
    assert log["losses"][-1] < 0.7 * log["losses"][0]
    assert log["evaluations"][-1][1] < log["evaluations"][0][1]
    assert {"README.md", "distillation.png", "tokenizer.json", "modules.json"} <= {path.name for path in out.iterdir()}
    assert json.loads((out / "1_Pooling" / "config.json").read_text())["word_embedding_dimension"] == 16
    assert "seed 0" in (out / "README.md").read_text()
    assert summary.parameters < summary.source_parameters
    told = next(line for line in listener.lines if line.startswith("student:"))
    assert f"{summary.parameters:,} of" in told
    assert "60 updates" in told
    assert any("loss" in line and "evaluation split" in line for line in listener.lines)
    assert (out / "distillation.png").read_bytes().startswith(b"\x89PNG")


def test_the_trained_student_is_nearer_than_the_cut(llama: Path, text: str, tmp_path: Path) -> None:
    still = "steps=1, learning_rate=1e-30, weight_decay=0.0"
    cut = distil(llama, f"layers=2, {still}", text, tmp_path / "cut")
    trained = distil(llama, "layers=2, steps=60, learning_rate=0.01", text, tmp_path / "trained")
    random = distil(llama, f"layers=2, start=random, {still}", text, tmp_path / "random")
    kl = [log["evaluations"][-1][1] for log in (trained, cut, random)]
    assert kl[0] < 0.7 * kl[1]
    assert kl[0] < 0.7 * kl[2]


def test_it_stops_at_the_target_and_when_nothing_improves(bert: Path, text: str, tmp_path: Path) -> None:
    log = distil(bert, "layers=2, steps=40, evaluate_every=4", text, tmp_path / "a", target_loss=10.0)
    assert (log["step"], "target" in log["stopped"]) == (4, True)
    still = "learning_rate=1e-30, weight_decay=0.0"
    log = distil(bert, f"layers=2, steps=40, evaluate_every=4, patience=2, {still}", text, tmp_path / "b")
    assert log["step"] < 40
    assert "no improvement" in log["stopped"]


def test_the_best_step_is_the_one_that_is_kept(bert: Path, text: str, tmp_path: Path) -> None:
    """At a rate that climbs until it ruins the student, an early look is the best."""
    listener = Listener()
    options = "layers=2, steps=12, evaluate_every=2, patience=2, learning_rate=1.0, warmup=1.0, clip=1e9"
    log = distil(bert, options, text, tmp_path / "out", progress=listener)
    best = min(log["evaluations"], key=lambda found: found[1])[0]
    assert best < log["step"]
    assert any(f"the best step on the evaluation split was {best}" in line for line in listener.lines)


def test_a_loss_that_is_no_number_ends_it(text: str, tmp_path: Path) -> None:
    broken = save(tmp_path / "broken", "bert", lambda model: model.encoder.layer[0].output.dense.bias.fill_(torch.nan))
    with pytest.raises(CorecompressError, match=r"loss of update 1 is nan.*learning_rate"):
        distil(broken, "layers=2, steps=3", text, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_accumulation_changes_nothing_but_memory(bert: Path, text: str, tmp_path: Path) -> None:
    asked = "layers=2, steps=4, batch=8, precision=float32, objectives=[hidden, similarity(weight=0.001)]"
    whole, parts = (distil(bert, f"{asked}, accumulate={n}", text, tmp_path / str(n)) for n in (1, 4))
    assert whole["losses"][0] == pytest.approx(parts["losses"][0], rel=0.2)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [str(COMMAND), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_to_the_same_bytes(how: int, bert: Path, text: str, tmp_path: Path) -> None:
    recipe, straight, out = "distill(layers=2, steps=60, evaluate_every=6)", tmp_path / "straight", tmp_path / "out"
    corecompress.compress(bert, straight, recipe, data=text, evaluated=False, jobs=1)
    process = start("compress", bert, "-o", out, "-r", recipe, "--data", text, "--no-evaluate", "-j", 1)
    checkpoints = tmp_path / "out.partial" / "stages" / "0-scratch" / "checkpoints"
    while not list(checkpoints.glob("step-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(how)
    _, said = process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in said
    assert not out.exists()
    if how == signal.SIGINT:
        assert "is saved: go on with --resume" in said
    with pytest.raises(CorecompressError, match="add --resume"):
        corecompress.compress(bert, out, recipe, data=text, evaluated=False, jobs=1)
    with pytest.raises(CorecompressError, match="another recipe"):
        corecompress.compress(bert, out, "distill(layers=3)", data=text, evaluated=False, resume=True)
    corecompress.compress(bert, out, recipe, data=text, evaluated=False, jobs=1, resume=True)
    assert weights(out) == weights(straight)
    assert not list(tmp_path.glob("out.*"))


def test_a_full_disk_at_a_checkpoint_leaves_the_last_one(
    bert: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import Accelerator

    recipe, out, straight = "distill(layers=2, steps=6, evaluate_every=2)", tmp_path / "out", tmp_path / "straight"
    corecompress.compress(bert, straight, recipe, data=text, evaluated=False)
    whole, calls = Accelerator.save_state, []

    def full(self: Any, folder: str, **more: Any) -> Any:
        calls.append(folder)
        if len(calls) == 3:  # the trial's, the first, and now
            Path(folder).mkdir()
            (Path(folder) / "half").write_bytes(b"written")
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(self, folder, **more)

    monkeypatch.setattr(Accelerator, "save_state", full)
    with pytest.raises(CorecompressError, match=r"No space left.*step-0000002, stays there.*--resume"):
        corecompress.compress(bert, out, recipe, data=text, evaluated=False)
    assert not out.exists()
    monkeypatch.undo()
    corecompress.compress(bert, out, recipe, data=text, evaluated=False, resume=True)
    assert weights(out) == weights(straight)


def test_kept_outputs_of_the_teacher_are_found_again(
    bert: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corecompress_distill import teacher

    asked, computed = "layers=2, epochs=3.0, batch=16, precision=float32, objectives=[embedding]", []
    live = distil(bert, asked, text, tmp_path / "live")
    reader = teacher.Teacher._keep

    def count(self: Any, inputs: Any, outputs: Any) -> None:
        computed.append(inputs.samples)
        reader(self, inputs, outputs)

    monkeypatch.setattr(teacher.Teacher, "_keep", count)
    cache = tmp_path / "cache"
    kept = distil(bert, f"{asked}, teacher_cache=0.1", text, tmp_path / "kept", cache=cache)
    assert kept["losses"] == pytest.approx(live["losses"], abs=1e-4)
    samples = kept["samples an epoch"]
    assert 0 < sum(computed) < 2 * samples  # one epoch, and what the evaluation split and the trial add
    computed.clear()
    distil(bert, f"{asked}, teacher_cache=0.1", text, tmp_path / "again", cache=cache)
    assert computed == []
    assert list(cache.rglob("outputs-*.safetensors"))


def test_the_kept_outputs_are_bounded(llama: Path, text: str, tmp_path: Path) -> None:
    listener, cache = Listener(), tmp_path / "cache"
    asked = "layers=2, epochs=1.0, objectives=[logits(top=8)], teacher_cache=0.00001"
    distil(llama, asked, text, tmp_path / "out", cache=cache, progress=listener)
    assert sum(path.stat().st_size for path in cache.rglob("outputs-*")) < 20_000
    assert any("has reached its size" in line for line in listener.lines)


def test_a_plan_says_what_it_will_cost_and_keeps_nothing(bert: Path, text: str, tmp_path: Path) -> None:
    before = sorted(path.name for path in bert.rglob("*"))
    plan = corecompress.plan(bert, "distill(layers=2, steps=7) | lossless", data=text)
    figures = plan.first_stage
    assert figures["updates"] == 7
    assert figures["student parameters"] < figures["teacher parameters"]
    assert figures["tokens"] > 0
    assert figures["seconds"] > 0
    assert figures["forward pass, times as fast"] > 0
    assert sorted(path.name for path in bert.rglob("*")) == before


def test_the_student_can_be_coded(bert: Path, text: str, tmp_path: Path) -> None:
    from corecompress.training.quiet import quiet

    out = tmp_path / "out"
    summary = corecompress.compress(bert, out, "distill(layers=2, steps=2) | lossless", data=text, evaluated=False)
    assert summary.kind == "compressed"
    assert summary.source_bytes > 1.3 * sum(row.dense_bytes for row in summary.tensors)
    with quiet():
        assert corecompress.load(out).config.num_hidden_layers == 2
    assert corecompress.verify(out).ok


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("layers=2, device=cuda", "no such GPU.*write cpu"),
        ("layers=2, device=tpu", "is no device"),
        ("layers=2, batch=10, accumulate=4", "can't be split"),
        ("layers=2, teacher_cache=1.0", "objective hidden"),
        ("layers=2, steps=0", "steps is 0"),
        ("layers=2, epochs=0.0", "epochs is 0"),
        ("steps=3", "no student"),
        ("layers=2, student=somewhere", "write one of them"),
        ("layer=2", "did you mean 'layers'"),
        ('student="nowhere/at-all"', "no configuration loads"),
    ],
)
def test_wrong_options_are_refused_at_once(options: str, said: str, bert: Path, text: str, tmp_path: Path) -> None:
    if options.endswith("device=cuda") and torch.cuda.is_available():
        options = options.replace("cuda", "cuda:99")
    with pytest.raises(CorecompressError, match=said) as caught:
        distil(bert, options, text, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_data_that_do_not_fit_are_refused(bert: Path, pictures: str, text: str, tmp_path: Path) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(CorecompressError, match="needs --data"):
        distil(bert, "layers=2", None, out)
    with pytest.raises(CorecompressError, match="text"):
        distil(bert, "layers=2", f"text:{empty}", out)
    with pytest.raises(CorecompressError, match="needs tokens"):
        distil(bert, "layers=2", pictures, out)
    whole = text.replace("(", "(evaluation=0.0, ")
    with pytest.raises(CorecompressError, match="no evaluation split"):
        distil(bert, "layers=2", whole, out, target_loss=0.1)
    with pytest.raises(CorecompressError, match="nothing in the recipe"):
        corecompress.compress(bert, out, "lossless", target_loss=0.1)
    assert not out.exists()


def test_a_generator_is_fitted_not_cut(bert: Path, text: str, tmp_path: Path) -> None:
    fitted = tmp_path / "fitted"
    shutil.copytree(bert, fitted)
    (fitted / "encoder.json").write_text("{}")
    with pytest.raises(CorecompressError, match="fit a smaller one"):
        corecompress.compress(fitted, tmp_path / "out", "distill(layers=1)", data=text)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_what_launchers_start_learns_the_same(launcher: str, bert: Path, text: str, tmp_path: Path) -> None:
    recipe = "distill(layers=2, steps=5, precision=float32, objectives=[embedding], device=cpu)"
    one, two = tmp_path / "one", tmp_path / "two"
    corecompress.compress(bert, one, recipe, data=text, evaluated=False)
    launch = {
        "torchrun": ["torch.distributed.run", "--nproc-per-node=2", "--master-port=29611", "--no-python"],
        "accelerate": [
            "accelerate.commands.launch",
            "--cpu",
            "--num_processes=2",
            "--main_process_port=29612",
            "--no_python",
        ],
    }[launcher]
    command = [sys.executable, "-m", *launch, COMMAND, "compress", bert, "-o", two, "-r", recipe, "--data", text]
    done = subprocess.run(
        [*map(str, command), "--no-evaluate"], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("parameters") >= 1
    logs = [json.loads((folder / "distillation.json").read_text()) for folder in (one, two)]
    # On processors accelerate's launcher leaves more than one process to mpirun.
    assert logs[1]["processes"] == (2 if launcher == "torchrun" else 1)
    assert logs[1]["losses"] == pytest.approx(logs[0]["losses"], rel=0.2)
    assert not list(tmp_path.glob("two.*"))


def test_every_sample_is_seen_once_an_epoch_and_from_any_batch_on(bert: Path, text: str) -> None:
    from corecompress.api import open_data
    from corecompress_distill.samples import Samples

    samples = Samples(open_data(text, bert), 5, 8, 0)
    count, tokens = samples.size
    endless = samples.batches()
    batches = [next(endless) for _ in range(2 * (count // 8))]
    seen = [
        tuple(ids[mask > 0]) for b in batches for ids, mask in zip(b["input_ids"], b["attention_mask"], strict=True)
    ]
    assert len(set(seen[: count // 8 * 8])) == count // 8 * 8
    assert abs(sum(map(len, seen)) / 2 - tokens) < 0.1 * tokens
    assert all(len({row.tobytes() for row in b["input_ids"]}) == 8 for b in batches)
    padding = sum((b["attention_mask"] == 0).sum() for b in batches) / sum(b["attention_mask"].size for b in batches)
    assert padding < 0.1
    later = samples.batches(5)
    assert (next(later)["input_ids"] == batches[5]["input_ids"]).all()
