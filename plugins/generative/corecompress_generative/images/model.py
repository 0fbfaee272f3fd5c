"""The image VAE of `cnn`, `vae-gan` and `text2image`: two strided convolutions to the latents, two back.

With captions, their words go through a GRU or an LSTM; posterior and synthesis are told the outcome (a conditional VAE,
K. Sohn et al., "Learning structured output representation using deep conditional generative models", 2015).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from corecompress.components import Prior
from corecompress_generative.config import ImageVaeConfig
from corecompress_generative.images.likelihood import log_likelihood, means, outputs_of, seen
from corecompress_generative.model import GenerativeModel, Inputs, Reconstruction

SHRINK = 4
"""How many times smaller the innermost feature map is."""


class CaptionEncoder(nn.Module):
    """Word ids [n, length], 0 for padding -> [n, width]."""

    def __init__(self, words: int, width: int, kind: str):
        super().__init__()
        self.words = nn.Embedding(words, width, padding_idx=0)
        self.kind = kind
        self.add_module(kind, {"gru": nn.GRU, "lstm": nn.LSTM}[kind](width, width, batch_first=True))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        lengths = (ids != 0).sum(1).clamp_min(1)
        states, _ = self.get_submodule(self.kind)(self.words(ids[:, : int(lengths.max())]))
        return states[torch.arange(len(ids), device=ids.device), lengths - 1]


class ImageVae(GenerativeModel):
    """Analysis, synthesis, the captions' encoder if there is one, and the network of a prior that has one."""

    config_class = ImageVaeConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ImageVaeConfig):
        super().__init__(config)
        self.kind = config.options["likelihood"]
        channels, hidden, told = config.options["channels"], config.options["hidden"], config.caption_width
        height, width = (extent // SHRINK for extent in config.image_size)
        inner = 2 * channels * height * width
        reader = config.options.get("captions", "gru")
        self.captions = CaptionEncoder(config.caption_words, told, reader) if told else None
        self.analysis = nn.Sequential(
            nn.Conv2d(config.num_channels, channels, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(channels, 2 * channels, 4, 2, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(inner, hidden),
            nn.SiLU(),
        )
        self.latents = nn.Linear(hidden + told, 2 * config.latents)
        self.synthesis = nn.Sequential(
            nn.Linear(config.latents + told, hidden),
            nn.SiLU(),
            nn.Linear(hidden, inner),
            nn.SiLU(),
            nn.Unflatten(1, (2 * channels, height, width)),
            nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(channels, outputs_of(self.kind) * config.num_channels, 4, 2, 1),
        )
        self.log_width = nn.Parameter(torch.tensor(-1.0)) if self.kind == "gaussian" else None
        self.prior_network = self.network_of_prior()
        self.post_init()

    def told(self, batch: Inputs, n: int) -> torch.Tensor:
        """What the captions say [n, width]; zeros where there are none, [n, 0] of a model without."""
        if self.captions is not None and "caption_ids" in batch:
            found: torch.Tensor = self.captions(batch["caption_ids"])
            return found
        return torch.zeros(n, self.config.caption_width, device=self.device)

    def posterior(self, batch: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = seen(self.kind, batch["pixel_values"])
        found = self.latents(torch.cat([self.analysis(pixels), self.told(batch, len(pixels))], 1))
        mean, log_deviation = found.chunk(2, 1)
        return mean, log_deviation.clamp(-6, 2)

    def said(self, z: torch.Tensor, batch: Inputs) -> torch.Tensor:
        """What the synthesis says of the pixels, [n, outputs · c, h, w]."""
        found: torch.Tensor = self.synthesis(torch.cat([z, self.told(batch, len(z))], 1))
        return found

    def log_likelihood(self, batch: Inputs, z: torch.Tensor) -> torch.Tensor:
        return log_likelihood(self.kind, self.said(z, batch), batch["pixel_values"], self.log_width)

    def painted(self, batch: Inputs, prior: Prior) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `terms` gives, and the means of the pixels [n, c, h, w] that its distortion is of."""
        rate, z = self.drawn(batch, prior)
        said = self.said(z, batch)
        likelihood = log_likelihood(self.kind, said, batch["pixel_values"], self.log_width)
        return rate, -likelihood, z, means(self.kind, said)

    def paint(self, z: torch.Tensor, batch: Inputs | None = None) -> torch.Tensor:
        """Means of the pixels of latents [n, k], 0 … 1; batch: with caption_ids, if any."""
        return means(self.kind, self.said(z, batch or {}))

    def values(self, batch: Inputs) -> torch.Tensor:
        pixels = batch["pixel_values"]
        return torch.full((len(pixels),), pixels[0].numel(), device=pixels.device)

    def forward(
        self, pixel_values: torch.Tensor, caption_ids: torch.Tensor | None = None, **unused: Any
    ) -> Reconstruction:
        """Through the posterior's mean: logits, the means of the pixels [n, c, h, w]; loss in nats an image."""
        batch = {"pixel_values": pixel_values, **({} if caption_ids is None else {"caption_ids": caption_ids})}
        mean, _ = self.posterior(batch)
        said = self.said(mean, batch)
        nll = -log_likelihood(self.kind, said, pixel_values, self.log_width)
        return Reconstruction(logits=means(self.kind, said), latents=mean, nll=nll, loss=nll.mean())
