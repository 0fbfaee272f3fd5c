"""In which order the linear layers of a block are coded, and by what each of them is corrected: found by running it.

    h ─► norm ─► q, k, v ─► attention ─► o ─► + ─► norm ─► gate, up ─► down ─► + ─► block's output
                 read                    write └ read by this norm     write   └ read behind the block

A layer writes into a sum if something that comes later is given its output with things added: what is missing there is
what it can make up for. Others are corrected by what is missing of their own inputs, together where these are the same.
What a module around such a layer returns (attention, of o) is settled once the layer is coded: it need not run again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from corecompress_vae.skeleton import CantWalk, Reached, exchanged, hidden_in, returning
from corecompress_vae.watch import is_linear

BEHIND = ""
"""The place behind the block: what it returns."""
EQUAL = 1e-3
"""Share of a change by which what arrives may differ from it."""

Step = Callable[[], torch.Tensor]
"""Runs a block and gives its output."""


@dataclass(frozen=True)
class Stage:
    """Linear layers, by their paths in the block, that are given the same, and the place that shows what is missing: a
    module there, or BEHIND. reads: the place is where they are given it; otherwise one that writes into a sum. owner:
    the module around that one that returns what it does, empty where there is none with more layers in it; returned:
    what the owner returns when its layer makes y."""

    paths: tuple[str, ...]
    place: str
    reads: bool
    owner: str = ""
    returned: Callable[[torch.Tensor], Any] = field(default=lambda y: y, compare=False)


class Seen(threading.local):
    """What modules were given, in this thread."""

    def __init__(self) -> None:
        self.inputs: dict[str, torch.Tensor] = {}


@contextmanager
def inputs_of(block: torch.nn.Module, paths: set[str], last: str = BEHIND) -> Iterator[Seen]:
    """Note what modules are given (the latest, if they are called several times). Raises Reached in the block's
    forward when `last` is."""
    seen = Seen()

    def noting(path: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            given = [value for value in (*args, *kwargs.values()) if torch.is_tensor(value)]
            if given:
                seen.inputs.pop(path, None)  # in the order of the latest calls
                seen.inputs[path] = given[0].detach()
            if path == last:
                raise Reached

        return hook

    handles = [
        block.get_submodule(path).register_forward_pre_hook(noting(path), with_kwargs=True) for path in sorted(paths)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def stages_of(block: torch.nn.Module, step: Step, generator: torch.Generator) -> list[Stage]:
    """In the order in which they are called. Layers that a block does not call once, on every token, are none."""
    linear = {path for path, module in block.named_modules() if path and is_linear(module)}
    calls, before, outputs = _calls_of(block, linear, step)
    tokens, readers, found = before[BEHIND].shape[:-1], dict[int, list[str]](), list[Stage]()
    for path, given in calls.items():
        if len(given) != 1 or given[0][1].shape[:-1] != tokens:
            continue
        x, y = given[0]
        place = _place_of(block, path, y, before, step, generator)
        if place is not None:
            found.append(_with_owner(Stage((path,), place, reads=False), block, y, linear, outputs, step))
        elif id(x) in readers:
            readers[id(x)].append(path)
        else:
            readers[id(x)] = [path]
            found.append(Stage((path,), path, reads=True))
    return [
        replace(stage, paths=tuple(readers[id(calls[stage.place][0][0])])) if stage.reads else stage for stage in found
    ]


def _calls_of(
    block: torch.nn.Module, linear: set[str], step: Step
) -> tuple[dict[str, list[tuple[torch.Tensor, torch.Tensor]]], dict[str, torch.Tensor], dict[str, list[Any]]]:
    """(inputs and outputs of every call of a linear layer, what each place is given, what each module returns)."""
    calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    outputs: dict[str, list[Any]] = {}

    def noting(path: str) -> Any:
        def hook(module: Any, args: Any, y: Any) -> None:
            outputs.setdefault(path, []).append(y)
            if path in linear:
                calls.setdefault(path, []).append((args[0], y.detach()))

        return hook

    modules = [path for path, _ in block.named_modules() if path]
    handles = [block.get_submodule(path).register_forward_hook(noting(path)) for path in modules]
    with inputs_of(block, set(modules)) as seen:
        out = step()
    for handle in handles:
        handle.remove()
    return calls, {**seen.inputs, BEHIND: out}, {**outputs, BEHIND: [out]}


def _with_owner(
    stage: Stage,
    block: torch.nn.Module,
    y: torch.Tensor,
    linear: set[str],
    outputs: dict[str, list[Any]],
    step: Step,
) -> Stage:
    """The stage with the largest module that need not run while its layer gives y."""
    names = stage.paths[0].split(".")
    for length in range(1, len(names)):
        owner = ".".join(names[:length])
        if len(outputs.get(owner, ())) != 1 or sum(path.startswith(f"{owner}.") for path in linear) < 2:
            continue
        (given,) = outputs[owner]
        try:
            found = replace(stage, owner=owner, returned=returning(given))
        except CantWalk:  # it returns more than its layer's output
            continue
        first = hidden_in(given)
        if not torch.is_tensor(first) or first.data_ptr() != y.data_ptr() or first.shape != y.shape:
            continue
        if torch.equal(_without(block, found, y, step), *outputs[BEHIND]):
            return found
    return stage


def _without(block: torch.nn.Module, stage: Stage, y: torch.Tensor, step: Step) -> torch.Tensor:
    """What the block returns when the stage's owner does not run."""
    with exchanged(block.get_submodule(stage.owner), lambda *args, **kwargs: stage.returned(y)):
        return step()


def _place_of(
    block: torch.nn.Module,
    path: str,
    y: torch.Tensor,
    before: dict[str, torch.Tensor],
    step: Step,
    generator: torch.Generator,
) -> str | None:
    """The last place that a change of the layer's output arrives at as it is; None for an output of another width than
    the block's."""
    if y.shape != before[BEHIND].shape:
        return None
    change = torch.randn(y.shape, generator=generator).to(y.device) * y.square().mean().sqrt()
    handle = block.get_submodule(path).register_forward_hook(lambda module, args, y: y + change)
    with inputs_of(block, set(before) - {BEHIND}) as seen:
        changed = step()
    handle.remove()
    places = [
        place for place, after in {**seen.inputs, BEHIND: changed}.items() if _arrives(change, before.get(place), after)
    ]
    return places[-1] if places else None


def _arrives(change: torch.Tensor, before: torch.Tensor | None, after: torch.Tensor) -> bool:
    """Whether what a place is given has changed by just that."""
    if before is None or before.shape != change.shape or after.shape != change.shape:
        return False
    return bool((after - before - change).norm() < EQUAL * change.norm())
