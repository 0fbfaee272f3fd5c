"""Arrays that are kept in a folder until they are needed again, a file a tensor.

Not numpy's own files: numpy parses their headers as Python, and Python 3.11's parser fails now and then when two
threads use it at once (python/cpython issue 106905).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load_file

from corecompress.safetensors_file import write_arrays


def path_of(folder: Path, name: str) -> Path:
    """Where the arrays of the tensor `name` are kept."""
    return folder / (hashlib.sha256(name.encode()).hexdigest()[:24] + ".safetensors")


def keep(folder: Path, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Under the final name only when they are all written."""
    temporary = path_of(folder, name).with_suffix(".tmp")
    write_arrays(temporary, arrays)
    temporary.replace(path_of(folder, name))


def load(folder: Path, name: str) -> dict[str, NDArray[Any]] | None:
    """What `keep` wrote; None where it did not."""
    path = path_of(folder, name)
    return load_file(path) if path.exists() else None
