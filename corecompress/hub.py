"""The Hugging Face hub as a source: a snapshot of one commit, through huggingface_hub."""

from __future__ import annotations

from pathlib import Path

from corecompress.errors import CorecompressError

UNWANTED = [
    *("pytorch_model*.bin*", "tf_model.h5", "flax_model*.msgpack", "rust_model.ot", "*.onnx", "*.gguf"),
    *("onnx/*", "openvino/*", "coreml/*"),
]
"""Other runtimes' weights. Patterns match whole paths: 2_Dense/pytorch_model.bin is wanted."""


def download(hub_id: str, revision: str | None) -> Path:
    """Fetch (or find in the cache) a repository's files but other runtimes' weights; the folder of that commit.

    Raises CorecompressError when the hub, the repository or the revision can't be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        return Path(snapshot_download(hub_id, revision=revision, ignore_patterns=UNWANTED))
    except Exception as problem:
        reason = " ".join(str(problem).split()).partition(". ")[0] or type(problem).__name__
        wanted = f"{hub_id}@{revision}" if revision else hub_id
        raise CorecompressError(
            f"{wanted}: no folder of that name, and not to be had from the hub ({type(problem).__name__}: "
            f"{reason[:200]}); "
            "check the name and the network, or give a local folder"
        ) from problem
