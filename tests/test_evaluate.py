"""corecompress evaluate: identical models, a closed form, every kind of model, real checkpoints, bad input."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import corecompress
from corecompress.api import evaluate
from corecompress.errors import CorecompressError
from corecompress.measure.metrics import measure
from corecompress.measure.scratch import scratch_folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"text(length=32):{tiny.corpus(tmp_path_factory.mktemp('text') / 'corpus.txt')}"


@pytest.mark.parametrize("kind", ["causal", "masked", "seq2seq"])
def test_the_same_language_model_has_kl_zero_exactly(tmp_path: Path, text: str, kind: str) -> None:
    one = tiny.model(tmp_path / "one", kind)
    found = evaluate(one, shutil.copytree(one, tmp_path / "copy"), text)
    assert found.metrics["kl"].value == 0
    assert found.metrics["kl_p99"].value == 0
    assert found.metrics["top1"].value == 1
    assert found.metrics["perplexity"].value == found.metrics["perplexity"].original
    assert found.data["split"] == "evaluation"


def test_kl_and_perplexity_are_what_the_closed_form_says(tmp_path: Path, text: str) -> None:
    """Logits that are the output layer's bias alone: uniform against known ones."""
    bias = np.random.default_rng(0).normal(0, 0.7, 64).astype(np.float32)

    def set_bias(values: np.ndarray) -> Callable[..., None]:
        def change(model: object) -> None:
            import torch

            model.lm_head.weight.zero_()
            model.lm_head.bias.copy_(torch.from_numpy(values))

        return change

    one = tiny.model(tmp_path / "one", "causal", change=set_bias(np.zeros(64, np.float32)))
    other = tiny.model(tmp_path / "other", "causal", change=set_bias(bias))
    found = evaluate(one, other, text)
    expected = math.log(np.exp(bias.astype(np.float64)).mean()) - bias.astype(np.float64).mean()
    assert found.metrics["kl"].value == pytest.approx(expected, rel=1e-5)
    assert found.metrics["kl_p99"].value == pytest.approx(expected, rel=1e-5)
    assert found.metrics["perplexity"].original == pytest.approx(64, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 10)), min_size=1, max_size=60))
def test_means_and_percentiles_are_those_of_all_rows(rows: list[tuple[int, float]]) -> None:
    documents, kl = np.array([d for d, _ in rows]), np.array([v for _, v in rows])
    found = measure({}, {"kl": kl, "documents": documents, "same": kl > 5}, ("kl", "kl_p99", "top1"), 0)
    assert found["kl"].value == pytest.approx(kl.mean(), abs=1e-9)
    assert found["kl_p99"].value in kl
    assert (kl <= found["kl_p99"].value).mean() >= 0.99 - 1 / len(kl)
    assert found["top1"].value == pytest.approx((kl > 5).mean())
    assert (found["kl"].stderr is None) == (len(set(documents.tolist())) < 2)


def test_the_standard_error_is_that_of_the_mean_over_documents() -> None:
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(400), 10)
    kl = np.repeat(rng.normal(1, 0.5, 400), 10)  # all rows of a document agree: 400 independent values, not 4,000
    found = measure({}, {"kl": kl, "documents": documents}, ("kl",), 0)
    assert found["kl"].stderr == pytest.approx(0.5 / math.sqrt(400), rel=0.15)


def test_a_sentence_encoder_real_and_damaged(minilm: Path, tmp_path: Path, text: str) -> None:
    same = evaluate("demo", shutil.copytree(minilm, tmp_path / "copy"), text, samples=64)
    assert list(same.metrics) == ["cosine", "cosine_p1", "recall1", "rank_correlation"]
    assert [metric.value for metric in same.metrics.values()] == [1, 1, 1, 1]
    corecompress.compress("demo", tmp_path / "small", "lossless")
    assert evaluate("demo", tmp_path / "small", text, samples=64).metrics["cosine"].value == 1


def test_models_without_a_task_of_their_own_and_half_models(tmp_path: Path, text: str) -> None:
    """Question answering has two outputs, both count; an encoder alone is loaded as that, not as the whole T5."""
    import torch
    import transformers as tf

    size = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    t5 = {"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    for seed in (0, 1):
        torch.manual_seed(0)
        answering = tf.BertForQuestionAnswering(tf.BertConfig(**size, num_attention_heads=2))
        with torch.no_grad():
            answering.qa_outputs.bias[1] += seed  # only the second output, the logits of ends, moves
        for name, model in (("answers", answering), ("half", tf.T5EncoderModel(tf.T5Config(**t5)))):
            model.save_pretrained(tmp_path / f"{name}-{seed}")
            tiny.tokenizer(tmp_path / f"{name}-{seed}")
    same = evaluate(tmp_path / "answers-0", tmp_path / "answers-0", text, samples=8)
    assert (same.task, same.metrics["relative_error"].value) == ("other", 0)
    assert list(same.metrics) == ["relative_error"]
    with pytest.raises(CorecompressError, match="says no nll"):
        evaluate(tmp_path / "answers-0", tmp_path / "answers-0", text, samples=8, metrics=("nll",))
    assert evaluate(tmp_path / "answers-0", tmp_path / "answers-1", text, samples=8).metrics["relative_error"].value > 0
    half = evaluate(tmp_path / "half-0", tmp_path / "half-0", text, samples=8)
    assert (half.task, half.metrics["cosine"].value) == ("sentence-encoder", 1)


def test_a_model_that_sees_is_judged_as_a_language_model_and_one_that_hears_says_so(tmp_path: Path, text: str) -> None:
    import torch
    import transformers as tf

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower = tf.CLIPVisionConfig(**size, image_size=32, patch_size=8)
    hears = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    ends = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = tf.LlavaConfig(
            text_config=tf.LlamaConfig(**size, vocab_size=64), vision_config=tower, image_token_id=60
        )
        seeing = tf.LlavaForConditionalGeneration(config)
        hearing = tf.WhisperForConditionalGeneration(tf.WhisperConfig(vocab_size=64, **hears, **heads, **ends))
        for name, model in (("sees", seeing), ("hears", hearing)):
            model.save_pretrained(tmp_path / f"{name}-{seed}")
            tiny.tokenizer(tmp_path / f"{name}-{seed}")
    same = evaluate(tmp_path / "sees-0", tmp_path / "sees-0", text, samples=4)
    assert (same.task, same.metrics["kl"].value) == ("causal-lm", 0)
    assert evaluate(tmp_path / "sees-0", tmp_path / "sees-1", text, samples=4).metrics["kl"].value > 0
    with pytest.raises(CorecompressError, match="this model reads input_features"):
        evaluate(tmp_path / "hears-0", tmp_path / "hears-1", text, samples=4)


def test_an_image_classifier_and_any_other_model(tmp_path: Path) -> None:
    plugin = tmp_path / "pixels.py"
    plugin.write_text(PIXELS)
    one = tiny.model(tmp_path / "one", "vision")
    other = tiny.model(tmp_path / "other", "vision", seed=1)
    command = ["--plugin-file", plugin, "evaluate", one]
    cli = _cli()
    same = json.loads(cli(*command, one, "--data", "pixels:x", "--json").stdout)
    assert same["metrics"]["kl"]["value"] == 0
    moved = json.loads(cli(*command, other, "--data", "pixels:x", "--json").stdout)
    assert moved["metrics"]["kl"]["value"] > 0
    assert list(moved["metrics"]) == ["kl", "kl_p99", "top1"]


PIXELS = """
import numpy as np
from corecompress import Component, hookimpl
from corecompress.components import NoOptions

@hookimpl
def data_components():
    return [Component("pixels", "pixels:Pixels", "random images")]

class Pixels:
    Options = NoOptions
    def __init__(self, source, options): pass
    def prepare(self, checkpoint): pass
    def batches(self, seed, split="calibration", start=0):
        rng = np.random.default_rng(seed)
        for n in range(start, 4):
            yield {"pixel_values": rng.normal(size=(4, 3, 16, 16)).astype(np.float32), "document": np.arange(4 * n, 4 * n + 4)}
    def fingerprint(self): return "pixels"
"""


def _cli() -> Callable[..., object]:
    import os
    import subprocess
    import sys

    command = Path(sys.executable).with_name("corecompress")
    return lambda *arguments: subprocess.run(
        [str(command), *map(str, arguments)], capture_output=True, text=True, env=dict(os.environ), check=True
    )


def test_the_card_says_what_was_measured_and_the_folder_still_verifies(tmp_path: Path, text: str) -> None:
    one = tiny.model(tmp_path / "one", "causal")
    (one / "README.md").write_text("---\nlicense: mit\ntags: [fun]\n---\n# One\n")
    corecompress.compress(one, tmp_path / "small", "lossless")
    card = (tmp_path / "small" / "README.md").read_text()
    assert "license: mit" in card
    assert "bit for bit" in card
    found = evaluate(one, tmp_path / "small", text, card=True)
    card = (tmp_path / "small" / "README.md").read_text()
    assert found.data["fingerprint"] in card
    assert "KL to the original" in card
    assert corecompress.verify(tmp_path / "small").ok


def test_the_printed_table_and_json(cli: Callable[..., object], tmp_path: Path, text: str) -> None:
    one = tiny.model(tmp_path / "one", "causal")
    done = cli("evaluate", one, one, "--data", text, "--metric", "kl", "--samples", 4)
    assert "KL to the original" in done.stdout
    assert "perplexity" not in done.stdout
    assert "4 samples" in done.stdout


HARNESS = """
def simple_evaluate(model, model_args, tasks, device):
    if "gone" in tasks:
        raise ConnectionError("the data of gone can't be had")
    assert device in ("cpu", "cuda")
    better = model_args["pretrained"].endswith("one")
    return {"results": {task: {"alias": task, "acc,none": 0.75 if better else 0.5} for task in tasks}}
"""
"""Stands for lm_eval, which is no dependency of the tests."""


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (HARNESS, {"arc": {"acc,none": "0.75 → 0.5"}, "piqa": {"acc,none": "0.75 → 0.5"}}),
        (
            HARNESS.replace('"gone"', '"arc"'),
            {"arc,piqa": {"not run": "one: ConnectionError: the data of gone can't be had"}},
        ),
        ("", {"arc,piqa": {"not run": "lm-evaluation-harness is not installed; pip install 'lm-eval[hf]'"}}),
    ],
    ids=["run", "without-data", "not-installed"],
)
def test_tasks_of_the_harness(
    cli: Callable[..., object],
    tmp_path: Path,
    text: str,
    module: str,
    expected: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "site").mkdir()
    if module:
        (tmp_path / "site" / "lm_eval.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    one = tiny.model(tmp_path / "one", "causal")
    other = shutil.copytree(one, tmp_path / "other")
    command = ["evaluate", one, other, "--data", text, "--samples", 2, "--tasks", "arc,piqa"]
    shown = json.loads(cli(*command, "--json").stdout)
    assert shown["metrics"]["kl"]["value"] == 0
    assert shown["tasks"] == expected


def test_bad_input_is_one_line(refused: Callable[..., str], tmp_path: Path, text: str, minilm: Path) -> None:
    one = tiny.model(tmp_path / "one", "causal")
    other = tiny.model(tmp_path / "other", "encoder")
    assert "has no perplexity" in refused("evaluate", other, other, "--data", text, "--metric", "perplexity")
    assert "PhiForCausalLM" in refused("evaluate", one, other, "--data", text)
    config = json.loads((shutil.copytree(one, tmp_path / "wide") / "config.json").read_text())
    (tmp_path / "wide" / "config.json").write_text(json.dumps({**config, "vocab_size": 99}))
    assert "vocabulary of 99" in refused("evaluate", one, tmp_path / "wide", "--data", text)
    broken = shutil.copytree(one, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0 not a header at all")
    assert "broken" in refused("evaluate", one, broken, "--data", text)
    (tmp_path / "short.txt").write_text("kaba lodo mife.\n\nnugu peha ra.")
    short = f"text(length=100, calibration=0, evaluation=1):{tmp_path}/short.txt"
    assert "less than one window" in refused("evaluate", one, one, "--data", short)
    assert "no such" in refused("evaluate", one, one, "--data", f"text:{tmp_path}/gone.txt")
    (tmp_path / "empty.txt").write_text("")
    assert "no document" in refused("evaluate", one, one, "--data", f"text:{tmp_path}/empty.txt")


def test_an_error_leaves_no_worker_and_no_scratch(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORECOMPRESS_CACHE", str(tmp_path / "cache"))
    one = tiny.model(tmp_path / "one", "causal")
    broken = shutil.copytree(one, tmp_path / "broken")
    (broken / "config.json").write_text(
        (one / "config.json").read_text().replace('"hidden_size": 32', '"hidden_size": 48')
    )
    with pytest.raises(CorecompressError, match="broken"):
        evaluate(one, broken, text)
    assert not list((tmp_path / "cache" / "evaluations").iterdir())


def test_what_a_killed_evaluation_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    left = tmp_path / "evaluations" / "left"
    left.mkdir(parents=True)
    (left / "lock").touch()
    with scratch_folder(tmp_path / "evaluations") as one, scratch_folder(tmp_path / "evaluations") as other:
        assert one.is_dir()
        assert other.is_dir()
        assert not left.exists()
    assert not list((tmp_path / "evaluations").iterdir())


def test_an_image_model_refuses_text_and_a_language_model_images(
    refused: Callable[..., str], tmp_path: Path, text: str
) -> None:
    vision, causal = tiny.model(tmp_path / "vision", "vision"), tiny.model(tmp_path / "causal", "causal")
    assert "captioned:" in refused("evaluate", vision, vision, "--data", text)
    assert "text:" in refused("evaluate", causal, causal, "--data", "captioned:digits")
