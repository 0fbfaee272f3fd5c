"""The student: a cut of the teacher, or what another checkpoint or configuration gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from corecompress.errors import CorecompressError
from corecompress.hf.load import load_model
from corecompress.training.quiet import quiet
from corecompress_distill.axes import Axes, Kind, Widths, config_values, cut, find_axes, proven
from corecompress_distill.configs import Field, changed, value_of
from corecompress_distill.importance import Activations, block_influence
from corecompress_distill.options import Options
from corecompress_distill.structure import Stack, find_stacks
from corecompress_distill.vocabulary import check_vocabulary


@dataclass(frozen=True)
class Calibration:
    """What a choice by importance may look at: batches: makes a fresh iterator of inputs; run: (model, inputs) -> the
    model's output."""

    batches: Callable[[], Any]
    run: Callable[[Any, Any], Any]


def make_student(teacher: Any, folder: Path, options: Options, calibration: Calibration, seed: int) -> Any:
    """A model smaller than the teacher, of its class, with float32 weights.

    Raises CorecompressError for what can't be cut, and says what can.
    """
    torch.manual_seed(seed)
    if options.student is not None:
        return _elsewhere(teacher, folder, options)
    with quiet():
        stacks = find_stacks(teacher)
        kept = [
            _choose(teacher, s, asked, options.choose, calibration) for s, asked in _asked(teacher, stacks, options)
        ]
        axes, old, new = _widths(teacher, stacks, options, calibration)
        values: dict[Field, Any] = {} if new == old else config_values(teacher.config, old, new)
        for stack, numbers in zip(stacks, kept, strict=True):
            values |= dict.fromkeys(stack.fields, len(numbers))
            values |= {name: [value_of(teacher.config, name)[n] for n in numbers] for name in stack.lists}
        student = _made(teacher, values)
    if options.start == "cut":
        state = teacher.state_dict()
        names = {name: _source(name, stacks, kept, state) for name in student.state_dict()}
        order = _order(axes, old, new, teacher, calibration)
        student.load_state_dict(cut(state, names, axes, order))
    return student


def _made(teacher: Any, values: dict[Field, Any]) -> Any:
    try:
        config = changed(teacher.config, values)
        student = type(teacher)(config)
    except Exception as problem:  # every configuration says no in its own way
        written = ", ".join(f"{'.'.join(field)}={value}" for field, value in values.items())
        reason = " ".join(str(problem).split())[:200]
        raise CorecompressError(f"distill: a {type(teacher.config).__name__} can't have {written}: {reason}") from None
    fewer = sum(p.numel() for p in student.parameters()) < sum(p.numel() for p in teacher.parameters())
    if not fewer:
        raise CorecompressError("distill: the student would be as large as the teacher; ask for fewer layers or widths")
    return student


def _asked(teacher: Any, stacks: list[Stack], options: Options) -> list[tuple[Stack, Any]]:
    """What is asked of each stack: a number of layers, a list of them, or None."""
    if options.layers is None and options.decoder_layers is None:
        return [(stack, None) for stack in stacks]
    if not stacks:
        raise CorecompressError(
            f"distill: in a {type(teacher).__name__} no layers can be taken out (its configuration says nothing of a "
            "stack of separate blocks); what may be cut: ffn=N, or give student=FOLDER"
        )
    if options.decoder_layers is not None and len(stacks) < 2:
        raise CorecompressError("distill(decoder_layers): the model has no separate decoder; write layers=N")
    decoder = options.layers if options.decoder_layers is None else options.decoder_layers
    return list(zip(stacks, (options.layers, decoder), strict=False))


def _choose(
    teacher: Any, stack: Stack, asked: int | tuple[int, ...] | None, how: str, calibration: Calibration
) -> list[int]:
    """Numbers of the layers that stay. Raises CorecompressError for numbers out of range."""
    if asked is None:
        return list(range(stack.length))
    if isinstance(asked, tuple):
        if not asked or sorted(set(asked)) != list(asked) or asked[0] < 0 or asked[-1] >= stack.length:
            raise CorecompressError(
                f"distill(layers={list(asked)}): {stack.path} has layers 0 to {stack.length - 1}; "
                "write some of them in ascending order"
            )
        return list(asked)
    if not 1 <= asked <= stack.length:
        raise CorecompressError(
            f"distill(layers={asked}): {stack.path} has {stack.length} layers; write 1 to {stack.length - 1}"
        )
    if how == "importance":
        influence = block_influence(teacher, stack, calibration.batches(), calibration.run)
        return sorted(influence.topk(asked).indices.tolist())
    if how == "first":
        return list(range(asked))
    if how == "last":
        return list(range(stack.length - asked, stack.length))
    return evenly(stack.length, asked)


def evenly(length: int, count: int) -> list[int]:
    """`count` of the numbers 0 … length − 1, as far apart as can be, the first and the last among them."""
    if count == 1:
        return [0]
    return [round(n * (length - 1) / (count - 1)) for n in range(count)]


def _widths(
    teacher: Any, stacks: list[Stack], options: Options, calibration: Calibration
) -> tuple[Axes, Widths, Widths]:
    """(axes, widths of the teacher, widths of the student). Without a cut of widths the axes are empty."""
    asked: dict[Kind, int] = {k: v for k in ("hidden", "ffn", "heads") if (v := getattr(options, k)) is not None}
    if not asked:
        none = Widths(0, 0, 0, 1, 0)
        return Axes({}, none, tuple(stacks), ()), none, none
    axes = find_axes(teacher, stacks)
    old = axes.widths
    new = _new_widths(old, asked)
    cut_kinds = {kind for kind in ("hidden", "ffn", "heads") if getattr(new, kind) != getattr(old, kind)}
    if options.start == "cut" and cut_kinds:
        inputs = next(iter(calibration.batches()))
        axes = proven(teacher, axes, cut_kinds, lambda model: first_output(calibration.run(model, inputs)))
    return axes, old, new


def _new_widths(old: Widths, asked: dict[Kind, int]) -> Widths:
    """The student's widths, all that follows from what is asked included. Raises CorecompressError."""
    for kind, value in asked.items():
        if value > getattr(old, kind):
            raise CorecompressError(f"distill({kind}={value}): the model has {getattr(old, kind)}; write less")
    hidden, heads = asked.get("hidden"), asked.get("heads")
    if old.tied and (hidden or heads):
        # A head is hidden / heads wide and stays as wide, so both are cut together.
        heads = heads or (hidden or 0) // old.head_width
        hidden = hidden or heads * old.head_width
        if heads * old.head_width != hidden or heads < 1:
            raise CorecompressError(
                f"distill(hidden={hidden}, heads={heads}): this family's heads are hidden/heads wide, here "
                f"{old.head_width}; write for example hidden={max(heads, 1) * old.head_width}, heads={max(heads, 1)}"
            )
    heads = heads or old.heads
    if heads % old.shared:
        raise CorecompressError(
            f"distill(heads={heads}): {old.shared} query heads share a key-value head; write a multiple of {old.shared}"
        )
    return replace(
        old, hidden=hidden or old.hidden, ffn=asked.get("ffn", old.ffn), heads=heads, groups=heads // old.shared
    )


def first_output(output: Any) -> torch.Tensor:
    """Logits where there are some, else the hidden state."""
    found = output["logits"] if "logits" in output else output["last_hidden_state"]
    assert isinstance(found, torch.Tensor)
    return found


def _source(name: str, stacks: list[Stack], kept: list[list[int]], state: dict[str, torch.Tensor]) -> str:
    """The teacher's tensor that a tensor of the student begins as. What only one block has (T5's position biases, in
    the first) is taken from there."""
    for stack, numbers in zip(stacks, kept, strict=True):
        block = stack.block_of(name)
        if block is not None:
            wanted = stack.renamed(name, numbers[block])
            return wanted if wanted in state else name
    return name


def _order(axes: Axes, old: Widths, new: Widths, teacher: Any, calibration: Calibration) -> Any:
    """Which units stay (axes.Order): the most important ones of each kind that is cut."""
    counts = {kind: (getattr(old, kind), getattr(new, kind)) for kind in ("hidden", "ffn")}
    counts["heads"] = (old.groups, new.groups)
    measured = None if old == new else Activations(teacher, axes, calibration.batches(), calibration.run)
    known: dict[tuple[Kind, int, int], torch.Tensor] = {}

    def order(kind: Kind, stack: int, block: int) -> torch.Tensor:
        before, after = counts[kind]
        if before == after or measured is None:
            return torch.arange(before)
        at = (kind, stack, block)
        if at not in known:
            known[at] = measured.keep(kind, stack, block, after)
        return known[at]

    return order


def _elsewhere(teacher: Any, folder: Path, options: Options) -> Any:
    """A student from a checkpoint, or at random from a configuration. Its vocabulary has to be the teacher's."""
    assert options.student is not None
    from transformers import AutoConfig

    path = Path(options.student).expanduser()
    only_config = path.is_file() or (path.is_dir() and not list(path.glob("*.safetensors")))
    try:
        with quiet():
            config = AutoConfig.from_pretrained(str(path) if path.exists() else options.student)
    except Exception as problem:
        reason = " ".join(str(problem).split())[:160]
        raise CorecompressError(f"distill(student={options.student}): no configuration loads ({reason})") from None
    check_vocabulary(teacher.config, folder, config, options.student)
    with quiet():
        if not only_config and options.start == "cut":
            student = load_model(options.student, type(teacher).__name__, dtype=torch.float32)
        else:
            student = _of_config(teacher, config, options.student)
    return student


def _of_config(teacher: Any, config: Any, name: str) -> Any:
    import transformers

    if type(config) is type(teacher.config):
        return type(teacher)(config)
    named = (config.architectures or [""])[0]
    cls = getattr(transformers, named, None)
    if cls is None:
        raise CorecompressError(
            f"distill(student={name}): its config.json names no architecture that transformers knows; add "
            f'"architectures": ["{type(teacher).__name__}"] or the like'
        )
    return cls(config)
