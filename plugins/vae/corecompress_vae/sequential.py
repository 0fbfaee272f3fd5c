"""Coding a model's blocks one after the other, each making up for what coding did before it.

    original  ─► block ─► s  at the inputs of layers, and where what they write is read (stages.py)
    coded     ─► block ─► s', x'          C = least squares of s − s' on the layer's inputs x'
                                          W + C (or W + W C) is coded instead of W, and the block goes on with that

Errors of coding are the same for every token with the same inputs, and later layers see much of these inputs again: a
part of the error can be foretold, and taken back at every sum of the residual stream. Tokens count by the inverse of
their squared length in front of the block, so that attention sinks are no more than others. Every eighth piece of the
data is held out of all least squares: it chooses how far each of them goes (least_squares.py).
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray

from corecompress.checkpoint import Checkpoint
from corecompress.components import Job, Tensor, TensorInfo
from corecompress.floats import to_float32
from corecompress_vae.calibrate import threads_of
from corecompress_vae.ceiling import SHORTER, Ceiling
from corecompress_vae.hidden import Hidden
from corecompress_vae.least_squares import Moments, correction
from corecompress_vae.passes import enough_memory, fast_dtype, first_batch, pieces, why_failed, why_not_read
from corecompress_vae.skeleton import Call, CantWalk, Reached, Walk, exchanged
from corecompress_vae.stages import BEHIND, Seen, Stage, inputs_of, stages_of
from corecompress_vae.turns import in_order, one_thread
from corecompress_vae.watch import Conv1D, embeddings_of

NEEDED = "a block, moments of its layers and the activations of a piece of the data"
HELD = 8
"""One piece of the data in so many chooses how far corrections go."""

Code = Callable[[TensorInfo, "NDArray[Any]"], "NDArray[Any]"]
"""Codes a tensor's elements, float32, and keeps the payload; its dense bytes, as they will be decoded."""


class _Mixed:
    """The checkpoint with what is coded of it so far, for `Walk` to read from. twins: Job.twins."""

    def __init__(self, source: Checkpoint, twins: Mapping[str, str]):
        self.source, self.twins, self.coded = source, twins, dict[str, Tensor]()
        self.shared = set(twins.values())
        """Tensors that stand in several places."""

    def read(self, name: str) -> Tensor:
        return self.coded.get(self.twins.get(name, name)) or self.source.read(name)

    def forget(self) -> None:
        """All that no other place has."""
        self.coded = {name: tensor for name, tensor in self.coded.items() if name in self.shared}


def code_in_order(job: Job, matrices: list[TensorInfo], tokens: int | None, on_disk: bool, code: Code) -> None:
    """Code matrices of the model's blocks, corrected, and of what is around them; on_disk: hidden states are.

    What is left out (all of a model that is no stack of blocks: a line says so) is to be coded as it is.
    """
    try:
        walk = Walk(job.source)
        if unread := why_not_read(walk.model, first_batch(job, tokens)):
            raise CantWalk(unread)
        with torch.no_grad(), enough_memory(), one_thread():
            _Sequence(job, walk, matrices, tokens, on_disk, code).run()
    except CantWalk as problem:
        job.progress.note(f"{job.source.name}: {problem}, so layers don't make up for each other's errors")


class _Sequence:
    """One run over all blocks."""

    def __init__(self, job: Job, walk: Walk, matrices: list[TensorInfo], tokens: int | None, on_disk: bool, code: Code):
        self.job, self.walk, self.tokens, self.code = job, walk, tokens, code
        self.infos = {info.name: info for info in matrices}
        self.source, self.mixed = job.source, _Mixed(job.source, job.twins)
        self.dtype = fast_dtype()
        self.ceiling = Ceiling(job.max_memory)
        self.masks: list[torch.Tensor] = []
        self.calls: list[list[Call]] = []
        self.on_disk = on_disk or job.max_memory is not None
        self.threads = 1 if self.on_disk else threads_of(job)
        self.original, self.current = self._hidden("original"), self._hidden("current")
        self.done: set[str] = set()
        self.running = threading.local()
        self.structures: dict[tuple[str, ...], list[Stage]] = {}

    def run(self) -> None:
        blocks = len(self.walk.blocks)
        self.ceiling.check("what was calibrated", SHORTER)
        self.job.progress.start("coding block by block", blocks)
        try:
            self._front()
            for number in range(blocks):
                self._block(number)
                self.job.progress.advance(1)
        finally:
            for hidden in (self.original, self.current):
                hidden.clear()

    def _hidden(self, name: str) -> Hidden:
        return Hidden(self.job.scratch / f"{name}.f32" if self.on_disk else None)

    def _front(self) -> None:
        """What the first block is given, by original and by coded tables."""
        takes = inspect.signature(self.walk.model.forward).parameters
        given = list(pieces(self.job, self.tokens))
        inputs = [{key: value for key, value in part.items() if key in takes} for part, _ in given]
        self._fill(0, coded=False)
        self._fill(None, coded=False)
        for part, part_inputs in zip(given, inputs, strict=True):
            hidden, calls = self.walk.front(part_inputs)
            if hidden.dim() != 3:
                raise CantWalk("its blocks are not given tokens")
            mask = part[0].get("attention_mask", torch.ones(hidden.shape[:2]))
            self.masks.append(mask.bool() if mask.shape == hidden.shape[:2] else torch.ones(hidden.shape[:2]).bool())
            self.calls.append(calls)
            self.original.append(hidden)
        if len(self.masks) < 2:
            raise CantWalk("there is one piece of data only")
        self._code(self._in_front())
        self._fill(None, coded=True)
        for part_inputs in inputs:
            self.current.append(self.walk.front(part_inputs)[0])
        self.walk.drain(None)

    def _block(self, number: int) -> None:
        self._fill(number, coded=False)
        stages = self._stages(number)
        later = {self._stored(number, path) for stage in stages for path in stage.paths}
        weights = [self._weights(place) for place in range(len(self.masks))]
        wanted = self._wanted(number, {stage.place for stage in stages})
        self._code([name for name in self._names(number) if name not in later])
        self._fill(number, coded=True)
        with ExitStack() as settled:
            for stage in stages:
                inputs = self._hidden("inputs") if stage.owner else None
                self._correct(number, stage, wanted.get(stage.place, self.original), weights, inputs)
                if inputs is not None:
                    settled.enter_context(self._settled(number, stage, inputs))
            for place, out in enumerate(self._each(lambda place: self._step(number, self.current, place))):
                self.current.write(place, out)
        for hidden in wanted.values():
            hidden.clear()
        self.walk.drain(number)
        self.mixed.forget()

    def _wanted(self, number: int, places: set[str]) -> dict[str, Hidden]:
        """What the original block gives to each of these places in it; its hidden states move on."""
        wanted = {place: self._hidden(f"place-{n}") for n, place in enumerate(sorted(places - {BEHIND}))}
        with inputs_of(self.walk.blocks[number], set(wanted)) as seen:

            def run(place: int) -> dict[str, torch.Tensor]:
                out = self._step(number, self.original, place)
                return {**seen.inputs, BEHIND: out}

            for place, found in enumerate(self._each(run)):
                if found[BEHIND].shape != self.original.shapes[place]:
                    raise CantWalk("its blocks change the shape of what they are given")
                for key, hidden in wanted.items():
                    hidden.append(found[key].float())
                self.original.write(place, found[BEHIND])
        return wanted

    def _correct(
        self, number: int, stage: Stage, wanted: Hidden, weights: list[torch.Tensor], inputs: Hidden | None
    ) -> None:
        """Code the stage's weights, corrected by what is missing at its place. inputs: where those of its layers go, or
        None."""
        block, name = self.walk.blocks[number], partial(self._stored, number)
        fitted, held = self._moments(number, stage, wanted, weights, inputs)
        self.ceiling.check(NEEDED, SHORTER)
        change = correction(fitted, held, self.threads)

        def code(path: str) -> None:
            layer = block.get_submodule(path)
            weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
            if change is not None:
                weight = weight + (weight @ change if stage.reads else change)
            weight = weight.T if isinstance(layer, Conv1D) else weight
            self._keep(name(path), weight.cpu().contiguous().numpy().reshape(-1))

        for _ in in_order(code, ((path,) for path in stage.paths), self.threads):
            pass
        self._fill(number, coded=True, only=[name(path) for path in stage.paths])

    def _moments(
        self, number: int, stage: Stage, wanted: Hidden, weights: list[torch.Tensor], inputs: Hidden | None
    ) -> tuple[Moments, Moments]:
        """(those to fit to, those held out) of all pieces. inputs: where those of the stage's layers go, or None."""
        fitted, held = None, None
        places = {stage.paths[0], stage.place} - {BEHIND}
        with inputs_of(self.walk.blocks[number], places, stage.place) as seen:
            run = partial(self._seen, number, stage, wanted, weights, seen)
            for place, (found, x) in enumerate(self._each(run)):
                if place % HELD == HELD - 1 or (place == len(self.masks) - 1 and held is None):
                    held = _added(held, found)
                else:
                    fitted = _added(fitted, found)
                if inputs is not None:
                    inputs.append(x)
        assert fitted is not None
        assert held is not None
        return fitted, held

    @contextmanager
    def _settled(self, number: int, stage: Stage, inputs: Hidden) -> Iterator[None]:
        """Meanwhile the stage's owner does not run: it gives what its layer, coded, makes of those inputs."""
        (path,) = stage.paths
        layer, made = self.walk.blocks[number].get_submodule(path), self._hidden(f"made-{stage.owner}")

        def run(place: int) -> torch.Tensor:
            with self._fast():
                return layer(inputs.read(place).to(self.walk.device)).float()

        def forward(*args: Any, **kwargs: Any) -> Any:
            return stage.returned(made.read(self.running.place).to(self.walk.device))

        for found in self._each(run):
            made.append(found)
        inputs.clear()
        with exchanged(self.walk.blocks[number].get_submodule(stage.owner), forward):
            yield
        made.clear()

    def _seen(
        self, number: int, stage: Stage, wanted: Hidden, weights: list[torch.Tensor], seen: Seen, place: int
    ) -> tuple[Moments, torch.Tensor]:
        """(moments, inputs of the stage's layers) in one piece of the data."""
        try:
            given = self._step(number, self.current, place)
        except Reached:
            given = seen.inputs[stage.place].float()
        inputs, w = seen.inputs[stage.paths[0]].float(), weights[place].to(given.device)
        missing = wanted.read(place).to(given.device) - given
        x, missing, alive = inputs.flatten(0, -2), missing.flatten(0, -2), w > 0
        self.ceiling.check(NEEDED, SHORTER)
        return Moments.of(x[alive], missing[alive], w[alive], self.dtype), inputs

    def _weights(self, place: int) -> torch.Tensor:
        """What each token counts, [t]: 0 for padding."""
        square = self.original.read(place).square().mean(-1)
        return (self.masks[place] / square.clamp_min(1e-20)).flatten()

    def _step(self, number: int, hidden: Hidden, place: int) -> torch.Tensor:
        h, self.running.place = hidden.read(place), place
        with self._fast():
            return self.walk.step(number, h, self.calls[place][number]).float()

    def _fast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.walk.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def _each(self, work: Callable[[int], Any]) -> Iterator[Any]:
        """work(place) of every piece, in their order."""
        return in_order(work, ((place,) for place in range(len(self.masks))), self.threads)

    def _stages(self, number: int) -> list[Stage]:
        """Those of the block, of layers whose weights are coded and no other's."""
        block = self.walk.blocks[number]
        key = tuple(f"{path} {type(module).__name__}" for path, module in block.named_modules())
        if key not in self.structures:
            self.structures[key] = self._found(number)
        due = []
        for stage in self.structures[key]:
            paths = tuple(path for path in stage.paths if self._is_correctable(self._stored(number, path)))
            if paths:
                due.append(replace(stage, paths=paths, place=paths[0] if stage.reads else stage.place))
        return due

    def _found(self, number: int) -> list[Stage]:
        """All of the block; the first piece of the data tries whether it runs, and whether in bfloat16."""
        try:
            self._step(number, self.original, 0)
        except Exception:  # of any kind: there are forwards that make float32 themselves
            self.dtype = torch.float32
        try:
            step = partial(self.walk.step, number, self.original.read(0), self.calls[0][number])
            return stages_of(self.walk.blocks[number], step, torch.Generator().manual_seed(self.job.seed))
        except Exception as problem:  # of any kind: it is not our code that runs
            raise CantWalk(why_failed({"hidden_states": None}, problem)) from problem

    def _stored(self, number: int, path: str) -> str:
        name = self.walk.stored.plain.get(f"{self.walk.stack}.{number}.{path}.weight", "")
        return self.job.twins.get(name, name)

    def _names(self, number: int | None) -> list[str]:
        """Coded tensors that block `number` (None: all that is outside of the blocks) is made of."""
        names = dict[str, None]()
        for parameter in self.walk.parameters(number):
            stored = self.walk.stored.tensors_of(parameter)
            names |= dict.fromkeys(self.job.twins.get(name, name) for name in stored)
        return [name for name in names if self._is_due(name)]

    def _in_front(self) -> list[str]:
        """Those outside of the blocks without a head of its own, which comes behind them."""
        head, table = self.walk.head, embeddings_of(self.walk.model, "input")
        alone = head is not None and (table is None or head.weight is not table.weight)
        own = {name for name, value in self.walk.model.named_parameters() if alone and value is head.weight}
        stored = {tensor for name in own for tensor in self.walk.stored.tensors_of(name)}
        skipped = {self.job.twins.get(name, name) for name in stored}
        return [name for name in self._names(None) if name not in skipped]

    def _is_due(self, name: str) -> bool:
        """Whether it is to be coded, and no block before had a part in it."""
        return name in self.infos and name not in self.done

    def _is_correctable(self, name: str) -> bool:
        """Whether it is due and of no other place, which would need another correction."""
        return self._is_due(name) and name not in self.mixed.shared

    def _code(self, names: list[str]) -> None:
        def run(name: str) -> None:
            self._keep(name, to_float32(self.source.read(name).data, self.infos[name].dtype))

        for _ in in_order(run, ((name,) for name in names), self.threads):
            pass

    def _keep(self, name: str, weights: NDArray[Any]) -> None:
        info = self.infos[name]
        self.mixed.coded[name] = Tensor(info, self.code(info, weights))
        self.done.add(name)

    def _fill(self, number: int | None, coded: bool, only: list[str] | None = None) -> None:
        self.walk.source = self.mixed if coded else self.source
        self.walk.fill(number, only)


def _added(sums: Moments | None, found: Moments) -> Moments:
    if sums is None:
        return found
    sums.add(found)
    return sums
