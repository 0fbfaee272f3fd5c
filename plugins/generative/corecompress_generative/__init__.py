"""Variational autoencoders that become Hugging Face checkpoints. Hooks only; see encoder.py."""

from corecompress import Component, hookimpl


@hookimpl
def encoder_components() -> list[Component]:
    text, images = "corecompress_generative.text.encoders", "corecompress_generative.images"
    tiny = "(steps=8, channels=4, hidden=16, latents=4, batch=16) --data captioned(batch=16):digits"
    small = "(steps=20, hidden=16, embedding=16, latents=4, batch=8)"
    data = " --data text(form=sentences, tokenizer=words, document=line):demo"
    lstm = "sequence VAE for text: LSTM analysis and synthesis"
    gat = "VAE for text whose synthesis is graph attention over positions, in parallel"
    return [
        Component("lstm", f"{text}:Lstm", lstm, api=1, example=f"lstm{small}{data}"),
        Component("gat", f"{text}:Gat", gat, api=1, example=f"gat{small}{data}"),
        Component("cnn", f"{images}.encoders:Cnn", "convolutional VAE for images", api=1, example=f"cnn{tiny}"),
        Component(
            "nvae",
            f"{images}.hierarchy:NvaeEncoder",
            "deep hierarchical VAE for images: groups of latents from coarse to fine",
            api=1,
            example=f"nvae{tiny.replace('hidden=16, latents=4', 'maps=2, groups=1, cells=1')}",
        ),
        Component(
            "vae-gan",
            f"{images}.encoders:VaeGan",
            "VAE for images with a discriminator, whose features measure the reconstruction",
            api=1,
            example=f"vae-gan{tiny}",
        ),
        Component(
            "text2image",
            f"{images}.text2image:Text2Image",
            "images from captions: a conditional VAE, refined by an adversary",
            api=1,
            example=f"text2image{tiny}",
        ),
    ]
