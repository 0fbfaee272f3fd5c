"""The student as an ordinary checkpoint: weights in the teacher's dtype, its tokenizer and layout, a card, a plot."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from corecompress.checkpoint import Checkpoint
from corecompress.errors import CorecompressError
from corecompress.report.units import human_figure, human_seconds
from corecompress.training.checkpoints import State
from corecompress.training.plot import plot_losses
from corecompress.training.quiet import quiet

LOG, PLOT = "distillation.json", "distillation.png"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

CARD = """# {name}, distilled

A smaller network trained on the outputs of `{name}` by corecompress-distill, {did}.

| | teacher | student |
|---|---:|---:|
| parameters | {before:,} | {after:,} |

Objectives: {objectives}. {steps} updates, {tokens:,} tokens, {seconds}, seed {seed}.{loss}
The losses are in {log} and {plot}. `corecompress evaluate TEACHER FOLDER --data SPEC` measures what it lost.
"""


def stored_dtype(source: Checkpoint) -> torch.dtype:
    """What most of the teacher's weights are stored in."""
    sizes: Counter[str] = Counter()
    for info in source.tensors:
        sizes[info.dtype] += info.size if info.dtype in DTYPES else 0
    return DTYPES[sizes.most_common(1)[0][0]] if sizes and max(sizes.values()) else torch.float32


def write_student(student: Any, state: dict[str, torch.Tensor], source: Checkpoint, out: Path) -> None:
    """config.json, weights, and the teacher's other files. state: the student's weights, on any device.

    Raises CorecompressError for a file of the teacher's that doesn't fit a narrower student.
    """
    with quiet():
        plain = type(student)(student.config)
        plain.load_state_dict({name: value.cpu() for name, value in state.items()})
        plain.generation_config = getattr(student, "generation_config", None)
        plain.to(stored_dtype(source)).save_pretrained(out)
    written = {path.name for path in out.iterdir()}
    for name in source.carried:
        if name in written or name in ("README.md", LOG, PLOT):
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.folder / name, out / name)
    _fit_pooling(source, out, int(getattr(student.config, "hidden_size", 0) or 0))


def check_layout(source: Checkpoint, student: Any) -> None:
    """Raises CorecompressError where a part behind the student would not fit its width."""
    width = getattr(student.config, "hidden_size", None)
    if width == source.config.get("hidden_size"):
        return
    for module in _modules(source.folder):
        if module["type"].rpartition(".")[2] not in ("Transformer", "Pooling", "Normalize"):
            raise CorecompressError(
                f"{source.folder / module['path']}: takes vectors of the teacher's width; cut layers or ffn"
            )


def _modules(folder: Path) -> list[dict[str, Any]]:
    path = folder / "modules.json"
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def _fit_pooling(source: Checkpoint, out: Path, width: int) -> None:
    """sentence-transformers keeps the width beside the pooling."""
    path = out / "1_Pooling" / "config.json"
    if not path.exists() or not width:
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("word_embedding_dimension", "embedding_dimension"):
        if key in config:
            config[key] = width
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_report(out: Path, source: Checkpoint, state: State, facts: dict[str, Any]) -> None:
    """The log, the plot, and a card that says what was done."""
    log = {**facts, **vars(state), "losses": [round(loss, 6) for _, loss in state.losses]}
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in log.items())
    (out / LOG).write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    plot_losses(state, out / PLOT)
    last = dict(state.evaluations).get(state.best or 0)
    text = CARD.format(
        name=source.name.rpartition("/")[2],
        did=facts["did"],
        before=facts["teacher parameters"],
        after=facts["student parameters"],
        objectives=facts["objectives"],
        steps=state.step,
        tokens=state.tokens,
        seconds=human_seconds(state.seconds),
        seed=facts["seed"],
        loss="" if last is None else f" Loss on the evaluation split: {human_figure(last)}.",
        log=LOG,
        plot=PLOT,
    )
    front = _front_matter(source)
    (out / "README.md").write_text(front + text, encoding="utf-8")


def _front_matter(source: Checkpoint) -> str:
    """What the hub understands; licence and language are the teacher's."""
    import yaml
    from huggingface_hub.repocard import metadata_load

    from corecompress.report.card import KEPT

    path = source.folder / "README.md"
    try:
        found: Any = metadata_load(path) if path.exists() else None
    except Exception:  # a card that can't be parsed has nothing to carry along
        found = None
    original = found if isinstance(found, dict) else {}
    known: dict[str, Any] = {"library_name": original.get("library_name", "transformers")}
    known["tags"] = list(dict.fromkeys(["corecompress", "distillation", *(original.get("tags") or [])]))
    if "/" in source.name:
        known |= {"base_model": source.name, "base_model_relation": "finetune"}
    known |= {key: original[key] for key in KEPT if key in original}
    return f"---\n{yaml.safe_dump(known, sort_keys=False, allow_unicode=True)}---\n\n"
