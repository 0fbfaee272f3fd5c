"""The text VAE: a bidirectional LSTM reads a sentence into latents; an LSTM or graph attention writes it again.

Sources: S. Bowman et al., "Generating sentences from a continuous space", arXiv:1511.06349 (lstm, word dropout);
S. Brody et al., "How attentive are graph attention networks?", arXiv:2105.14491 (GATv2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from corecompress_generative.config import TextVaeConfig
from corecompress_generative.model import GenerativeModel, Inputs, Reconstruction
from corecompress_generative.text.synthesis import GatSynthesis, LstmSynthesis


class Analysis(nn.Module):
    """Token ids (and tags) [n, length] -> (mean, log deviation) [n, k]."""

    def __init__(self, config: TextVaeConfig):
        super().__init__()
        width, hidden = config.options["embedding"], config.options["hidden"]
        self.words = nn.Embedding(config.vocab_size, width)
        self.tags = nn.Embedding(config.tags, width) if config.tags else None
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.latents = nn.Linear(2 * hidden, 2 * config.latents)

    def forward(self, batch: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.words(batch["input_ids"])
        if self.tags is not None and "tags" in batch:
            found = found + self.tags(batch["tags"])
        lengths = batch["attention_mask"].sum(1).clamp_min(1).cpu()
        packed = pack_padded_sequence(found, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        mean, log_deviation = self.latents(torch.cat([last[0], last[1]], 1)).chunk(2, 1)
        return mean, log_deviation.clamp(-6, 2)


class TextVae(GenerativeModel):
    """Analysis, synthesis, and the network of a prior that has one."""

    config_class = TextVaeConfig
    main_input_name = "input_ids"

    def __init__(self, config: TextVaeConfig):
        super().__init__(config)
        self.analysis = Analysis(config)
        self.synthesis: Any = (GatSynthesis if config.encoder == "gat" else LstmSynthesis)(config)
        self.prior_network = self.network_of_prior()
        self.post_init()

    def posterior(self, batch: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        found: tuple[torch.Tensor, torch.Tensor] = self.analysis(batch)
        return found

    def log_likelihood(self, batch: Inputs, z: torch.Tensor) -> torch.Tensor:
        features = self.synthesis.features(z, self._dropped(batch["input_ids"][:, :-1]))
        mask = batch["attention_mask"][:, 1:].bool()
        # a vocabulary's logits of padding would be half of the time
        found = _log_probabilities(self.synthesis.logits(features[mask]), batch["input_ids"][:, 1:][mask])
        return found.new_zeros(mask.shape).masked_scatter(mask, found).sum(1)

    def values(self, batch: Inputs) -> torch.Tensor:
        return batch["attention_mask"][:, 1:].sum(1)

    def _dropped(self, ids: torch.Tensor) -> torch.Tensor:
        """Some of the words that the synthesis is told are unknown in training, so that it asks the latents."""
        share = self.config.options.get("word_dropout", 0.0)
        if not self.training or not share:
            return ids
        drop = (torch.rand(ids.shape, device=ids.device) < share) & (ids != self.config.bos_token_id)
        return torch.where(drop, self.config.unk_token_id or 0, ids)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        tags: torch.Tensor | None = None,
        **unused: Any,
    ) -> Reconstruction:
        """Through the posterior's mean: logits [n, length − 1, vocabulary] of tokens 1 …, loss in nats a sentence."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        batch = {"input_ids": input_ids, "attention_mask": mask, **({} if tags is None else {"tags": tags})}
        mean, _ = self.posterior(batch)
        logits, targets = self.synthesis(mean, input_ids[:, :-1]), input_ids[:, 1:]
        found = _log_probabilities(logits.flatten(0, 1), targets.flatten()).view(targets.shape)
        nll = -(found * mask[:, 1:]).sum(1)
        return Reconstruction(logits=logits, latents=mean, nll=nll, loss=nll.mean())

    @torch.no_grad()
    def write(self, z: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Tokens of latents [n, k], int64 [n, length − 1], with no word of the original known: the likeliest ones, or
        a draw of the generator's."""
        found: torch.Tensor = self.synthesis.write(z, generator)
        return found


def _log_probabilities(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """ln p [t] of the tokens targets int64 [t], logits [t, vocabulary]."""
    return -nn.functional.cross_entropy(logits, targets, reduction="none")
