"""Self-attention relations (Wang et al., "MiniLMv2", arXiv:2012.15828): how similar the tokens' queries are to one
another, their keys, and their values, as distributions over the tokens. Neither the width nor the number of heads has
to be the teacher's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from corecompress import option
from corecompress.errors import CorecompressError
from corecompress_distill.inputs import Inputs
from corecompress_distill.objectives.base import Objective, Scene, Weight
from corecompress_distill.outputs import Need, Outputs
from corecompress_distill.structure import Attention, find_attentions, find_stacks


@dataclass(frozen=True)
class Options(Weight):
    heads: int | None = option(None, "relation heads (default: as many as the teacher has key-value heads)")
    layer: int = option(-1, "the teacher's layer that the student's last one is compared with; −1: the last")


class Relations(Objective):
    """KL of the teacher's relations to the student's, mean over tokens, relation heads, and query, key and value."""

    Options: ClassVar[type[Any]] = Options
    needs: frozenset[Need] = frozenset({"relations"})

    def __init__(self, options: Any, scene: Scene):
        super().__init__(options, scene)
        blocks = _attentions(scene.teacher)
        if not -len(blocks) <= options.layer < len(blocks):
            raise CorecompressError(
                f"objective 'relations': layer is {options.layer}; the teacher has layers 0 to {len(blocks) - 1}"
            )
        self.of_teacher = blocks[options.layer][0]
        self.of_student = _attentions(scene.student)[-1][0]
        configs = [m.config.get_text_config() for m in (scene.teacher, scene.student)]
        groups = [getattr(c, "num_key_value_heads", None) or c.num_attention_heads for c in configs]
        self.splits = [(c.num_attention_heads, g) for c, g in zip(configs, groups, strict=True)]
        self.heads = options.heads or groups[0]
        self.interleaved = self.of_teacher.fused and scene.interleaved()

    @classmethod
    def refusal(cls, scene: Scene) -> str | None:
        if _attentions(scene.teacher) and _attentions(scene.student):
            return None
        return f"no attention with query, key and value was found in a {type(scene.teacher).__name__}"

    def forward(self, student: Outputs, teacher: Outputs, inputs: Inputs) -> torch.Tensor:
        assert student.relations is not None
        assert teacher.relations is not None
        theirs = self._parts(teacher.relations, *self.splits[0])
        mine = self._parts(student.relations, *self.splits[1])
        parts = [self._divergence(t, s, inputs.mask) for t, s in zip(theirs, mine, strict=True)]
        return torch.stack(parts).mean()

    def _parts(self, seen: tuple[torch.Tensor, ...], heads: int, groups: int) -> list[torch.Tensor]:
        """Query, key and value, each [n, length, width]."""
        if len(seen) == 3:
            return list(seen)
        whole = seen[0]
        width = whole.shape[-1] // (heads + 2 * groups)
        if self.interleaved:
            by_group = whole.unflatten(-1, (groups, -1))
            sizes = [heads // groups * width, width, width]
            return [part.flatten(-2) for part in by_group.split(sizes, -1)]
        return list(whole.split([heads * width, groups * width, groups * width], -1))

    def _divergence(self, theirs: torch.Tensor, mine: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        p, q = self._relation(theirs, mask), self._relation(mine, mask)
        each = (p.exp() * (p - q)).sum(-1)
        if mask is None:
            return each.mean()
        return each.transpose(1, 2)[mask].mean()

    def _relation(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """[n, length, width] -> log probabilities [n, heads, length, length]."""
        if x.shape[-1] % self.heads:
            raise CorecompressError(
                f"objective 'relations': heads is {self.heads}; a width of {x.shape[-1]} can't be split into so many"
            )
        split = x.float().unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scores = split @ split.transpose(-1, -2) / math.sqrt(split.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], -1e9)
        return torch.log_softmax(scores, -1)


def _attentions(model: Any) -> list[list[Attention]]:
    """The attentions of each block of the last stack (of an encoder-decoder: the decoder's)."""
    stacks = find_stacks(model)
    return [block for block in find_attentions(model, stacks[-1]) if block] if stacks else []
