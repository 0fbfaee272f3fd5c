"""The options of `distill`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corecompress import option
from corecompress.recipe import Spec


@dataclass(frozen=True)
class Options:
    """The student, what it learns from, and how it is trained."""

    layers: int | tuple[int, ...] | None = option(None, "layers to keep: how many, or a list of their numbers from 0")
    decoder_layers: int | tuple[int, ...] | None = option(
        None, "the same for the decoder of an encoder-decoder (default: as `layers`)"
    )
    choose: Literal["even", "first", "last", "importance"] = option(
        "even",
        "which layers: evenly spaced with the first and the last, the first ones, the last ones, or those across "
        "which the hidden state changes most",
    )
    hidden: int | None = option(None, "hidden size to cut to")
    ffn: int | None = option(None, "feed-forward size to cut to")
    heads: int | None = option(None, "attention heads to cut to")
    student: str | None = option(
        None, "instead of a cut: a checkpoint (folder or hub id) to start from, or a config.json to start at random"
    )
    start: Literal["cut", "random"] = option("cut", "begin with the teacher's weights, or with random ones")
    embeddings: Literal["auto", "train", "keep"] = option(
        "auto", "train the embedding tables, or keep the teacher's; auto: keep those of a sentence encoder's cut"
    )
    objectives: tuple[Spec, ...] = option(
        (), "what is learned, each with a weight: logits, hidden, relations, embedding, similarity, labels"
    )
    epochs: float | None = option(
        None, "passes over the training and calibration splits (default: 20 of a sentence encoder, 3 of all else)"
    )
    steps: int | None = option(None, "updates, instead of epochs")
    batch: int | None = option(
        None, "samples of one update, over all processes (default: 32; 8 windows of a language model)"
    )
    accumulate: int = option(1, "forward passes that an update is made of: less memory, the same result")
    learning_rate: float | None = option(
        None, "of AdamW, at its highest (default: 1e-3 for encoders, 3e-4 for all else)"
    )
    warmup: float = option(0.06, "share of the steps that the learning rate climbs; then it falls as a cosine")
    weight_decay: float = option(0.01, "of AdamW, on matrices")
    clip: float = option(1.0, "largest norm of the gradient")
    evaluate_every: int | None = option(None, "steps between looks at the evaluation split (default: a tenth of all)")
    patience: int = option(3, "looks without improvement before training stops")
    device: str | None = option(None, "cpu, cuda or cuda:1 (default: what accelerate finds)")
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "what is computed in; auto: bfloat16 where the processor or GPU has it. Weights stay float32"
    )
    teacher_cache: float = option(
        0.0, "GB of disk for the teacher's top-k logits or embeddings, computed once; 0: computed in every epoch"
    )

    def __post_init__(self) -> None:
        for name in ("hidden", "ffn", "heads", "steps", "batch", "accumulate", "evaluate_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it takes 1 or more")
        for name in ("epochs", "clip"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; it takes more than 0")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is {self.warmup}; it is a share, from 0 to 1")
        if self.embeddings == "keep" and (self.start == "random" or self.hidden or self.student):
            raise ValueError("embeddings=keep: the student has none of the teacher's; leave it out")
        if self.student is not None and self.cuts:
            raise ValueError(f"student and {self.cuts[0]}: write one of them")
        if (self.batch or self.accumulate) % self.accumulate:
            raise ValueError(f"batch {self.batch} can't be split into {self.accumulate} forward passes")

    @property
    def cuts(self) -> list[str]:
        """The options that make the student smaller than the teacher."""
        names = ("layers", "decoder_layers", "hidden", "ffn", "heads")
        return [name for name in names if getattr(self, name) is not None]
