"""What a model says of some inputs, as far as the objectives ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from corecompress.measure.outputs import pool
from corecompress_distill.inputs import Inputs
from corecompress_distill.structure import Attention

Need = Literal["logits", "hidden", "relations", "embedding"]


@dataclass(frozen=True)
class Outputs:
    """logits [n, length, vocabulary] or [n, classes]; hidden: what enters the first block, then what comes out of each,
    [n, length, width]; embedding [n, width], pooled; relations: query, key and value (or all in one) of the attention
    that is watched, [n, length, width]. None where nobody asked for it."""

    logits: torch.Tensor | None = None
    hidden: tuple[torch.Tensor, ...] | None = None
    embedding: torch.Tensor | None = None
    relations: tuple[torch.Tensor, ...] | None = None


@dataclass
class Reader:
    """Runs a model and picks out what is needed. pooling: of sentence-transformers (mean, cls, max, last);
    attention: the one whose query, key and value are watched."""

    model: Any
    needs: frozenset[Need]
    pooling: str = "mean"
    attention: Attention | None = None
    _seen: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, inputs: Inputs) -> Outputs:
        """The outputs for the inputs, with gradients unless the caller switched them off."""
        extra: dict[str, Any] = {"output_hidden_states": True} if "hidden" in self.needs else {}
        if hasattr(self.model.config, "use_cache"):
            extra["use_cache"] = False
        with self._watched():
            out = self.model(**inputs.model, **extra)
        embedding = None
        if "embedding" in self.needs:
            hidden = out["last_hidden_state"]
            mask = inputs.mask if inputs.mask is not None else hidden.new_ones(hidden.shape[:2], dtype=torch.bool)
            embedding = pool(hidden.float(), mask.long(), self.pooling)
        return Outputs(
            out["logits"] if "logits" in self.needs else None,
            self._hidden(out) if "hidden" in self.needs else None,
            embedding,
            tuple(self._seen) if "relations" in self.needs else None,
        )

    def _hidden(self, out: Any) -> tuple[torch.Tensor, ...]:
        return tuple(out["decoder_hidden_states"] if "decoder_hidden_states" in out else out["hidden_states"])

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._seen.clear()
        names = self.attention.inputs if self.attention and "relations" in self.needs else ()
        # A hook that keeps the outputs in the order of the projections, whatever the order of their calls.
        order: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Any:
            return lambda module, args, output: order.update({name: output})

        handles = [self.model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._seen.extend(order[name] for name in names if name in order)
