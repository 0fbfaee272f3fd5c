"""A checkpoint written again with other values: what most model compressors do, one tensor in memory at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from corecompress.checkpoint import INDEX, Checkpoint
from corecompress.components import Progress, Tensor
from corecompress.errors import CorecompressError
from corecompress.safetensors_file import header_bytes


def rewrite_checkpoint(source: Checkpoint, out: Path, change: Callable[[Tensor], Tensor], progress: Progress) -> None:
    """Write `source` into the folder `out`, every tensor as `change` gives it; shards, metadata and other files stay.

    `change` may return the tensor that it got; one of another name, dtype or shape is a CorecompressError.
    """
    progress.start("writing tensors", sum(info.nbytes for info in source.tensors))
    for shard in source.shards:
        with open(out / shard.path.name, "wb") as file:
            file.write(header_bytes([stored.info for stored in shard.tensors], shard.metadata))
            for stored in shard.tensors:
                changed = change(stored.read())
                if changed.info != stored.info or changed.data.nbytes != stored.info.nbytes:
                    raise CorecompressError(f"'{stored.info.name}': was to keep its dtype and shape, and did not")
                file.write(changed.data.data)
                progress.advance(stored.info.nbytes)
    if len(source.shards) > 1:
        weight_map = {stored.info.name: shard.path.name for shard in source.shards for stored in shard.tensors}
        index = {"metadata": source.index_metadata, "weight_map": weight_map}
        (out / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    copy_other_files(source, out)


def copy_other_files(source: Checkpoint, out: Path) -> None:
    """config.json and all that goes along (tokenizer, generation config, …), for those who write weights themselves."""
    for name in ("config.json", *source.carried):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.folder / name, out / name)
