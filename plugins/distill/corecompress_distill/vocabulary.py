"""A student has to know the teacher's tokens: another vocabulary is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corecompress.errors import CorecompressError


def check_vocabulary(teacher: Any, teacher_folder: Path, student: Any, name: str) -> None:
    """Raises CorecompressError where sizes or, if both have a tokenizer, tokens differ.

    teacher, student: configurations; name: the student's folder or hub id.
    """
    sizes = [getattr(config.get_text_config(), "vocab_size", None) for config in (teacher, student)]
    if sizes[0] != sizes[1]:
        raise CorecompressError(
            f"distill(student={name}): has a vocabulary of {sizes[1]} where the teacher has {sizes[0]}; "
            "choose a student of the teacher's tokenizer"
        )
    if sizes[0] is None:
        return
    mine, theirs = _tokens(str(teacher_folder)), _tokens(name)
    if mine is None or theirs is None or mine == theirs:
        return
    token = min(t for t in mine.keys() | theirs.keys() if mine.get(t) != theirs.get(t))
    raise CorecompressError(
        f"distill(student={name}): its tokenizer is another one than the teacher's (token '{token}' is "
        f"{theirs.get(token, 'missing')} there, {mine.get(token, 'missing')} here); choose a student of the same"
    )


def _tokens(where: str) -> dict[str, int] | None:
    """Token -> id, None where no tokenizer goes along."""
    from transformers import AutoTokenizer

    try:
        return dict(AutoTokenizer.from_pretrained(where).get_vocab())
    except Exception:  # no tokenizer there: the sizes have to do
        return None
