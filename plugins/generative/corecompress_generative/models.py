"""Every fitted model's place among the Auto classes."""

from transformers import AutoModel

from corecompress_generative.config import ImageVaeConfig, NvaeConfig, TextVaeConfig
from corecompress_generative.images.model import ImageVae
from corecompress_generative.images.nvae import Nvae
from corecompress_generative.text.model import TextVae

AutoModel.register(TextVaeConfig, TextVae, exist_ok=True)
AutoModel.register(ImageVaeConfig, ImageVae, exist_ok=True)
AutoModel.register(NvaeConfig, Nvae, exist_ok=True)
