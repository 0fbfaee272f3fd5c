"""A model's outputs as rows that can be compared: logits a predicted token, an embedding a sentence, and so on."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corecompress.errors import CorecompressError
from corecompress.measure.task import Task

CHUNK = 1 << 19

MASKED = 0.15
"""Share of the tokens that a masked language model has to guess (Devlin et al. 2019)."""

ELEMENTS = 1 << 25
"""Numbers in one forward pass's output, about: 128 MiB in float32."""

AUTO = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "image-classifier": "AutoModelForImageClassification",
    "sentence-encoder": "AutoModel",
    "other": None,
}


def auto_class(task: str, folder: Path) -> str | None:
    """The class of transformers to load a folder with; None: the one that its config.json names, as for an encoder that
    is half of a model (T5EncoderModel), of which AutoModel would make the whole, and models that see or hear."""
    named = str((json.loads((folder / "config.json").read_bytes()).get("architectures") or [""])[0])
    half = task == "sentence-encoder" and named.endswith("EncoderModel")
    return None if half or named.endswith("ForConditionalGeneration") else AUTO[task]


@dataclass(frozen=True)
class Rows:
    """values: float32 tensor [rows, width]; targets: the right index of each row, int64, −1 where there is none;
    documents: where each row comes from, int64; nll: −ln p of each row's sample in nats, of a model that says it."""

    values: Any
    targets: NDArray[np.int64]
    documents: NDArray[np.int64]
    task: Task
    nll: NDArray[np.float64] | None = None

    @property
    def is_logits(self) -> bool:
        return self.task not in ("sentence-encoder", "other")

    @property
    def is_embedding(self) -> bool:
        return self.task == "sentence-encoder"

    @property
    def chunk(self) -> int:
        """Rows that are compared at a time, so that they stay in the processor's cache."""
        return max(1, CHUNK // max(1, int(self.values.shape[1])))


class Outputs:
    """Runs a model on batches. folder: the original's, for what is not in the weights (mask token, pooling)."""

    def __init__(self, model: Any, task: Task, folder: Path, seed: int):
        self.model, self.task, self.folder, self.seed = model, task, folder, seed
        self.device = next(model.parameters()).device
        self.mask_id = mask_id(folder) if task == "masked-lm" else 0
        self.pooling = pooling_of(folder)

    def of(self, batch: dict[str, NDArray[Any]], number: int) -> Iterator[Rows]:
        """The rows of a batch, in pieces that fit into memory."""
        import torch

        first = next(iter(batch.values()))
        size = max(1, ELEMENTS // max(1, self._width() * int(first.shape[1] if first.ndim > 1 else 1)))
        for at in range(0, len(first), size):
            piece = {key: value[at : at + size] for key, value in batch.items()}
            with torch.inference_mode(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)  # there are forwards that draw (ViTMAE's masks): the same on both sides
                rows = self._rows(piece, np.random.default_rng([self.seed, number, at]))
            yield rows

    def _width(self) -> int:
        config = getattr(self.model.config, "text_config", None) or self.model.config
        found = getattr(config, "vocab_size", 0) or getattr(config, "hidden_size", 1024)
        return int(found or 1024)

    def _rows(self, batch: dict[str, NDArray[Any]], random: np.random.Generator) -> Rows:
        if self.task in ("causal-lm", "masked-lm", "seq2seq-lm") and "input_ids" not in batch:
            raise CorecompressError("--data: holds no token ids, which this model needs; use text:SOURCE")
        if self.task == "seq2seq-lm" and "input_ids" not in inspect.signature(self.model.forward).parameters:
            raise CorecompressError(f"--data: holds text, and this model reads {self.model.main_input_name}")
        if self.task == "image-classifier" and "pixel_values" not in batch:
            raise CorecompressError("--data: holds no images, which this model needs; use captioned:DIR")
        step = {
            "causal-lm": self._causal,
            "masked-lm": self._masked,
            "seq2seq-lm": self._sequence,
            "image-classifier": self._image,
            "sentence-encoder": self._sentence,
            "other": self._other,
        }[self.task]
        return step(batch, random)

    def _tensor(self, value: NDArray[Any]) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(value)).to(self.device)

    def _causal(self, batch: dict[str, NDArray[Any]], random: np.random.Generator) -> Rows:
        ids, mask = batch["input_ids"], batch["attention_mask"].astype(bool)
        passed = {} if mask.all() else {"attention_mask": self._tensor(batch["attention_mask"])}
        logits = self.model(input_ids=self._tensor(ids), use_cache=False, **passed).logits
        keep = mask[:, 1:] & mask[:, :-1]
        documents = _by_token(batch["document"], ids.shape)[:, 1:]
        keep &= documents >= 0
        return Rows(_pick(logits[:, :-1], keep), ids[:, 1:][keep], documents[keep], self.task)

    def _masked(self, batch: dict[str, NDArray[Any]], random: np.random.Generator) -> Rows:
        ids, mask = batch["input_ids"], batch["attention_mask"].astype(bool)
        documents = _by_token(batch["document"], ids.shape)
        inner = mask & (documents >= 0)
        guess = (random.random(ids.shape) < MASKED) & inner
        guess[np.arange(len(ids)), inner.argmax(1)] |= ~guess.any(1) & inner.any(1)
        hidden = np.where(guess, self.mask_id, ids)
        logits = self.model(input_ids=self._tensor(hidden), attention_mask=self._tensor(batch["attention_mask"])).logits
        return Rows(_pick(logits, guess), ids[guess], documents[guess], self.task)

    def _sequence(self, batch: dict[str, NDArray[Any]], random: np.random.Generator) -> Rows:
        """The encoder reads the first half of each text, the decoder predicts the second (a prefix language model)."""
        ids, mask = batch["input_ids"], batch["attention_mask"].astype(bool)
        documents = _by_token(batch["document"], ids.shape)
        half = max(1, ids.shape[1] // 2)
        if ids.shape[1] < 2 or not mask[:, half:].any():
            half = 1
        labels, keep = ids[:, half:], mask[:, half:]
        first = np.full((len(ids), 1), decoder_start(self.model), np.int64)
        logits = self.model(
            input_ids=self._tensor(ids[:, :half]),
            attention_mask=self._tensor(batch["attention_mask"][:, :half]),
            decoder_input_ids=self._tensor(np.concatenate([first, labels[:, :-1]], 1)),
            use_cache=False,
        ).logits
        return Rows(_pick(logits, keep), labels[keep], documents[:, half:][keep], self.task)

    def _image(self, batch: dict[str, NDArray[Any]], random: np.random.Generator) -> Rows:
        logits = self.model(pixel_values=self._tensor(batch["pixel_values"])).logits.float()
        return Rows(logits, np.full(len(logits), -1), batch["document"].astype(np.int64), self.task)

    def _sentence(self, batch: dict[str, NDArray[Any]], random: np.random.Generator) -> Rows:
        if "input_ids" not in batch:
            raise CorecompressError("--data: holds no token ids, which this model needs; use text:SOURCE")
        mask = self._tensor(batch["attention_mask"])
        hidden = self.model(input_ids=self._tensor(batch["input_ids"]), attention_mask=mask).last_hidden_state.float()
        documents = _by_token(batch["document"], batch["input_ids"].shape).max(1)
        return Rows(pool(hidden, mask, self.pooling), np.full(len(documents), -1), documents, self.task)

    def _other(self, batch: dict[str, NDArray[Any]], random: np.random.Generator) -> Rows:
        import torch

        known = inspect.signature(self.model.forward).parameters
        passed = {key: self._tensor(value) for key, value in batch.items() if key in known and value.dtype != object}
        if not passed:
            names = ", ".join(batch)
            raise CorecompressError(f"--data: the model's forward takes none of what it holds ({names})")
        try:
            out = self.model(**passed)
        except Exception as problem:
            reason = f"{type(problem).__name__}: {' '.join(str(problem).split())[:120]}"
            raise CorecompressError(f"--data: {', '.join(passed)} alone the model can't run on ({reason})") from None
        count = len(next(iter(passed.values())))
        nll = out.get("nll")
        tensors = [value for key, value in out.items() if key != "nll" and hasattr(value, "is_floating_point")]
        found = [value for value in tensors if value.is_floating_point() and value.ndim]
        rows = torch.cat([value.float().reshape(count, -1) for value in found if len(value) == count], 1)
        documents = batch["document"]
        nll = None if nll is None else nll.double().cpu().numpy()
        return Rows(rows, np.full(len(rows), -1), _by_token(documents, (len(rows), 1)).max(1), self.task, nll)


def decoder_start(model: Any) -> int:
    """The token that an encoder-decoder's decoder begins with: transformers keeps it in either configuration."""
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        for config in (model.config, getattr(model, "generation_config", None)):
            found = getattr(config, name, None)
            if found is not None:
                return int(found)
    return 0


def _by_token(documents: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.int64]:
    whole = documents if documents.ndim == 2 else documents[:, None]
    if whole.shape[1] != shape[1] and whole.shape[1] != 1:
        return whole.astype(np.int64)
    return np.broadcast_to(whole, shape).astype(np.int64)


def _pick(logits: Any, keep: NDArray[np.bool_]) -> Any:
    """The rows of [n, length, width] where `keep` [n, length] holds, float32; no copy where all are kept."""
    import torch

    if keep.all() and len(logits) == 1:
        return logits[0].float()
    return logits[torch.from_numpy(keep).to(logits.device)].float()


def mask_id(folder: Path) -> int:
    """The id of the tokenizer's mask token. Raises CorecompressError where there is none."""
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(str(folder)).mask_token_id
    except Exception as problem:
        reason = " ".join(str(problem).split())[:100]
        raise CorecompressError(
            f"{folder}: no tokenizer loads from there ({reason}); a masked model needs one"
        ) from None
    if found is None:
        raise CorecompressError(f"{folder}: its tokenizer has no mask token; a masked language model needs one")
    return int(found)


def pooling_of(folder: Path) -> str:
    """How a sentence-transformers folder pools: mean, cls, max or last."""
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return "mean"
    config = json.loads(path.read_text(encoding="utf-8"))
    modes = {"cls_token": "cls", "max_tokens": "max", "lasttoken": "last"}
    return next((mode for key, mode in modes.items() if config.get(f"pooling_mode_{key}")), "mean")


def pool(hidden: Any, mask: Any, pooling: str) -> Any:
    """[n, length, width] -> [n, width]."""
    import torch

    weight = mask[..., None].to(hidden.dtype)
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "max":
        return hidden.masked_fill(weight == 0, -1e9).amax(1)
    if pooling == "last":
        at = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), at]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
