"""What all objectives share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from corecompress import option
from corecompress.measure.task import WORDS, Task
from corecompress_distill.outputs import Need


@dataclass(frozen=True)
class Scene:
    """Teacher and student as objectives may look at them. interleaved: finds out whether a fused projection of the
    teacher has query, key and value head by head."""

    task: Task
    teacher: Any
    student: Any
    has_labels: bool
    interleaved: Callable[[], bool]

    @property
    def words(self) -> str:
        """The teacher as an error calls it."""
        return f"the teacher is {WORDS[self.task]} ({type(self.teacher).__name__})"


@dataclass(frozen=True)
class Weight:
    """What every objective has."""

    weight: float = option(1.0, "share of this objective in the loss")

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"weight is {self.weight}; it takes more than 0")


class Objective(nn.Module):
    """One way to be like the teacher: (student's outputs, teacher's outputs, inputs) -> a scalar to make small."""

    Options: ClassVar[type[Any]] = Weight
    needs: frozenset[Need] = frozenset()

    def __init__(self, options: Any, scene: Scene):
        super().__init__()
        self.options = options

    @classmethod
    def refusal(cls, scene: Scene) -> str | None:
        """Why it can't be had with this teacher, in a few words; None where it can."""
        return None


def of_tokens(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """[n, length, width] -> [tokens, width], padding left out."""
    return values.flatten(0, -2) if mask is None or mask.shape != values.shape[:-1] else values[mask]
