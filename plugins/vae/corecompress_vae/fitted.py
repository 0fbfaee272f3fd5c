"""A fitted encoder on disk: the folder that `corecompress fit` wrote, encoder.json and encoder.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from corecompress.errors import CorecompressError
from corecompress.hashing import hash_file
from corecompress.recipe import Spec


def fitted_spec(path: str, name: str) -> Spec:
    """The encoder in the folder, with the options that it was fitted with. Raises CorecompressError for another one,
    and for arrays that are not those that were written."""
    folder = Path(path)
    try:
        who = json.loads((folder / "encoder.json").read_text())
        found, options, digest = who["encoder"], dict(who["encoder options"]), who["sha256"]
        same = hash_file(folder / "encoder.safetensors") == digest
    except FileNotFoundError as problem:
        missing = Path(problem.filename).name
        raise CorecompressError(
            f"{path}: is no fitted encoder (it has no {missing}); make one with corecompress fit"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise CorecompressError(f"{path}: is no fitted encoder ({problem}); make one with corecompress fit") from None
    if found != name:
        raise CorecompressError(f"{path}: holds an encoder '{found}', not '{name}'")
    if not same:
        raise CorecompressError(f"{path}: encoder.safetensors is damaged; make it again with corecompress fit")
    return Spec(name, options)


def load_fitted(path: str, encoder: Any) -> None:
    """Give `encoder` what was learned. Raises CorecompressError where that does not fit it."""
    try:
        state = load_file(Path(path) / "encoder.safetensors")
        encoder.load_state_dict(
            {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
        )
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as problem:
        line = str(problem).splitlines()[0]
        raise CorecompressError(f"{path}: does not fit this encoder ({line})") from None
