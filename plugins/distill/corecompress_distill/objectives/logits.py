"""The teacher's distribution over tokens or classes (Hinton et al., arXiv:1503.02531).

Divergences of p (teacher) and q (student), both softened by the temperature T, times T² so that gradients keep their
size: forward KL(p‖q); reverse KL(q‖p), which does not spread over what the teacher finds unlikely (Gu et al.,
"MiniLLM", arXiv:2306.08543); Jensen-Shannon, symmetric and bounded. With `top` the teacher's k likeliest tokens stand
for themselves and all others for one token together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from corecompress import option
from corecompress_distill.inputs import IGNORED, Inputs
from corecompress_distill.objectives.base import Objective, Scene, Weight
from corecompress_distill.outputs import Need, Outputs

SMALLEST = 1e-7
"""Probability that is left for the tokens beyond the top ones, at least."""


@dataclass(frozen=True)
class Options(Weight):
    divergence: Literal["forward", "reverse", "js"] = option("forward", "KL(teacher‖student), the reverse, or both")
    temperature: float = option(1.0, "softens both distributions")
    top: int = option(0, "the teacher's likeliest tokens that count one by one; 0: all")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it takes more than 0")
        if self.top < 0:
            raise ValueError(f"top is {self.top}; it takes 0 (all) or more")


@dataclass(frozen=True)
class TopLogits:
    """A teacher's distributions in brief: ids int64 [rows, k], logs [rows, k] the logarithms of their probabilities."""

    ids: torch.Tensor
    logs: torch.Tensor


class Logits(Objective):
    """Divergence of the distributions, mean over the predicted positions, in nats."""

    Options: ClassVar[type[Any]] = Options
    needs: frozenset[Need] = frozenset({"logits"})

    @classmethod
    def refusal(cls, scene: Scene) -> str | None:
        if scene.task in ("causal-lm", "masked-lm", "seq2seq-lm", "image-classifier"):
            return None
        return f"{scene.words} and has no head that gives logits"

    def forward(self, student: Outputs, teacher: Outputs, inputs: Inputs) -> torch.Tensor:
        assert student.logits is not None
        q = self._log(predicted(student.logits, inputs))
        known: Any = teacher.logits
        if not isinstance(known, TopLogits):
            p = self._log(predicted(known, inputs))
            known = self.brief(p) if self.options.top else None
        if known is not None:
            p, q = with_rest(known.logs), with_rest(q.gather(1, known.ids))
        return self.options.temperature**2 * divergence(self.options.divergence, p, q)

    def brief(self, logs: torch.Tensor) -> TopLogits:
        """The top ones of log probabilities [rows, vocabulary]."""
        values, ids = logs.topk(min(self.options.top, logs.shape[1]))
        return TopLogits(ids, values)

    def of_teacher(self, logits: torch.Tensor, inputs: Inputs) -> TopLogits:
        """What a cache keeps of a teacher's logits."""
        return self.brief(self._log(predicted(logits, inputs)))

    def _log(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(logits.float() / self.options.temperature, -1)


def predicted(logits: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """Logits of the positions that predict something, [rows, vocabulary]."""
    if logits.ndim == 2 or inputs.labels is None:
        return logits.flatten(0, -2)
    return logits[inputs.labels != IGNORED]


def with_rest(logs: torch.Tensor) -> torch.Tensor:
    """Log probabilities [rows, k] and what is left for all else, [rows, k + 1]."""
    rest = (1 - logs.exp().sum(1, keepdim=True)).clamp(min=SMALLEST)
    return torch.cat([logs, rest.log()], 1)


def divergence(kind: str, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Mean over the rows, in nats, of log probabilities p and q [rows, k]."""

    def kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one.exp() * (one - other)).sum(1).mean()

    if kind == "forward":
        return kl(p, q)
    if kind == "reverse":
        return kl(q, p)
    middle = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
    return (kl(p, middle) + kl(q, middle)) / 2
