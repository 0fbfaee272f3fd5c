"""Text VAEs from the command line to a compressed folder, on sentences of a small grammar."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import COMMAND, weights_of_both

import corecompress
from corecompress.components import Batch
from corecompress.errors import CorecompressError
from corecompress.plugins import registry
from corecompress.progress import Silent
from corecompress.recipe import build, parse_spec
from corecompress_generative.bounds import importance_bound
from corecompress_generative.density import divergence, draw, log_density, log_normal
from corecompress_generative.encoder import VaeEncoder
from corecompress_generative.objective import Variational
from corecompress_generative.training import Plan, Player, train

SMALL = "steps=60, hidden=32, embedding=16, latents=4, length=12, batch=32"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """400 different sentences of a grammar, as a SPEC."""
    random.seed(0)
    who, does = ["the cat", "a dog", "my aunt", "the old king", "nobody"], ["sees", "likes", "follows", "paints"]
    what, when = ["the moon", "a red house", "her garden", "the sea", "a ship"], ["today", "at night", "in spring", ""]
    lines = sorted({f"{a} {b} {c} {d}".strip() for a in who for b in does for c in what for d in when})
    random.shuffle(lines)
    path = tmp_path_factory.mktemp("grammar") / "lines.txt"
    path.write_text("".join(f"{line} .\n" for line in lines))
    return f"text(form=sentences, tokenizer=words, document=line, batch=32):{path}"


@pytest.fixture(scope="module")
def fitted(spec: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "lstm"
    corecompress.fit(spec, f"lstm({SMALL.replace('60', '900')}, learning_rate=4e-3, free_bits=1.0)", "gaussian", folder)
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True)


def test_a_fitted_model_is_a_checkpoint_that_knows_its_sentences(fitted: Path, spec: str, tmp_path: Path) -> None:
    record = json.loads((fitted / "encoder.json").read_text())
    figures = record["figures"]
    assert figures["active units"] == "4 of 4"
    assert figures["tokens that come back"] > 0.5
    # the entropy of the grammar is ln 400 nats a sentence
    assert 5 < figures["-log-likelihood, 32 importance weights (nats a sample)"] < 9
    assert (fitted / "training.png").stat().st_size > 5000
    plain = "from transformers import AutoModel, AutoTokenizer as T; import sys; print(type(AutoModel.from_pretrained"
    code = f"{plain}(sys.argv[1])).__name__, T.from_pretrained(sys.argv[1])('the cat').input_ids[0])"
    done = subprocess.run([sys.executable, "-c", code, str(fitted)], capture_output=True, text=True)
    assert done.stdout.split() == ["TextVae", "2"], done.stderr[-500:]


def test_generate_and_reconstruct_before_and_after_compression(fitted: Path, spec: str, tmp_path: Path) -> None:
    done = run("generate", fitted, "-n", 40, "--seed", 1, "-o", tmp_path / "new.txt")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "new.txt").read_text().splitlines()
    assert len(lines) == 40
    known = set(Path(spec.partition(":")[2]).read_text().split())
    assert all(word in known for line in lines for word in line.split())
    assert len(set(lines)) > 10
    small = tmp_path / "small"
    corecompress.compress(fitted, small, "vae(bits=30)")  # most of it is the tokenizer and the plot
    sizes = [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in (fitted, small)]
    assert sizes[1] < 0.7 * sizes[0]
    for folder in (fitted, small):
        out = tmp_path / f"{folder.name}.txt"
        done = run("reconstruct", folder, "--data", spec, "-n", 20, "-o", out)
        assert done.returncode == 0, done.stderr
        blocks = [block.splitlines() for block in out.read_text().strip().split("\n\n")]
        assert len(blocks) == 20
        same = [a == b for one, other in blocks for a, b in zip(one.split(), other.split(), strict=False)]
        assert sum(same) / len(same) > 0.5
    done = run("generate", small, "-n", 3, "--json", "-o", tmp_path / "small.txt")
    assert json.loads(done.stdout)["samples"] == 3


@pytest.mark.parametrize("encoder", [f"lstm({SMALL})", f"gat({SMALL})"])
def test_what_is_generated_has_no_unknown_words_and_repeats(encoder: str, spec: str, tmp_path: Path) -> None:
    """With ten words known, half of every sentence is <unk>, which is the likeliest word everywhere."""
    few = spec.replace("batch=32", "batch=32, vocabulary=10")
    corecompress.fit(few, encoder, "gaussian", tmp_path / "model")
    made = []
    for number, seed in enumerate((1, 1, 2)):
        corecompress.generate(tmp_path / "model", tmp_path / f"{number}.txt", n=30, seed=seed)
        made.append((tmp_path / f"{number}.txt").read_text())
    assert "<unk>" not in "".join(made)
    assert made[0] == made[1]
    assert made[0] != made[2]
    corecompress.reconstruct(tmp_path / "model", few, tmp_path / "pairs.txt", n=30)
    assert "<unk>" in (tmp_path / "pairs.txt").read_text()


@pytest.mark.parametrize("encoder", ["lstm", "gat"])
def test_a_model_that_has_learned_nothing_writes_words_all_the_same(encoder: str, spec: str, tmp_path: Path) -> None:
    """Neither padding nor the token before a sentence, which are as likely as any word then."""
    corecompress.fit(spec, f"{encoder}({SMALL.replace('60', '1')})", "gaussian", tmp_path / "model")
    corecompress.generate(tmp_path / "model", tmp_path / "new.txt", n=200)
    known = set(Path(spec.partition(":")[2]).read_text().split())
    assert set((tmp_path / "new.txt").read_text().split()) <= known


def test_calibration_on_its_own_sentences_pays(spec: str, tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    corecompress.fit(spec, f"lstm({SMALL.replace('hidden=32', 'hidden=128')})", "gaussian", wide)
    errors = []
    for data in (None, spec):
        small = tmp_path / f"calibrated-{data is not None}"
        recipe = "vae(bits=8)" if data is None else "vae(bits=8, calibration_tokens=1000)"
        corecompress.compress(wide, small, recipe, data=data, evaluated=False)
        errors.append(corecompress.evaluate(wide, small, spec).metrics["relative_error"].value)
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("encoder", ["lstm", "gat"])
@pytest.mark.parametrize("prior", ["gaussian", "hadamard", "laplace", "gan(steps=20)"])
def test_every_encoder_learns_under_every_prior(encoder: str, prior: str, spec: str, tmp_path: Path) -> None:
    found = corecompress.fit(spec, f"{encoder}({SMALL})", prior, tmp_path / "model")
    assert 0 < found.figures["the same, bits a value"] < math.log2(40)
    run_out = corecompress.generate(tmp_path / "model", tmp_path / "new.txt", n=5, seed=3)
    assert run_out.samples == 5


@pytest.mark.parametrize("name", ["gaussian", "hadamard", "laplace", "logistic-mixture"])
def test_a_prior_becomes_a_density(name: str) -> None:
    prior = build(registry(), "prior", parse_spec(name))
    z = torch.linspace(-12, 12, 24001)[None]
    mass = (log_density(prior, z).exp() * 0.001)[0]
    assert float(mass.sum()) == pytest.approx(1, abs=2e-3)
    drawn = draw(prior, 4000, 5, seed=1)
    assert drawn.shape == (4000, 5)
    assert float(drawn.abs().mean()) == pytest.approx(float((mass * z[0].abs()).sum()), rel=0.03)


def test_the_closed_divergence_is_the_mean_of_its_estimate() -> None:
    prior = build(registry(), "prior", parse_spec("gaussian"))
    torch.manual_seed(0)
    mean, log_deviation = torch.randn(6), torch.randn(6) / 2
    z = mean + log_deviation.exp() * torch.randn(200_000, 6)
    estimate = (log_normal(z, mean, log_deviation) - log_density(prior, z)).mean(0)
    assert torch.allclose(divergence(prior, mean, log_deviation, z), estimate, atol=0.02)


@torch.no_grad()
def test_importance_weights_tighten_the_bound(fitted: Path, spec: str) -> None:
    from corecompress.generation import open_fitted

    encoder = open_fitted(fitted)
    batch = encoder.take(next(iter(corecompress.open_data(spec).batches(0, "evaluation"))))
    rate, distortion, _ = encoder.model.terms(batch, encoder.prior)
    bounds = []
    for draws in (1, 8, 64):
        torch.manual_seed(
            0
        )  # the same 64 draws each time, so that Jensen's inequality holds for them, not only on average
        found = [importance_bound(encoder.model, encoder.prior, batch, draws) for _ in range(64 // draws)]
        bounds.append(float(torch.stack(found).mean()))
    assert bounds[0] == pytest.approx(float((rate.sum(1) + distortion).mean()), abs=1)
    assert bounds[0] > bounds[1] > bounds[2]


def test_latents_go_in_and_out(fitted: Path, spec: str) -> None:
    from corecompress.generation import open_fitted

    encoder = open_fitted(fitted)
    batch: Batch = next(iter(corecompress.open_data(spec).batches(0, "evaluation")))
    latents = encoder.encode(batch)
    assert latents.shape == (len(batch["input_ids"]), 4)
    assert latents.dtype == np.float32
    assert [sample.text for sample in encoder.decode(latents)] == [b.text for _, b in encoder.reconstruct(batch)]


def test_tags_are_a_second_input_and_chinese_is_segmented(tmp_path: Path) -> None:
    path = tmp_path / "zh.txt"
    sentences = ["我们 今天 去 北京 看 朋友", "他 喜欢 在 家里 读书", "老师 明天 来 学校 上课", "孩子 在 公园 里 唱歌"]
    path.write_text("".join(line.replace(" ", "") + f"{n}。\n" for n in range(30) for line in sentences))
    spec = f"text(form=sentences, tokenizer=words, document=line, clean=all, duplicates=off):{path}"
    corecompress.fit(spec, f"lstm({SMALL})", "gaussian", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["tags"] == 18
    assert 10 < config["vocab_size"] < 80
    corecompress.generate(tmp_path / "model", tmp_path / "new.txt", n=20)
    words = {word for line in sentences for word in line.split()}
    lines = (tmp_path / "new.txt").read_text().splitlines()
    assert any(one + other in line for line in lines for one in words for other in words), lines


def test_the_same_seed_gives_the_same_bytes_and_a_killed_run_resumes_to_them(spec: str, tmp_path: Path) -> None:
    whole, resumed = weights_of_both(spec, f"lstm({SMALL.replace('60', '400')})", tmp_path)
    assert whole == resumed


def test_a_run_that_ends_while_it_saves_goes_on_from_its_checkpoint(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = f"lstm({SMALL})"
    corecompress.fit(spec, encoder, "gaussian", tmp_path / "whole")

    def full(self: VaeEncoder, folder: Path) -> None:
        raise CorecompressError("no space left")

    def none(self: VaeEncoder, *rest: object, **more: object) -> None:
        raise AssertionError("it trains again")

    with monkeypatch.context() as patch:
        patch.setattr(VaeEncoder, "save", full)
        with pytest.raises(CorecompressError, match="no space left"):
            corecompress.fit(spec, encoder, "gaussian", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with monkeypatch.context() as patch:
        patch.setattr(Variational, "forward", none)
        corecompress.fit(spec, encoder, "gaussian", tmp_path / "model", resume=True)
    for name in ("model.safetensors", "encoder.json"):
        assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_benchmark_times_what_generate_does(fitted: Path, tmp_path: Path) -> None:
    corecompress.compress(fitted, tmp_path / "small", "lossless")
    found = json.loads(run("benchmark", fitted, tmp_path / "small", "--runs", "1", "--json").stdout)
    assert {"latency", "throughput1", "throughput8"} <= set(found["figures"])
    assert found["figures"]["latency"]["original"] > 0


def test_a_tokenizer_that_is_missing_and_a_picture_of_text_are_one_line(
    fitted: Path, spec: str, tmp_path: Path
) -> None:
    with pytest.raises(CorecompressError, match=r"lines\.png: the model writes text; name a file like lines\.txt"):
        corecompress.generate(fitted, tmp_path / "lines.png")
    with pytest.raises(CorecompressError, match=r"pairs\.png: the model writes text"):
        corecompress.reconstruct(fitted, spec, tmp_path / "pairs.png")
    other = tmp_path / "other"
    other.mkdir()
    for path in fitted.iterdir():
        if not path.name.startswith("tokenizer"):
            (other / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CorecompressError, match="its tokenizer can't be read"):
        corecompress.generate(other, tmp_path / "lines.txt")


def test_several_processes_fit_one_model(spec: str, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29613", "--no-python"]
    fit = ["fit", "--data", spec, "--encoder", f"lstm({SMALL})", "--prior", "gaussian", "-o", tmp_path / "two"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, COMMAND, *fit], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("active units") == 1
    one = corecompress.fit(spec, f"lstm({SMALL})", "gaussian", tmp_path / "one").figures
    two = json.loads((tmp_path / "two" / "encoder.json").read_text())["figures"]
    assert two["the same, bits a value"] == pytest.approx(one["the same, bits a value"], rel=0.1)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] != weights[1]  # twice the samples for every update
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_it_stops_at_the_target_and_by_time(spec: str, tmp_path: Path) -> None:
    plain = "annealing=none, pretrain=0, free_bits=0"
    long = f"lstm({SMALL.replace('60', '3000')}, {plain})"
    found = corecompress.fit(spec, long, "gaussian", tmp_path / "target", target_loss=3.0)
    assert found.figures["steps"] < 3000
    assert "at most the target 3" in found.figures["stopped"]
    found = corecompress.fit(spec, long, "gaussian", tmp_path / "time", max_minutes=0.03)
    assert found.figures["steps"] < 3000
    assert "by time" in found.figures["stopped"]


class Heard(Silent):
    """Progress that keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def test_a_target_that_will_be_missed_is_said_once_while_training(spec: str, tmp_path: Path) -> None:
    encoder, heard = f"lstm({SMALL}, annealing=none, pretrain=0, free_bits=0)", Heard()
    with pytest.raises(CorecompressError, match=r"0\.01 was not reached in 60 steps"):
        corecompress.fit(spec, encoder, "gaussian", tmp_path / "model", target_loss=0.01, progress=heard)
    assert sum("at this pace --target-loss 0.01 is not reached" in line for line in heard.lines) == 1


def test_a_collapsed_posterior_is_reported(spec: str, tmp_path: Path) -> None:
    encoder, heard = f"lstm({SMALL}, annealing=none, pretrain=0, free_bits=0)", Heard()
    found = corecompress.fit(spec, encoder, "gaussian", tmp_path / "model", progress=heard)
    assert found.figures["active units"] == "0 of 4"
    assert any("collapsed" in line for line in heard.lines)


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(spec: str, tmp_path: Path) -> None:
    with pytest.raises(CorecompressError, match="no number at step"):
        corecompress.fit(spec, f"lstm({SMALL}, learning_rate=1e30)", "gaussian", tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Spoiled(Player):
    """Learns 3, until the loss or only its gradient is no number."""

    def __init__(self, loss_from: float, gradient_from: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.loss_from, self.gradient_from = loss_from, gradient_from

    def forward(self, batch: dict[str, torch.Tensor], share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = (self.weight - 3).square()
        if share >= self.loss_from:
            loss = loss * float("nan")
        if share >= self.gradient_from:
            loss = loss + 0 * (self.weight - self.weight).sqrt()  # the root of nothing is flat nowhere: 0 × inf
        return loss, {"loss": loss}


@pytest.mark.parametrize(
    ("loss_from", "gradient_from", "bad", "kept"), [(0.55, 2, 12, 10), (2, 0.5, 12, 10), (2, 0.45, 10, 8)]
)
def test_training_goes_back_to_the_last_good_checkpoint(
    loss_from: float, gradient_from: float, bad: int, kept: int, tmp_path: Path
) -> None:
    player, plan = Spoiled(loss_from, gradient_from), Plan(steps=20, rate=0.1, best=False)
    seen = []

    def look() -> dict[str, float]:
        seen.append(player.weight.item())
        return {"loss": abs(3 - seen[-1])}

    state = train([player], lambda step: iter([{}] * 20), look, plan, tmp_path, Silent())
    assert state.step == kept
    assert state.stopped == f"the loss was no number at step {bad}; what step {kept} had is kept"
    assert player.weight.item() == seen[kept // 2 - 1]


@pytest.mark.parametrize(
    ("encoder", "text", "target", "said"),
    [
        (f"lstm({SMALL})", "one line\n", None, "holds no document; give more text"),
        (f"lstm({SMALL})", None, 0.01, "was not reached in 60 steps"),
        ("lstm(latents=0)", None, None, "latents is 0"),
        ("lstm(free_bits=-1)", None, None, "free_bits is -1"),
        ("lstm(word_dropout=2)", None, None, "word_dropout is 2"),
        ("gat(learning_rate=-1)", None, None, "learning_rate is -1"),
        ("lstm", None, math.nan, "--target-loss is nan"),
        ("gat(hidden=30)", None, None, "4 heads don't divide"),
    ],
)
def test_bad_input_is_one_line(
    encoder: str, text: str | None, target: float | None, said: str, spec: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "text.txt").write_text(text)
        spec = f"text(form=sentences, tokenizer=words):{tmp_path / 'text.txt'}"
    with pytest.raises(CorecompressError) as problem:
        corecompress.fit(spec, encoder, "gaussian", tmp_path / "model", target_loss=target)
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)


def test_windows_images_and_newer_models_are_refused(spec: str, fitted: Path, tmp_path: Path) -> None:
    windows = spec.replace("form=sentences", "form=windows, length=16")
    for data, said in ((windows, "reads sentences: write"), ("captioned:digits", "reads sentences: write")):
        with pytest.raises(CorecompressError, match=said):
            corecompress.fit(data, f"lstm({SMALL})", "gaussian", tmp_path / "model")
    with pytest.raises(CorecompressError, match="fitted without captions"):
        corecompress.generate(fitted, tmp_path / "new.txt", prompt="a cat")
    newer = tmp_path / "newer"
    newer.mkdir()
    for path in fitted.iterdir():
        (newer / path.name).write_bytes(path.read_bytes())
    record = json.loads((newer / "encoder.json").read_text())
    (newer / "encoder.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(CorecompressError, match="format 99"):
        corecompress.generate(newer, tmp_path / "new.txt")
    (newer / "encoder.json").write_text(json.dumps(record))
    config = json.loads((newer / "config.json").read_text())
    (newer / "config.json").write_text(json.dumps({**config, "generative_format": 99}))
    with pytest.raises(CorecompressError, match="pip install -U"):
        corecompress.generate(newer, tmp_path / "new.txt")
    with pytest.raises(CorecompressError, match=r"without encoder\.json"):
        corecompress.generate(tmp_path, tmp_path / "new.txt")
