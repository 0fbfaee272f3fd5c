"""Tables of a vocabulary, where there is no data that says how much they matter.

An input table is one layer however many rows it has, since a token reads one of them: a weight of it matters less
by the ratio of its size to that of a usual matrix. What an output head gets wrong reaches the logits undiluted, so it
takes about a third of the usual step; a tied table is a head. (llama.cpp's k-quants, too, keep the output finer than
the input embeddings.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from corecompress.components import TensorInfo

HEAD = 0.35
"""Step of a head, of the usual one; the README has what others lose."""
COARSEST = 4.0
"""Step of an input table, of the usual one, at most: more of it loses rare words altogether at 2 bits."""
_SPEAKS = re.compile("LM|ConditionalGeneration|PreTraining")
_HEAD = re.compile(r"lm_head|embed_out|(^|\.)output\.weight|predictions|decoder\.weight")


def table_steps(
    config: Mapping[str, Any], matrices: list[TensorInfo], names: Mapping[str, list[str]]
) -> dict[str, float]:
    """Factors of the steps of tables, by name; config: that of the checkpoint; names: all of a matrix."""
    nested = [config, *(part for part in config.values() if isinstance(part, Mapping))]
    sizes = {part.get("vocab_size") for part in nested} - {None}
    tables = [info for info in matrices if len(info.shape) == 2 and info.shape[0] in sizes]
    others = [info.size for info in matrices if info not in tables]
    heads = {info.name for info in tables if any(map(_HEAD.search, names[info.name]))}
    tied = not heads or any(part.get("tie_word_embeddings") for part in nested)  # it may be stored twice all the same
    if tied and any(_SPEAKS.search(name) for name in config.get("architectures") or []):
        heads = {info.name for info in tables}
    usual = float(np.mean(others)) if others else math.inf
    return {
        info.name: HEAD if info.name in heads else min(COARSEST, max(1.0, math.sqrt(info.size / usual)))
        for info in tables
    }
