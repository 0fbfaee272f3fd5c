"""The encoders `lstm` and `gat`: sentences in, sentences out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from corecompress.components import Batch, Prior, Sample, option
from corecompress.errors import CorecompressError
from corecompress_generative import ranges
from corecompress_generative.config import TextVaeConfig
from corecompress_generative.encoder import VaeEncoder
from corecompress_generative.model import GenerativeModel, Inputs
from corecompress_generative.objective import Annealing, Variational
from corecompress_generative.text.model import TextVae
from corecompress_generative.training import Plan, Player

FEW_FREE_BITS = 0.5
"""Of a latent, up to which the bound on the evaluation split says which step was the best."""
_WIDE = "[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]"
UNSPACED = re.compile(f"(?<={_WIDE}) (?={_WIDE})")
"""The space between words in Chinese and Japanese, which write none."""
TAGS = 18
"""Universal part-of-speech tags, and 0 for none."""


@dataclass(frozen=True)
class TextOptions:
    """What both have."""

    latents: int = option(32, "numbers that a sentence is encoded in")
    embedding: int = option(128, "width of the word vectors")
    hidden: int = option(256, "width of the LSTMs, or of the graph's nodes")
    length: int = option(32, "tokens of the longest sentence, special ones included; longer ones are cut, with a count")
    annealing: Literal["linear", "cyclical", "none"] = option("linear", "how the weight of the rate climbs")
    climb: float = option(0.25, "share of the training in which it climbs (linear)")
    pretrain: float = option(0.3, "share of the training as a plain autoencoder, after which the synthesis begins anew")
    free_bits: float = option(0.25, "nats of each latent that cost nothing: against a collapse of the posterior")
    steps: int = option(3000, "updates")
    batch: int = option(64, "sentences of an update")
    learning_rate: float = option(1e-3, "of Adam, at its highest")

    def __post_init__(self) -> None:
        ranges.check(self)
        if self.length < 4:
            raise ValueError(f"length is {self.length}; it takes 4 or more")


@dataclass(frozen=True)
class LstmOptions(TextOptions):
    """Options of `lstm`."""

    word_dropout: float = option(0.2, "share of the words that the synthesis is not told in training")


@dataclass(frozen=True)
class GatOptions(TextOptions):
    """Options of `gat`."""

    layers: int = option(2, "graph attention layers")
    heads: int = option(4, "attention heads of each")
    window: int = option(3, "positions to each side that a position hears")
    nearest: int = option(0, "positions beyond the window that it hears as well, those most alike")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden % self.heads:
            raise ValueError(f"hidden is {self.hidden}, which {self.heads} heads don't divide")


class _TextEncoder(VaeEncoder):
    """Sentences of the data component `text`."""

    def take(self, batch: Batch) -> Inputs:
        if "input_ids" not in batch:
            raise CorecompressError(
                f"--data: gives {', '.join(batch)}; the encoder '{self.name}' reads sentences: write text(...):FILE"
            )
        if np.ndim(batch.get("document")) == 2:
            raise CorecompressError(
                f"--data: gives windows, the encoder '{self.name}' reads sentences: write "
                "text(form=sentences, document=line, tokenizer=words):FILE"
            )
        length, names = self.options.length, ("input_ids", "attention_mask", "tags")
        found = {name: torch.from_numpy(np.asarray(batch[name])) for name in names if name in batch}
        long = int((found["attention_mask"].sum(1) > length).sum())
        if long:
            line = f"sentences, in all passes, were cut to {length} tokens; {self.name}(length=…) takes more"
            self.notes[line] = self.notes.get(line, 0) + long
        return {name: value[:, :length] for name, value in found.items()}

    def build(self, first: Inputs, preprocessing: Path, prior: Prior) -> GenerativeModel:
        self.loaded(preprocessing)
        known = self.tokenizer
        config = TextVaeConfig(
            encoder=self.name,
            latents=self.options.latents,
            options=self.described(),
            prior=self.prior_spec,
            vocab_size=max(len(known), known.vocab_size),
            tags=TAGS if "tags" in first else 0,
            length=self.options.length,
            pad_token_id=known.pad_token_id,
            bos_token_id=known.bos_token_id if known.bos_token_id is not None else known.cls_token_id,
            eos_token_id=known.eos_token_id if known.eos_token_id is not None else known.sep_token_id,
            unk_token_id=known.unk_token_id,
        )
        if config.bos_token_id is None:
            raise CorecompressError("--data: its tokenizer puts nothing before a sentence; write text(tokenizer=words)")
        return TextVae(config)

    def loaded(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        except Exception as problem:  # of any kind, for a tokenizer that is missing or damaged
            reason = " ".join(str(problem).split())[:120]
            raise CorecompressError(f"{folder}: its tokenizer can't be read ({reason}); fit the model again") from None

    def players(self, model: GenerativeModel, prior: Prior) -> list[Player]:
        def renew() -> None:
            fresh = TextVae(model.config).synthesis.state_dict()
            model.synthesis.load_state_dict(fresh)

        return [Variational(model, prior, self._annealing, renew)]

    @property
    def _annealing(self) -> Annealing:
        options = self.options
        return Annealing(options.annealing, options.pretrain, options.climb, options.free_bits)

    def plan(self, target: float | None, seconds: float | None) -> Plan:
        options = self.options
        return Plan(
            options.steps,
            options.learning_rate,
            settled=self._annealing.settled,
            # with many free bits the bound gets worse while what was asked for, reconstruction, gets better
            best=options.free_bits <= FEW_FREE_BITS,
            target=target,
            seconds=seconds,
        )

    def make(self, z: torch.Tensor, inputs: Inputs | None = None) -> torch.Tensor:
        assert isinstance(self.model, TextVae)
        return self.model.write(z)

    def sample(self, z: torch.Tensor, seed: int) -> torch.Tensor:
        assert isinstance(self.model, TextVae)
        return self.model.write(z, torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def figures(self, batches: list[Inputs]) -> dict[str, Any]:
        """How much of a sentence comes back from its posterior's mean, no word of the original being told."""
        assert self.model is not None
        hits = tokens = whole = sentences = 0
        for batch in batches:
            made = self.make(self.model.posterior(batch)[0])[:, : batch["input_ids"].shape[1] - 1]
            targets, mask = batch["input_ids"][:, 1:], batch["attention_mask"][:, 1:].bool()
            same = (made == targets) | ~mask
            hits, tokens = hits + int((same & mask).sum()), tokens + int(mask.sum())
            whole, sentences = whole + int(same.all(1).sum()), sentences + len(same)
        return {"tokens that come back": hits / tokens, "sentences that come back whole": whole / sentences}

    def show(self, made: torch.Tensor) -> list[Sample]:
        return [Sample(text=self._text(row)) for row in made.tolist()]

    def originals(self, inputs: Inputs) -> list[Sample]:
        return [Sample(text=self._text(row[1:])) for row in inputs["input_ids"].tolist()]

    def _text(self, ids: list[int]) -> str:
        """Up to the end of the sentence."""
        end = self.tokenizer.eos_token_id if self.tokenizer.eos_token_id is not None else self.tokenizer.sep_token_id
        until = ids.index(end) if end in ids else len(ids)
        text: str = self.tokenizer.decode([i for i in ids[:until] if i != self.tokenizer.pad_token_id])
        return UNSPACED.sub("", " ".join(text.split()))


class Lstm(_TextEncoder):
    """Sequence VAE (Bowman et al.)."""

    Options: ClassVar[type[Any]] = LstmOptions
    name = "lstm"


class Gat(_TextEncoder):
    """The reconstructor: graph attention over positions."""

    Options: ClassVar[type[Any]] = GatOptions
    name = "gat"
