"""Tokenizers: the checkpoint's own, any other by folder or hub id, or one trained on the corpus."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from corecompress.errors import CorecompressError

FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model", "*.tiktoken")
TRAINED = ("bpe", "unigram", "words")
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")


@dataclass(frozen=True)
class Vocabulary:
    """What windows and sentences need to know of a tokenizer.

    prefix, suffix: ids that it puts around one text; end: id between unrelated documents, None where it has none;
    pad: id of padding; size: number of ids; unknown: id of what it does not know, or None.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    end: int | None
    pad: int
    size: int
    unknown: int | None


def load(where: str) -> Any:
    """A transformers tokenizer from a folder or hub id. Raises CorecompressError when there is none."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
    except Exception as problem:
        reason = " ".join(str(problem).split())[:120]
        raise CorecompressError(
            f"{where}: no tokenizer loads from there ({reason}); name another: text(tokenizer=FOLDER or hub id)"
        ) from None
    if not getattr(tokenizer, "is_fast", False):
        raise CorecompressError(
            f"{where}: has no fast tokenizer (tokenizer.json); name another: text(tokenizer=FOLDER)"
        )
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def has_files(folder: Path) -> bool:
    """Whether a tokenizer's files are there."""
    return bool(_files(folder))


def _files(folder: Path) -> list[Path]:
    return sorted({path for pattern in FILES for path in folder.glob(pattern)})


def describe(tokenizer: Any) -> Vocabulary:
    """Its special ids, found by encoding a letter with and without them."""
    inner = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    at = next((i for i in range(len(whole)) if whole[i : i + len(inner)] == inner), 0) if inner else len(whole)
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (end or 0)
    size = max(len(tokenizer), tokenizer.vocab_size)
    prefix, suffix = tuple(whole[:at]), tuple(whole[at + len(inner) :])
    return Vocabulary(prefix, suffix, end, pad, size, tokenizer.unk_token_id)


def identity(where: str | Path) -> str:
    """Digest of a tokenizer's files; of a hub id, its name."""
    folder = Path(where)
    digest = xxhash.xxh3_128(str(where).encode() if not folder.is_dir() else b"")
    for path in _files(folder) if folder.is_dir() else ():
        digest.update(path.name.encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def train(kind: str, size: int, texts: Iterable[list[str]], segmented: bool, folder: Path) -> None:
    """Train a tokenizer and save it as an ordinary Hugging Face tokenizer (tokenizer.json and its configuration).

    kind: "bpe" (byte-level, Sennrich 2016), "unigram" (Kudo 2018) or "words" (whole words by frequency).
    segmented: whether the texts are words with blanks between. Raises CorecompressError for a corpus with nothing to
    learn from.
    """
    import tokenizers as tk
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = list(SPECIAL)
    if kind == "words":
        backend = tk.Tokenizer(models.WordLevel(unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if segmented else pre_tokenizers.Whitespace()
        trainer: Any = trainers.WordLevelTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    elif kind == "bpe":
        backend = tk.Tokenizer(models.BPE(unk_token=None))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=max(size, 256 + len(special)),
            special_tokens=special,
            initial_alphabet=alphabet,
            show_progress=False,
        )
    else:
        backend = tk.Tokenizer(models.Unigram())
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    try:
        backend.train_from_iterator(texts, trainer)
    except CorecompressError:  # of the corpus
        raise
    except Exception as problem:
        raise CorecompressError(f"text(tokenizer={kind}): could not be trained ({problem}); give more text") from None
    if backend.get_vocab_size() <= len(special):
        raise CorecompressError(f"text(tokenizer={kind}): the corpus has no words to learn; give more text")
    ids = [(name, backend.token_to_id(name)) for name in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(str(folder))


def save(vocabulary: Vocabulary) -> str:
    """As JSON."""
    return json.dumps(vocabulary.__dict__)


def parse(text: str) -> Vocabulary:
    """What `save` wrote."""
    value = json.loads(text)
    return Vocabulary(**{**value, "prefix": tuple(value["prefix"]), "suffix": tuple(value["suffix"])})
