"""The right answers themselves: next tokens, masked tokens, classes."""

from __future__ import annotations

import torch
from torch.nn import functional

from corecompress_distill.inputs import IGNORED, Inputs
from corecompress_distill.objectives.base import Objective, Scene
from corecompress_distill.objectives.logits import predicted
from corecompress_distill.outputs import Need, Outputs


class Labels(Objective):
    """Cross-entropy in nats, mean over the predicted positions."""

    needs: frozenset[Need] = frozenset({"logits"})

    @classmethod
    def refusal(cls, scene: Scene) -> str | None:
        if scene.task not in ("causal-lm", "masked-lm", "seq2seq-lm", "image-classifier"):
            return f"{scene.words} and has no head that predicts labels"
        return None if scene.has_labels else "the data have no labels"

    def forward(self, student: Outputs, teacher: Outputs, inputs: Inputs) -> torch.Tensor:
        assert student.logits is not None
        assert inputs.labels is not None
        targets = inputs.labels.flatten()
        return functional.cross_entropy(predicted(student.logits, inputs).float(), targets[targets != IGNORED])
