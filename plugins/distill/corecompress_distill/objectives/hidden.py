"""Hidden states, token by token (Romero et al., "FitNets", arXiv:1412.6550; Jiao et al., "TinyBERT", arXiv:1909.10351).

A block of the student is compared with the block that stands equally deep in the teacher. Where the student is
narrower, a learned projection stands between; it is left behind after training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from corecompress import option
from corecompress_distill.inputs import Inputs
from corecompress_distill.objectives.base import Objective, Scene, Weight, of_tokens
from corecompress_distill.outputs import Need, Outputs


@dataclass(frozen=True)
class Options(Weight):
    layers: Literal["last", "all"] = option("last", "compare what comes out of the last block, or of every block")


class Hidden(Objective):
    """Squared error over the variance of the teacher's states: 1 is no better than their mean."""

    Options: ClassVar[type[Any]] = Options
    needs: frozenset[Need] = frozenset({"hidden"})

    def __init__(self, options: Any, scene: Scene):
        super().__init__(options, scene)
        widths = [model.config.get_text_config().hidden_size for model in (scene.student, scene.teacher)]
        same = widths[0] == widths[1]
        self.projection = nn.Identity() if same else nn.Linear(widths[0], widths[1], bias=False)
        if not same:
            nn.init.orthogonal_(self.projection.weight)

    def forward(self, student: Outputs, teacher: Outputs, inputs: Inputs) -> torch.Tensor:
        assert student.hidden is not None
        assert teacher.hidden is not None
        mine, theirs = len(student.hidden) - 1, len(teacher.hidden) - 1
        numbers = [mine] if self.options.layers == "last" else range(1, mine + 1)
        pairs = [(student.hidden[n], teacher.hidden[round(n * theirs / mine)]) for n in numbers]
        errors = [self._error(of_tokens(s, inputs.mask), of_tokens(t, inputs.mask)) for s, t in pairs]
        return torch.stack(errors).mean()

    def _error(self, mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        theirs = theirs.float()
        variance = theirs.var(0, unbiased=False).mean().clamp(min=1e-12)
        return (self.projection(mine).float() - theirs).square().mean() / variance
