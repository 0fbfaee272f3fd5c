"""Latents to token logits: word after word (LSTM), or all positions at once (graph attention)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from corecompress_generative.config import TextVaeConfig

TEMPERATURE = 0.7
"""Of words that are drawn. At 1 one unlikely word derails the rest of a sentence; the likeliest words alone are few."""


class LstmSynthesis(nn.Module):
    """Every step sees the word before it and the latents."""

    def __init__(self, config: TextVaeConfig):
        super().__init__()
        width, hidden = config.options["embedding"], config.options["hidden"]
        self.config = config
        self.words = nn.Embedding(config.vocab_size, width)
        self.start = nn.Linear(config.latents, 2 * hidden)
        self.lstm = nn.LSTM(width + config.latents, hidden, batch_first=True)
        self.logits = nn.Linear(hidden, config.vocab_size)

    def forward(self, z: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """latents [n, k], the words before [n, t] -> logits [n, t, vocabulary]."""
        found: torch.Tensor = self.logits(self.features(z, ids))
        return found

    def features(self, z: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """What the logits are made of, [n, t, hidden]."""
        found, _ = self._steps(z, ids, self._begin(z))
        return found

    def _begin(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h, c = self.start(z).chunk(2, 1)
        return torch.tanh(h)[None].contiguous(), c[None].contiguous()

    def _steps(self, z: torch.Tensor, ids: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        inputs = torch.cat([self.words(ids), z[:, None].expand(-1, ids.shape[1], -1)], 2)
        return self.lstm(inputs, state)  # type: ignore[no-any-return]

    def write(self, z: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Word after word, int64 [n, length − 1]: the likeliest one, or a draw of the generator's."""
        ids, state = torch.full((len(z), 1), self.config.bos_token_id, device=z.device), self._begin(z)
        found = []
        for _ in range(self.config.length - 1):
            out, state = self._steps(z, ids, state)
            logits = self.logits(out)
            ids = logits.argmax(2) if generator is None else _drawn(logits, self.config.unspoken, generator)
            found.append(ids)
        return torch.cat(found, 1)


def _drawn(logits: torch.Tensor, unspoken: list[int], generator: torch.Generator) -> torch.Tensor:
    """A word for each of logits [n, t, vocabulary], int64 [n, t]; none of the unspoken ones."""
    logits = logits.float() / TEMPERATURE
    logits[..., unspoken] = -torch.inf
    p = logits.softmax(2)
    return torch.multinomial(p.flatten(0, 1).cpu(), 1, generator=generator).view(p.shape[:2]).to(logits.device)


class GatSynthesis(nn.Module):
    """A graph over the positions of a sentence: each has a slice of what the latents say, and hears its neighbours.

    Edges go to all positions within a window, and to the `nearest` whose features are most alike, if any; they
    depend on the latents alone, never on the sentence. The offset of two positions is the edge's feature.
    """

    def __init__(self, config: TextVaeConfig):
        super().__init__()
        options = config.options
        self.config, self.positions = config, config.length - 1
        self.width, self.window, self.nearest = options["hidden"], options["window"], options["nearest"]
        self.nodes = nn.Linear(config.latents, self.positions * self.width)
        self.blocks = nn.ModuleList(_Block(self.width, options["heads"], self.window) for _ in range(options["layers"]))
        self.norm = nn.LayerNorm(self.width)
        self.logits = nn.Linear(self.width, config.vocab_size)

    def forward(self, z: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """latents [n, k] -> logits [n, t, vocabulary]; of the words before only their number t counts."""
        found: torch.Tensor = self.logits(self.features(z, ids))
        return found

    def features(self, z: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """What the logits are made of, [n, t, hidden]."""
        x = self.nodes(z).view(-1, self.width)
        edges, offsets = self._edges(x, len(z))
        for block in self.blocks:
            x = block(x, edges, offsets)
        return self.norm(x).view(len(z), self.positions, self.width)[:, : ids.shape[1]]  # type: ignore[no-any-return]

    def _edges(self, x: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(edges [2, e], offset of each, one-hot [e, 2 · window + 2]; the last for those that are only alike)."""
        at = torch.arange(self.positions, device=x.device)
        offset = at[None] - at[:, None]
        source, target = torch.nonzero(offset.abs() <= self.window, as_tuple=True)
        kinds = offset[source, target] + self.window
        first = self.positions * torch.arange(n, device=x.device)[:, None]
        edges = torch.stack([(source[None] + first).flatten(), (target[None] + first).flatten()])
        kinds = kinds.repeat(n)
        if self.nearest:
            more = self._alike(x.detach().view(n, self.positions, -1), offset, first)
            edges, kinds = (
                torch.cat([edges, more], 1),
                torch.cat([kinds, kinds.new_full(more.shape[1:], 2 * self.window + 1)]),
            )
        return edges, nn.functional.one_hot(kinds, 2 * self.window + 2).to(x.dtype)

    def _alike(self, x: torch.Tensor, offset: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Edges [2, e] to every position from those beyond the window that are most alike."""
        distances = torch.cdist(x, x).masked_fill(offset.abs() <= self.window, float("inf"))
        count = min(self.nearest, max(0, self.positions - 2 * self.window - 1))
        near = distances.topk(count, largest=False).indices  # [n, positions, count]
        targets = torch.arange(self.positions, device=x.device)[None, :, None].expand_as(near)
        return torch.stack([(near + first[:, :, None]).flatten(), (targets + first[:, :, None]).flatten()])

    def write(self, z: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """The likeliest word of every position, or a draw of the generator's, int64 [n, length − 1]."""
        logits = self(z, torch.empty(len(z), self.positions, device=z.device))
        return logits.argmax(2) if generator is None else _drawn(logits, self.config.unspoken, generator)


class _Block(nn.Module):
    """Graph attention, then a feed-forward network for each node, both residual."""

    def __init__(self, width: int, heads: int, window: int):
        from torch_geometric.nn import GATv2Conv

        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = GATv2Conv(width, width // heads, heads, add_self_loops=False, edge_dim=2 * window + 2)
        self.network = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor, edges: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.first(x), edges, offsets)
        found: torch.Tensor = x + self.network(self.second(x))
        return found
