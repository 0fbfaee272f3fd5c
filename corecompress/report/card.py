"""The README.md of a compressed folder: how to load it, and what was done."""

from __future__ import annotations

from pathlib import Path

from corecompress.artifact import Manifest
from corecompress.checkpoint import Checkpoint
from corecompress.report.units import human_bytes

TEXT = """---
library_name: transformers
tags:
- corecompress
{base}---

# {name}, compressed

Made by corecompress {version} with the recipe `{recipe}`: {before} of weights became {after}.

```
pip install "corecompress[hf]" {needs}
```
```python
from transformers import AutoModel

model = AutoModel.from_pretrained("path/to/this/folder")
```

transformers finds corecompress by itself. Where that is switched off (TORCH_DEVICE_BACKEND_AUTOLOAD=0), write
`import corecompress.hf` first, or `corecompress.load("path/to/this/folder")`.
`corecompress decompress FOLDER -o DENSE` writes an ordinary checkpoint again,
`corecompress verify FOLDER` checks every byte.
"""


def write_card(path: Path, manifest: Manifest, checkpoint: Checkpoint) -> None:
    """Write the card of a compressed folder. It mentions the original's own card, README.original.md."""
    base = f"base_model: {checkpoint.name}\n" if "/" in checkpoint.name else ""
    text = TEXT.format(
        base=base,
        name=checkpoint.name.rpartition("/")[2],
        version=manifest.corecompress,
        recipe=manifest.recipe,
        before=human_bytes(sum(shard["bytes"] for shard in manifest.source["shards"])),
        after=human_bytes(sum(payload.bytes for payload in manifest.payloads)),
        needs=" ".join(sorted({f'"{used.distribution}"' for used in manifest.components if used.version != "file"})),
    )
    if "README.md" in checkpoint.carried:
        text += "\nThe original's own card is in README.original.md.\n"
    path.write_text(text, encoding="utf-8")
