"""Configurations of the fitted models: plain values, as config.json holds them."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

FORMAT = 1
"""Of the checkpoints; a newer one is refused."""


class GenerativeConfig(PreTrainedConfig):
    """Base. encoder: the component that fitted it; latents: numbers that a sample is encoded in; prior: as a
    recipe writes it; options: the encoder's own."""

    model_type = "corecompress-generative"

    def __init__(
        self,
        encoder: str = "",
        latents: int = 32,
        prior: str = "gaussian",
        options: dict[str, Any] | None = None,
        generative_format: int = FORMAT,
        **more: Any,
    ):
        from corecompress_generative import models  # noqa: F401  (AutoModel knows them from here on)

        if generative_format > FORMAT:
            raise ValueError(
                f"this model has format {generative_format}, the installed plugin reads up to {FORMAT}: "
                "pip install -U corecompress-generative"
            )
        super().__init__(**more)
        self.encoder, self.latents, self.prior = encoder, latents, prior
        self.options, self.generative_format = options or {}, generative_format


class TextVaeConfig(GenerativeConfig):
    """Of lstm and gat. vocab_size, tags (0: no tag input), length: tokens of the longest sentence."""

    model_type = "corecompress-text-vae"

    def __init__(
        self,
        vocab_size: int = 16,
        tags: int = 0,
        length: int = 32,
        pad_token_id: int | None = 0,
        bos_token_id: int | None = 2,
        eos_token_id: int | None = 3,
        unk_token_id: int | None = 1,
        **more: Any,
    ):
        super().__init__(**more)
        self.vocab_size, self.tags, self.length = vocab_size, tags, length
        self.pad_token_id, self.bos_token_id, self.eos_token_id = pad_token_id, bos_token_id, eos_token_id
        self.unk_token_id = unk_token_id

    @property
    def unspoken(self) -> list[int]:
        """Tokens that stand in no sentence: for unknown words, padding, and the beginning."""
        found = {self.unk_token_id, self.pad_token_id, self.bos_token_id} - {self.eos_token_id}
        return sorted(token for token in found if token is not None)


class ImageVaeConfig(GenerativeConfig):
    """Of cnn, vae-gan and text2image. image_size: [height, width]; num_channels: 1 or 3; caption_width,
    caption_words: numbers that a caption becomes, and words that are known (0: no captions)."""

    model_type = "corecompress-image-vae"

    def __init__(
        self,
        image_size: list[int] | None = None,
        num_channels: int = 1,
        caption_width: int = 0,
        caption_words: int = 0,
        **more: Any,
    ):
        super().__init__(**more)
        self.image_size, self.num_channels = list(image_size or (28, 28)), num_channels
        self.caption_width, self.caption_words = caption_width, caption_words


class NvaeConfig(ImageVaeConfig):
    """Of nvae."""

    model_type = "corecompress-nvae"

    def __init__(self, **more: Any):  # transformers would write one of its own that leaves ours out
        super().__init__(**more)


for _config in (TextVaeConfig, ImageVaeConfig, NvaeConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
