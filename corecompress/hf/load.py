"""corecompress.load: a folder in, a transformers model out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from corecompress.artifact import Artifact, is_compressed
from corecompress.errors import CorecompressError

HUB_ID = r"[\w][\w.-]*(/[\w][\w.-]*)?"


def load_model(folder: str | Path, auto_class: str | None = None, **kwargs: Any) -> Any:
    """Load a compressed folder, or any checkpoint (folder or hub id), with transformers.

    auto_class: "AutoModelForCausalLM", … (default: the architecture that config.json names, else AutoModel);
    kwargs go to its from_pretrained. Raises CorecompressError for a folder that isn't there, a class that
    transformers doesn't have, or a missing transformers; CorruptArtifact for a damaged folder.
    """
    source = Path(folder).expanduser()
    if not source.is_dir() and (isinstance(folder, Path) or not re.fullmatch(HUB_ID, folder)):
        raise CorecompressError(f"{folder}: no such folder; give a compressed folder, a checkpoint's folder or a hub id")
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as problem:
        raise CorecompressError(f"{problem}; loading needs transformers: pip install \"corecompress[hf]\"") from None
    import corecompress.hf.quantizer  # noqa: F401  (registers, where the registration by `import torch` is off)
    from corecompress.hf.tensors import check_files

    if is_compressed(source):  # before transformers reads a damaged config.json
        check_files(Artifact(source))
    name = str(source) if source.is_dir() else str(folder)
    cls = _class(transformers, auto_class or _architecture(transformers, name, kwargs))
    return cls.from_pretrained(name, **kwargs)


def _architecture(transformers: Any, name: str, kwargs: dict[str, Any]) -> str:
    """The class that config.json names, if transformers has it."""
    config = kwargs.get("config")
    if config is None:
        for_config = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "trust_remote_code")
        config = transformers.AutoConfig.from_pretrained(name, **{key: kwargs[key] for key in for_config if key in kwargs})
    named = (getattr(config, "architectures", None) or ["AutoModel"])[0]
    return named if hasattr(transformers, named) else "AutoModel"


def _class(transformers: Any, name: str) -> Any:
    cls = getattr(transformers, name, None)
    if not hasattr(cls, "from_pretrained"):
        raise CorecompressError(f"transformers {transformers.__version__} has no model class '{name}'; AutoModel, say")
    return cls
