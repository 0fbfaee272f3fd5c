"""Pythae's VAE and VAEGAN around the networks of our image VAE, so that only the training differs.

pip install pythae==0.1.2
"""

import logging
import tempfile

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEGAN, VAEConfig, VAEGANConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
from pythae.trainers import (
    BaseTrainer,
    BaseTrainerConfig,
    CoupledOptimizerAdversarialTrainer,
    CoupledOptimizerAdversarialTrainerConfig,
)

from corecompress_generative.images.model import ImageVae

logging.disable(logging.INFO)


class Analysis(BaseEncoder):
    def __init__(self, model: ImageVae):
        super().__init__()
        self.analysis, self.latents = model.analysis, model.latents

    def forward(self, x: torch.Tensor) -> ModelOutput:
        mean, log_deviation = self.latents(self.analysis(x)).chunk(2, 1)
        return ModelOutput(embedding=mean, log_covariance=2 * log_deviation.clamp(-6, 2))


class Synthesis(BaseDecoder):
    def __init__(self, model: ImageVae):
        super().__init__()
        self.synthesis = model.synthesis

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=torch.sigmoid(self.synthesis(z)))


class Discriminator(BaseDiscriminator):
    """The layers of ours, without spectral norms, with the sigmoid that Pythae's loss asks for."""

    depth = 2

    def __init__(self, model: ImageVae):
        super().__init__()
        config, channels = model.config, model.config.options["channels"]
        height, width = (extent // 4 for extent in config.image_size)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(config.num_channels, channels, 4, 2, 1), torch.nn.LeakyReLU(0.2),
            torch.nn.Conv2d(channels, 2 * channels, 4, 2, 1), torch.nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.score = torch.nn.Linear(2 * channels * height * width, 1)

    def forward(self, x: torch.Tensor, output_layer_levels: list[int] | None = None) -> ModelOutput:
        features = self.body(x)
        if output_layer_levels is not None:
            return ModelOutput(embedding_layer_1=features)
        return ModelOutput(embedding=torch.sigmoid(self.score(features.flatten(1))))


def train_vae(model: ImageVae, pixels: torch.Tensor, epochs: int, batch: int, rate: float, seed: int) -> None:
    """Trains `model` in place, as a Bernoulli VAE; pixels [n, c, h, w], 0 or 1."""
    config = VAEConfig(input_dim=tuple(pixels.shape[1:]), latent_dim=model.config.latents, reconstruction_loss="bce")
    whole = VAE(config, Analysis(model), Synthesis(model))
    with tempfile.TemporaryDirectory() as scratch:
        plan = BaseTrainerConfig(
            output_dir=scratch, num_epochs=epochs, per_device_train_batch_size=batch, learning_rate=rate, seed=seed
        )
        BaseTrainer(whole, BaseDataset(pixels, torch.zeros(len(pixels))), training_config=plan).train()


def train_vae_gan(model: ImageVae, pixels: torch.Tensor, epochs: int, batch: int, rate: float, seed: int) -> None:
    """Trains `model` in place, as a VAEGAN; pixels [n, c, h, w], 0 … 1."""
    config = VAEGANConfig(input_dim=tuple(pixels.shape[1:]), latent_dim=model.config.latents, reconstruction_layer=1)
    whole = VAEGAN(config, Analysis(model), Synthesis(model), Discriminator(model))
    with tempfile.TemporaryDirectory() as scratch:
        plan = CoupledOptimizerAdversarialTrainerConfig(
            output_dir=scratch, num_epochs=epochs, per_device_train_batch_size=batch, seed=seed,
            encoder_learning_rate=rate, decoder_learning_rate=rate, discriminator_learning_rate=rate,
        )  # fmt: skip
        data = BaseDataset(pixels, torch.zeros(len(pixels)))
        CoupledOptimizerAdversarialTrainer(whole, data, training_config=plan).train()
