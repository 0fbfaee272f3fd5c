"""Writes the compressed folder of the present format, once: python tests/compatibility/make.py

A folder that is there is never made again: it must load for ever as it is.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import corecompress
from corecompress.artifact import FORMAT
from corecompress.testing.samples import odd_tensors, write_checkpoint

HERE = Path(__file__).parent


def main() -> None:
    """Odd tensors of every sort, small ones, through every bundled way of storing them exactly."""
    target = HERE / f"format-{FORMAT}"
    if target.exists():
        sys.exit(f"{target}: is there already, and stays as it is")
    tensors = {name: entry for name, entry in odd_tensors().items() if entry[2].nbytes < 4500}
    with tempfile.TemporaryDirectory() as scratch:
        source = write_checkpoint(Path(scratch) / "odd", tensors)
        (source / "tokenizer.json").unlink()
        corecompress.compress(source, target)


if __name__ == "__main__":
    main()
