"""Sentence embeddings: each by itself, and how similar those of a batch are to one another."""

from __future__ import annotations

import torch
from torch import nn

from corecompress_distill.inputs import Inputs
from corecompress_distill.objectives.base import Objective, Scene
from corecompress_distill.outputs import Need, Outputs


class _OfEmbeddings(Objective):
    needs: frozenset[Need] = frozenset({"embedding"})

    @classmethod
    def refusal(cls, scene: Scene) -> str | None:
        if scene.task == "sentence-encoder":
            return None
        return f"{scene.words} and gives no embeddings of sentences"


class Embedding(_OfEmbeddings):
    """1 − cosine of the pooled embeddings, mean over the sentences. A narrower student learns a projection with it,
    which is left behind."""

    def __init__(self, options: object, scene: Scene):
        super().__init__(options, scene)
        widths = [model.config.hidden_size for model in (scene.student, scene.teacher)]
        self.projection = nn.Identity() if widths[0] == widths[1] else nn.Linear(widths[0], widths[1], bias=False)

    def forward(self, student: Outputs, teacher: Outputs, inputs: Inputs) -> torch.Tensor:
        assert student.embedding is not None
        assert teacher.embedding is not None
        return (1 - torch.cosine_similarity(self.projection(student.embedding), teacher.embedding)).mean()


class Similarity(_OfEmbeddings):
    """Mean squared difference of the matrices of cosines within a batch (similarity-preserving distillation, Tung and
    Mori, arXiv:1907.09682): works for any width of the student."""

    def forward(self, student: Outputs, teacher: Outputs, inputs: Inputs) -> torch.Tensor:
        assert student.embedding is not None
        assert teacher.embedding is not None
        mine, theirs = (nn.functional.normalize(e.float(), dim=-1) for e in (student.embedding, teacher.embedding))
        return (mine @ mine.T - theirs @ theirs.T).square().mean()
