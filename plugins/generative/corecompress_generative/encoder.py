"""What all encoders here share: a fit on batches, a checkpoint, latents in and out.

data ─► regrouped batches ─► train(players) ─► judge ─► save: config.json, weights, preprocessing, training.png
"""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from corecompress.components import Batch, Data, Prior, Progress, Sample
from corecompress.errors import CorecompressError
from corecompress.hf.load import load_model
from corecompress.plugins import registry
from corecompress.recipe import Spec
from corecompress.training.checkpoints import State
from corecompress.training.plot import plot_losses
from corecompress.training.quiet import quiet
from corecompress_generative.bounds import COLLAPSED, is_collapsed, judge
from corecompress_generative.density import draw
from corecompress_generative.feed import epoch, forever, regrouped
from corecompress_generative.model import GenerativeModel, Inputs
from corecompress_generative.objective import bits_a_value
from corecompress_generative.training import Plan, Player, train

WATCHED, JUDGED = 2000, 512
"""Samples of the evaluation split that are looked at in training, and judged with importance weights in the end."""
DRAWS = 32
"""Importance weights of the final judgement."""
PLOT = "training.png"


class VaeEncoder(ABC):
    """Base of the components. A kind says what it takes of a batch, its model and its players."""

    Options: ClassVar[type[Any]]
    name: ClassVar[str]

    def __init__(self, options: Any = None):
        self.options = options if options is not None else self.Options()
        self.model: GenerativeModel | None = None
        self.prior: Prior | None = None
        self.state = State()
        self.notes: dict[str, int] = {}
        self._preprocessing: tempfile.TemporaryDirectory[str] | None = None

    # What a kind says

    def study(self, data: Data, seed: int) -> None:  # noqa: B027 - not every kind has to
        """Learn of the data what `take` has to know; called first."""

    @abstractmethod
    def take(self, batch: Batch) -> Inputs:
        """The tensors that it learns from. Raises CorecompressError for data of another kind."""

    def family(self, prior: Prior) -> Prior:
        """The prior of the latents themselves."""
        return prior

    @property
    def prior_spec(self) -> str:
        """The prior as a recipe writes it, for the configuration. Raises CorecompressError for one of no plugin."""
        known = registry()
        for name in known.names("prior"):
            if known.get("prior", name).load() is type(self.prior):
                options = getattr(self.prior, "options", None)
                return str(Spec(name, asdict(options) if is_dataclass(options) else {}))
        raise CorecompressError(f"--prior: a {type(self.prior).__name__} belongs to no installed plugin")

    @abstractmethod
    def build(self, first: Inputs, preprocessing: Path, prior: Prior) -> GenerativeModel:
        """A new model for samples like those of the first batch."""

    @abstractmethod
    def players(self, model: GenerativeModel, prior: Prior) -> list[Player]:
        """Who learns, the model first."""

    def plan(self, target: float | None, seconds: float | None) -> Plan:
        """How long and how."""
        return Plan(self.options.steps, self.options.learning_rate, target=target, seconds=seconds)

    @abstractmethod
    def show(self, made: torch.Tensor) -> list[Sample]:
        """What the model's synthesis made, as samples."""

    @abstractmethod
    def make(self, z: torch.Tensor, inputs: Inputs | None = None) -> torch.Tensor:
        """Synthesis of latents [n, k], for `show`; inputs: the batch that they are of, for what conditions it."""

    @abstractmethod
    def originals(self, inputs: Inputs) -> list[Sample]:
        """What went in, as samples."""

    def figures(self, batches: list[Inputs]) -> dict[str, Any]:
        """What else a kind can say of itself on samples that it has not seen."""
        return {}

    # The hook

    def fit(
        self,
        data: Data,
        prior: Prior,
        *,
        seed: int = 0,
        target_loss: float | None = None,
        progress: Progress,
        scratch: Path | None = None,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """Train on the training and calibration splits; loss in bits a value of the evaluation split (tokens, or pixels
        of each channel). Figures: rate, distortion, bounds in nats a sample, active units."""
        prior = self.prior = self.family(prior)
        torch.manual_seed(seed)
        self._preprocessing = tempfile.TemporaryDirectory()
        folder = Path(self._preprocessing.name)
        if hasattr(data, "save_preprocessing"):
            data.save_preprocessing(folder)
        self.study(data, seed)
        watched = self._watched(data, seed)
        model = self.model = self.build(watched[0], folder, prior)
        players = self.players(model, prior)
        torch.manual_seed(seed)

        def feed(step: int) -> Iterator[Inputs]:
            return islice(forever(data, seed, self.take, self.options.batch), step, None)

        def look() -> dict[str, float]:
            return self._look(model, prior, watched, seed)

        self.state = train(players, feed, look, self.plan(target_loss, seconds), scratch, progress)
        model.eval().to("cpu")
        for line, count in self.notes.items():
            progress.note(f"{count} {line}")
        if hasattr(prior, "fit_latents"):
            prior.fit_latents(model.prior_network, self._latents(data, seed), seed=seed, progress=progress)
        return self._judged(model, prior, watched, seed, progress)

    def _judged(
        self, model: GenerativeModel, prior: Prior, watched: list[Inputs], seed: int, progress: Progress
    ) -> dict[str, Any]:
        judged = watched[: max(1, JUDGED // self.options.batch)]
        figures = judge(model, prior, judged, DRAWS, seed)
        if is_collapsed(figures):
            progress.note(
                f"the posterior collapsed: {figures['active units']} latents are in use (fewer than {COLLAPSED:.0%}); "
                "longer annealing, or free_bits, keeps it from that"
            )
        parameters = sum(p.numel() for p in model.parameters())
        more = {"stopped": self.state.stopped} if self.state.stopped else {}
        return {"steps": self.state.step, "parameters": parameters, **figures, **self.figures(judged), **more}

    def _watched(self, data: Data, seed: int) -> list[Inputs]:
        found, count = [], 0
        for batch in regrouped(map(self.take, data.batches(seed, "evaluation")), self.options.batch):
            found.append(batch)
            count += len(next(iter(batch.values())))
            if count >= WATCHED:
                break
        if not found:
            raise CorecompressError("--data: its evaluation split is empty; give more data")
        return found

    @torch.no_grad()
    def _look(self, model: GenerativeModel, prior: Prior, watched: list[Inputs], seed: int) -> dict[str, float]:
        parts: list[list[torch.Tensor]] = [[], [], []]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for batch in watched:
                moved = {key: value.to(model.device) for key, value in batch.items()}
                rate, distortion, _ = model.terms(moved, prior)
                for part, value in zip(parts, (rate.sum(1), distortion, model.values(moved)), strict=True):
                    part.append(value.cpu())
        rates, distortions, values = (torch.cat(part) for part in parts)
        return {name: float(value) for name, value in bits_a_value(rates, distortions, values).items()}

    @torch.no_grad()
    def _latents(self, data: Data, seed: int) -> torch.Tensor:
        """Draws of the posterior of everything that is trained on, float32 [n, k]."""
        assert self.model is not None
        found = []
        for batch in regrouped(epoch(data, seed, self.take), self.options.batch):
            mean, log_deviation = self.model.posterior(batch)
            found.append(mean + log_deviation.exp() * torch.randn_like(mean))
        return torch.cat(found)

    def save(self, folder: Path) -> None:
        """Configuration, weights, tokenizer or preprocessing, and the loss plot."""
        assert self.model is not None
        with quiet():
            self.model.save_pretrained(folder)
        if self._preprocessing is not None:
            shutil.copytree(self._preprocessing.name, folder, dirs_exist_ok=True)
        if self.state.losses:
            plot_losses(self.state, folder / PLOT, "bits a value")

    def load(self, folder: Path, prior: Prior) -> None:
        """Become the encoder of that checkpoint."""
        try:
            with quiet():
                model = load_model(folder)
        except CorecompressError:
            raise
        except Exception as problem:
            reason = " ".join(str(problem).split())[:200]
            raise CorecompressError(f"{folder}: can't be loaded ({reason})") from None
        if getattr(model.config, "encoder", None) != self.name:
            raise CorecompressError(f"{folder}: holds no model of the encoder '{self.name}'; fit it again")
        prior = self.family(prior)
        self.model, self.prior = model.eval(), prior
        self.loaded(folder)

    def loaded(self, folder: Path) -> None:  # noqa: B027 - not every kind has more
        """What else a kind needs of the folder."""

    def generate(self, n: int, *, prompt: str | None = None, seed: int = 0) -> list[Sample]:
        """Draws of the prior through the synthesis."""
        if prompt is not None:
            raise CorecompressError(f"--prompt: the encoder '{self.name}' was fitted without captions; leave it out")
        with torch.no_grad():
            return self.show(self.sample(self._draw(n, seed), seed))

    def sample(self, z: torch.Tensor, seed: int) -> torch.Tensor:
        """Latents [n, k] as `generate` shows them, for `show`; seed: of what is drawn besides."""
        return self.make(z)

    def _draw(self, n: int, seed: int) -> torch.Tensor:
        """n draws of the prior, [n, k]."""
        assert self.model is not None
        assert self.prior is not None
        return draw(self.prior, n, self.model.config.latents, seed, self.model.prior_network)

    def reconstruct(self, batch: Batch) -> list[tuple[Sample, Sample]]:
        """Each sample, and what its posterior's mean becomes."""
        assert self.model is not None
        inputs = self.take(batch)
        with torch.no_grad():
            made = self.show(self.make(self.model.posterior(inputs)[0], inputs))
        return list(zip(self.originals(inputs), made, strict=True))

    def encode(self, x: Any) -> NDArray[np.float32]:
        """A batch as the data give it -> the posterior's means, float32 [n, k]."""
        assert self.model is not None
        with torch.no_grad():
            return np.asarray(self.model.posterior(self.take(x))[0].numpy())

    def decode(self, latents: Any) -> list[Sample]:
        """latents [n, k] -> samples."""
        with torch.no_grad():
            return self.show(self.make(torch.as_tensor(np.asarray(latents, np.float32))))

    def state_dict(self) -> Mapping[str, NDArray[Any]]:
        """The model's weights."""
        assert self.model is not None
        return {name: value.detach().cpu().numpy() for name, value in self.model.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Become the encoder that gave `state`; the model is there already."""
        assert self.model is not None
        self.model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})

    def described(self) -> dict[str, Any]:
        """The options, for the configuration."""
        return asdict(self.options)
