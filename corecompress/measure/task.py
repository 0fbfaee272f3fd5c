"""What a checkpoint is for, by its config alone: which outputs say whether it is still as good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from corecompress.errors import CorecompressError

Task = Literal["causal-lm", "masked-lm", "seq2seq-lm", "image-classifier", "sentence-encoder", "other"]

METRICS: dict[str, tuple[str, ...]] = {
    "causal-lm": ("perplexity", "kl", "kl_p99", "top1"),
    "masked-lm": ("perplexity", "kl", "kl_p99", "top1"),
    "seq2seq-lm": ("perplexity", "kl", "kl_p99", "top1"),
    "image-classifier": ("kl", "kl_p99", "top1"),
    "sentence-encoder": ("cosine", "cosine_p1", "recall1", "rank_correlation"),
    "other": ("relative_error", "nll"),
}
"""The metrics of each task; the first but perplexity is what a rate-quality picture shows. nll is only of models whose
output has it: −ln p of each sample, [n], as that of fitted generative models does."""

LABELS: dict[str, tuple[str, str, Literal["lower", "higher"]]] = {
    "perplexity": ("perplexity", "", "lower"),
    "kl": ("KL to the original", "nats", "lower"),
    "kl_p99": ("KL, 99th percentile", "nats", "lower"),
    "top1": ("top-1 agreement", "", "higher"),
    "cosine": ("cosine to the original", "", "higher"),
    "cosine_p1": ("cosine, 1st percentile", "", "higher"),
    "recall1": ("recall@1", "", "higher"),
    "rank_correlation": ("rank correlation of similarities", "", "higher"),
    "relative_error": ("relative error of the outputs", "", "lower"),
    "nll": ("−ln p of a sample", "nats", "lower"),
}
"""Label, unit ("" for a share or a ratio) and which way is better, of every metric."""

AXIS = {task: next(name for name in names if name != "perplexity") for task, names in METRICS.items()}

WORDS = {
    "causal-lm": "a causal language model",
    "masked-lm": "a masked language model",
    "seq2seq-lm": "an encoder-decoder",
    "image-classifier": "an image classifier",
    "sentence-encoder": "an encoder",
    "other": "a model of another kind",
}


def task_of(folder: Path, config: dict[str, Any]) -> Task:
    """The task that the architecture in config.json is made for."""
    architecture = (config.get("architectures") or [""])[0]
    if architecture.endswith(("ForConditionalGeneration", "MTModel")):  # without an encoder: it sees or hears as well
        return "seq2seq-lm" if config.get("is_encoder_decoder") else "causal-lm"
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal-lm"
    if architecture.endswith(("ForMaskedLM", "ForPreTraining")) and "vocab_size" in config:
        return "masked-lm"
    if architecture.endswith("ForImageClassification"):
        return "image-classifier"
    encodes_text = "vocab_size" in config and not config.get("is_encoder_decoder") and architecture.endswith("Model")
    return "sentence-encoder" if (folder / "modules.json").exists() or encodes_text else "other"


def check_metrics(task: Task, asked: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The metrics to show. Raises CorecompressError for one that the task does not have."""
    for metric in asked:
        if metric not in METRICS[task]:
            known = ", ".join(METRICS[task])
            raise CorecompressError(f"{name}: is {WORDS[task]}, which has no {metric}; it has: {known}")
    return asked or METRICS[task]


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of any folder, compressed or not. Raises CorecompressError when it can't be read."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as problem:
        raise CorecompressError(
            f"{folder / 'config.json'}: can't be read ({problem}); give a checkpoint's folder"
        ) from None
    return config if isinstance(config, dict) else {}


def check_vocabularies(one: dict[str, Any], other: dict[str, Any], name: str, other_name: str) -> None:
    """Raises CorecompressError where two models' outputs can't be compared."""
    sizes = [(config.get("text_config") or config).get("vocab_size") for config in (one, other)]
    if None not in sizes and sizes[0] != sizes[1]:
        raise CorecompressError(
            f"{other_name}: has a vocabulary of {sizes[1]} where {name} has {sizes[0]}; "
            "only models that share one compare"
        )
    architectures = [(config.get("architectures") or [None])[0] for config in (one, other)]
    if None not in architectures and architectures[0] != architectures[1]:
        raise CorecompressError(
            f"{other_name}: is a {architectures[1]} where {name} is a {architectures[0]}; only the same kind compares"
        )
