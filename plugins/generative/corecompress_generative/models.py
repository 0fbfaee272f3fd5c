"""Every fitted model's place among the Auto classes."""

from transformers import AutoModel

from corecompress_generative.config import TextVaeConfig
from corecompress_generative.text.model import TextVae

AutoModel.register(TextVaeConfig, TextVae, exist_ok=True)
