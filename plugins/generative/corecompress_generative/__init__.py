"""Variational autoencoders that become Hugging Face checkpoints. Hooks only; see encoder.py."""

from corecompress import Component, hookimpl


@hookimpl
def encoder_components() -> list[Component]:
    text = "corecompress_generative.text.encoders"
    return [
        Component("lstm", f"{text}:Lstm", "sequence VAE for text: LSTM analysis and synthesis", api=1),
        Component(
            "gat", f"{text}:Gat", "VAE for text whose synthesis is graph attention over positions, in parallel", api=1
        ),
    ]


@hookimpl
def prior_components() -> list[Component]:
    summary = "new latents from a generator and a critic (WGAN-GP); for coding, a histogram"
    return [Component("gan", "corecompress_generative.gan:Gan", summary, api=1)]
