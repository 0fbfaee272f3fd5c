"""A model whose weights stay on the disk: built without them, filled module by module, walked block by block.

    walk = Walk(job)          a stack of blocks of one class, found by structure
    walk.front(inputs)        what the first block is given; what the model hands to every block is noted
    walk.enter(inputs)        front and first block
    walk.step(number, …)      one block alone, on hidden states that the caller keeps
    walk.leave(inputs, h)     the model's own end behind the last block, up to its head

The model's forward runs as it is written. Only the blocks' forwards are exchanged: for one that notes its arguments and
gives on what it got, so positions, rotary embeddings and masks are the model's own, whatever its family.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

from corecompress.checkpoint import Checkpoint
from corecompress.errors import CorecompressError
from corecompress.floats import to_float32
from corecompress.training.quiet import quiet as without_remarks
from corecompress_vae.layout import CODED
from corecompress_vae.names import StoredNames
from corecompress_vae.passes import device, why_failed
from corecompress_vae.watch import embeddings_of

Call = tuple[tuple[Any, ...], dict[str, Any]]


class CantWalk(Exception):
    """The model is no plain stack of blocks; the message says what it is instead."""


class Reached(Exception):
    """The forward has come as far as it was wanted."""


class Walk:
    """A model without weights and its stack of blocks. Raises CantWalk for one that has none."""

    def __init__(self, source: Checkpoint):
        self.source, self.device = source, device()
        self.model = _build(source)
        for module in self.model.modules():
            for key, value in module._buffers.items():
                module._buffers[key] = None if value is None else value.to(self.device)
        self.stack, self.blocks = _longest_stack(self.model)
        self.stored = StoredNames.of(self.model, source.tensors)
        self.head = embeddings_of(self.model, "output")
        self._make: Any = None
        """Of a hidden state, what a block returns."""

    def fill(self, number: int | None, only: Collection[str] | None = None) -> None:
        """Read the weights of block `number` (None: of all that is outside of the blocks), as float32; `only` those of
        these stored tensors."""
        shared: dict[str, torch.nn.Parameter] = {}
        for name, module, key, value in self._values(number):
            stored = self.stored.plain.get(name, name)
            if only is not None and stored not in only:
                continue
            if stored not in shared:
                values = self._read(name)
                if values is None and value.is_meta:
                    raise CantWalk(f"the checkpoint has no tensor for its parameter {name}")
                if values is None:  # positions and the like, which are computed as well
                    continue
                if values.shape != value.shape:
                    raise CantWalk(f"{stored} has another shape than its parameter {name}")
                shared[stored] = torch.nn.Parameter(values, requires_grad=False)
            if key in module._parameters:
                module._parameters[key] = shared[stored]
            else:
                module._buffers[key] = shared[stored].data.to(value.dtype)

    def _read(self, name: str) -> torch.Tensor | None:
        """A parameter's or buffer's values, float32; None of what the checkpoint does not have as floats."""
        if name in self.stored.merged:
            experts = [[self._floats(part) for part in parts] for parts in self.stored.merged[name]]
            return torch.stack([torch.cat([part for part in parts if part is not None]) for parts in experts])
        return self._floats(self.stored.plain[name]) if name in self.stored.plain else None

    def _floats(self, stored: str) -> torch.Tensor | None:
        tensor = self.source.read(stored)
        if tensor.info.dtype not in CODED:
            return None
        values = torch.from_numpy(to_float32(tensor.data, tensor.info.dtype))
        return values.reshape(tensor.info.shape).to(self.device)

    def parameters(self, number: int | None) -> Iterator[str]:
        """Full names of what `fill` fills, tied ones at every place."""
        return (name for name, *_ in self._values(number))

    def drain(self, number: int | None) -> None:
        """Give the memory of their parameters back."""
        for _, module, key, value in self._values(number):
            if key in module._parameters:
                module._parameters[key] = torch.nn.Parameter(value.to("meta"), requires_grad=False)

    def enter(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, list[Call]]:
        """(hidden states behind the first block, with a graph where gradients are on; how the others are called).

        Front and first block must be filled. Raises CantWalk as `front` does.
        """
        hidden, calls = self.front(inputs)
        return self.step(0, hidden, calls[0]), calls[1:]

    def front(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, list[Call]]:
        """(hidden states that the first block is given, with a graph where gradients are on; how each block is called).

        The front must be filled, and the first time the first block: it shows what a block returns. Raises CantWalk
        where a block is not called once, on what the one before it gave.
        """
        given: list[torch.Tensor] = []
        calls: list[Call] = []

        def first(*args: Any, **kwargs: Any) -> Any:
            if given:
                raise CantWalk(f"it calls its block {self.stack}.0 more than once")
            call, h = _without_hidden(args, kwargs)
            given.append(h)
            calls.append(call)
            if self._make is None:
                with torch.no_grad():
                    self._make = returning(type(self.blocks[0]).forward(self.blocks[0], *args, **kwargs))
            return self._make(h)

        def later(number: int) -> Any:
            def forward(*args: Any, **kwargs: Any) -> Any:
                call, h = _without_hidden(args, kwargs)
                if len(given) != 1 or number != len(calls) or h.data_ptr() != given[0].data_ptr():
                    raise CantWalk("its blocks are not called one after the other, each on what the last one gave")
                calls.append(call)
                return self._make(h)

            return forward

        try:
            self._run(inputs, [first, *map(later, range(1, len(self.blocks)))])
        except CantWalk:
            raise
        except Exception as problem:  # of any kind: the model sees the data for the first time
            raise CantWalk(why_failed(inputs, problem)) from problem
        if not given or len(calls) != len(self.blocks):
            raise CantWalk("its forward does not call every block")
        return given[0], calls

    def step(self, number: int, hidden: torch.Tensor, call: Call) -> torch.Tensor:
        """What block `number`, which must be filled, makes of the hidden states."""
        args, kwargs = call
        hidden = hidden.to(self.device)
        args = tuple(hidden if part is _HERE else part for part in args)
        kwargs = {key: hidden if part is _HERE else part for key, part in kwargs.items()}
        return hidden_in(self.blocks[number](*args, **kwargs))

    def leave(self, inputs: dict[str, Any], hidden: torch.Tensor) -> torch.Tensor:
        """What the head is given when the last block has made `hidden`. The front must be filled."""
        seen: list[torch.Tensor] = []

        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._make(hidden.to(self.device))

        def head(x: torch.Tensor) -> Any:
            seen.append(x)
            raise Reached

        self._run(inputs, [forward] * len(self.blocks), head)
        if not seen:
            raise CantWalk("its forward does not call its head")
        return seen[0]

    def _run(self, inputs: dict[str, Any], forwards: list[Any], head: Any = None) -> None:
        """The model's forward with the blocks' exchanged, up to its head."""
        with ExitStack() as stack:
            if self.head is not None:
                stack.enter_context(exchanged(self.head, head or _stop))
            for block, forward in zip(self.blocks, forwards, strict=True):
                stack.enter_context(exchanged(block, forward))
            with suppress(Reached):
                self.model(**{key: value.to(self.device) for key, value in inputs.items()})

    def _values(self, number: int | None) -> Iterator[tuple[str, torch.nn.Module, str, torch.Tensor]]:
        """(full name, its module, name there, value) of parameters and buffers, tied ones at every place."""
        prefix = f"{self.stack}." if number is None else f"{self.stack}.{number}."
        for path, module in self.model.named_modules(remove_duplicate=False):
            inside = f"{path}.".startswith(prefix)
            if inside == (number is None):
                continue
            for key, value in itertools.chain(module._parameters.items(), module._buffers.items()):
                if value is not None:
                    yield f"{path}.{key}" if path else key, module, key, value


_HERE = object()
"""Stands where a block's hidden states are handed over."""


def _build(source: Checkpoint) -> Any:
    """The model of config.json in float32: parameters without memory, buffers as they are computed."""
    import transformers
    from transformers.initialization import no_init_weights

    names = source.config.get("architectures") or []
    kind = getattr(transformers, str(names[0]), None) if names else None
    try:
        with without_remarks():
            config = transformers.AutoConfig.from_pretrained(str(source.folder))
        config.use_cache, config._experts_implementation = False, "eager"  # experts one by one, for Watch
        with without_remarks(), no_init_weights(), _parameters_on_meta():
            make = (kind or transformers.AutoModel)._from_config if kind else transformers.AutoModel.from_config
            model = make(config, dtype=torch.float32)
            model.tie_weights()
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as problem:
        line = " ".join(str(problem).split())[:200]
        raise CorecompressError(
            f"{source.name}: transformers can't build it for calibration ({line}); leave --data out"
        ) from None
    return model.eval().requires_grad_(False)


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Parameters that modules register have shapes only."""
    plain = torch.nn.Module.register_parameter

    def register(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)
        plain(module, name, parameter)

    torch.nn.Module.register_parameter = register  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = plain  # type: ignore[method-assign]


def _longest_stack(model: Any) -> tuple[str, list[torch.nn.Module]]:
    """(name, blocks) of the longest list of modules of one class."""
    stacks = [
        (name, list(module))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len({type(block) for block in module}) == 1
    ]
    if not stacks or getattr(model.config, "is_encoder_decoder", False):
        raise CantWalk("it is no single stack of blocks of one class")
    return max(stacks, key=lambda stack: len(stack[1]))


def _stop(*args: Any, **kwargs: Any) -> Any:
    raise Reached


@contextmanager
def exchanged(module: torch.nn.Module, forward: Any) -> Iterator[None]:
    """Calls of the module go to `forward`."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def hidden_in(out: Any) -> torch.Tensor:
    """The hidden states in what a module returns: all of it, or the first."""
    return out if torch.is_tensor(out) else out[0]


def returning(out: Any) -> Any:
    """Hidden states -> what a module returns that returned `out`. Raises CantWalk where there was more in it."""
    if torch.is_tensor(out):
        return lambda hidden: hidden
    if not isinstance(out, tuple) or not out or any(part is not None for part in out[1:]):
        raise CantWalk("its blocks return more than hidden states")
    return lambda hidden: (hidden, *out[1:])


def _without_hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, torch.Tensor]:
    """(arguments with a mark for the hidden states, the hidden states)."""
    if args and torch.is_tensor(args[0]):
        return ((_HERE, *args[1:]), kwargs), args[0]
    if torch.is_tensor(kwargs.get("hidden_states")):
        return (args, {**kwargs, "hidden_states": _HERE}), kwargs["hidden_states"]
    raise CantWalk("its blocks are not called with hidden states")
