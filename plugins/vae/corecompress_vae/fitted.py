"""A fitted encoder on disk: a folder with encoder.safetensors (encoder, then prior) and encoder.json (who it is)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from corecompress.errors import CorecompressError


def load_fitted(path: str, encoder: Any, name: str) -> None:
    """Give `encoder` what `corecompress fit` learned. Raises CorecompressError for a folder that holds another one."""
    folder = Path(path)
    try:
        who = json.loads((folder / "encoder.json").read_text())
        state = load_file(folder / "encoder.safetensors")
    except (OSError, ValueError) as problem:
        raise CorecompressError(f"{path}: is no fitted encoder ({problem}); make one with corecompress fit") from None
    if who.get("encoder") != name:
        raise CorecompressError(f"{path}: holds an encoder '{who.get('encoder')}', not '{name}'")
    try:
        encoder.load_state_dict(
            {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
        )
    except (RuntimeError, KeyError, ValueError) as problem:
        line = str(problem).splitlines()[0]
        raise CorecompressError(f"{path}: does not fit {name} with these options ({line})") from None
