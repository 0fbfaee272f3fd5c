"""Variational autoencoders that become Hugging Face checkpoints. Hooks only; see encoder.py."""

from corecompress import Component, hookimpl


@hookimpl
def encoder_components() -> list[Component]:
    text = "corecompress_generative.text.encoders"
    small = "(steps=20, hidden=16, embedding=16, latents=4, batch=8)"
    data = " --data text(form=sentences, tokenizer=words, document=line):demo"
    lstm = "sequence VAE for text: LSTM analysis and synthesis"
    gat = "VAE for text whose synthesis is graph attention over positions, in parallel"
    return [
        Component("lstm", f"{text}:Lstm", lstm, api=1, example=f"lstm{small}{data}"),
        Component("gat", f"{text}:Gat", gat, api=1, example=f"gat{small}{data}"),
    ]


@hookimpl
def prior_components() -> list[Component]:
    summary = "new latents from a generator and a critic (WGAN-GP); for coding, a histogram"
    return [
        Component(
            "gan",
            "corecompress_generative.gan:Gan",
            summary,
            api=1,
            example="vae(bits=4, quantizer=scalar, prior=gan)",
        )
    ]
