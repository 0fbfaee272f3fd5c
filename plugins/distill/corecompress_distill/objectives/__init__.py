"""What a student is trained for. Each objective is a small module with options; their weighted sum is the loss."""

from __future__ import annotations

from typing import Any

from torch import nn

from corecompress.errors import CorecompressError
from corecompress.measure.task import Task
from corecompress.recipe import Spec, build_options
from corecompress_distill.objectives.base import Objective, Scene
from corecompress_distill.objectives.embeddings import Embedding, Similarity
from corecompress_distill.objectives.hidden import Hidden
from corecompress_distill.objectives.labels import Labels
from corecompress_distill.objectives.logits import Logits
from corecompress_distill.objectives.relations import Relations

KNOWN: dict[str, type[Objective]] = {
    "logits": Logits,
    "hidden": Hidden,
    "relations": Relations,
    "embedding": Embedding,
    "similarity": Similarity,
    "labels": Labels,
}

DEFAULTS: dict[Task, tuple[Spec, ...]] = {
    "causal-lm": (Spec("logits"),),
    "masked-lm": (Spec("logits"), Spec("hidden")),
    "seq2seq-lm": (Spec("logits"),),
    "image-classifier": (Spec("logits"),),
    "sentence-encoder": (Spec("embedding"), Spec("hidden")),
    "other": (Spec("hidden"),),
}

__all__ = ["KNOWN", "Objective", "Objectives", "Scene", "make_objectives"]


def make_objectives(specs: tuple[Spec, ...], scene: Scene) -> Objectives:
    """The objectives that are asked for, or those of the task.

    Raises CorecompressError for an unknown one, a wrong option, or one that the teacher has nothing for.
    """
    chosen = specs or DEFAULTS[scene.task]
    if len({spec.name for spec in chosen}) < len(chosen):
        raise CorecompressError("distill(objectives): one of them is written twice; give it once, with a weight")
    made = {}
    for spec in chosen:
        if spec.name not in KNOWN:
            raise CorecompressError(f"distill(objectives): there is no '{spec.name}'; there are: {', '.join(KNOWN)}")
        cls = KNOWN[spec.name]
        if why := cls.refusal(scene):
            works = ", ".join(name for name, other in KNOWN.items() if not other.refusal(scene))
            raise CorecompressError(f"distill(objectives=[{spec.name}]): {why}; what works for it: {works}")
        made[spec.name] = cls(build_options("objective", cls, spec), scene)
    return Objectives(made)


class Objectives(nn.Module):
    """The weighted sum of objectives."""

    def __init__(self, parts: dict[str, Objective]):
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    @property
    def needs(self) -> frozenset[str]:
        """What the models' outputs have to hold."""
        return frozenset(need for part in self.parts.values() for need in part.needs)

    def forward(self, student: Any, teacher: Any, inputs: Any) -> dict[str, Any]:
        """Each objective's value by name, and their weighted sum as "loss"."""
        values = {name: part(student, teacher, inputs) for name, part in self.parts.items()}
        return {**values, "loss": sum(self.parts[name].options.weight * value for name, value in values.items())}
