"""Student, objectives and teacher as one module, so that whatever wraps it for training sees one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from corecompress_distill.inputs import Inputs
from corecompress_distill.objectives import Objectives
from corecompress_distill.outputs import Reader
from corecompress_distill.teacher import Teacher


class Distillation(nn.Module):
    """forward(inputs) -> each objective's value, and their weighted sum as "loss".

    The teacher is a part of the module only where it has to be shared out over devices (sharded); elsewhere it stands
    beside, so that no optimizer, checkpoint or gradient exchange sees it.
    """

    def __init__(self, student: Any, teacher: Teacher, objectives: Objectives, read_student: Reader, sharded: bool):
        super().__init__()
        self.student, self.objectives = student, objectives
        self.read_student, self.read_teacher = read_student, teacher
        if sharded:
            self.teacher = teacher.reader.model
        both = (student, teacher.reader.model)
        self._no_split_modules = sorted({name for model in both for name in model._no_split_modules or ()})

    def forward(self, inputs: Inputs) -> dict[str, torch.Tensor]:
        return dict(self.objectives(self.read_student(inputs), self.read_teacher(inputs), inputs))
