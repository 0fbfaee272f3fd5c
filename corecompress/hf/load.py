"""corecompress.load: a folder in, a transformers model out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from corecompress.artifact import Artifact, is_compressed
from corecompress.errors import CorecompressError

HUB_ID = r"([\w][\w.-]*(?:/[\w][\w.-]*)?)(?:@([\w./-]+))?"
FOR_CONFIG = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token", "trust_remote_code")


def load_model(folder: str | Path, auto_class: str | None = None, **kwargs: Any) -> Any:
    """Load a compressed folder, or any checkpoint (folder or hub id, also org/name@revision), with transformers.

    auto_class: "AutoModelForCausalLM", … (default: the architecture that config.json names, else AutoModel);
    kwargs go to its from_pretrained. Raises CorecompressError for a folder that isn't there, a class that
    transformers doesn't have, or a missing transformers; CorruptArtifact for a damaged folder.
    """
    source = Path(folder).expanduser()
    hub_id = None if source.is_dir() or isinstance(folder, Path) else re.fullmatch(HUB_ID, folder)
    if not source.is_dir() and hub_id is None:
        raise CorecompressError(f"{folder}: no such folder; give a checkpoint's folder, compressed or not, or a hub id")
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as problem:
        message = f'{problem}; loading needs torch and transformers: pip install "corecompress[hf]"'
        raise CorecompressError(message) from None
    import corecompress.hf.quantizer  # noqa: F401  (registers, also where `import torch` may not)
    from corecompress.hf.tensors import check_files

    if is_compressed(source):  # before transformers reads a damaged config.json
        check_files(Artifact(source))
    if hub_id is not None and hub_id[2]:
        kwargs.setdefault("revision", hub_id[2])
    name = hub_id[1] if hub_id is not None else str(source)
    cls = _class(transformers, auto_class or _architecture(transformers, name, kwargs))
    return cls.from_pretrained(name, **kwargs)


def _architecture(transformers: Any, name: str, kwargs: dict[str, Any]) -> str:
    """The class that config.json names, if transformers has it."""
    config = kwargs.get("config")
    if config is None:
        try:
            passed = {key: kwargs[key] for key in FOR_CONFIG if key in kwargs}
            config = transformers.AutoConfig.from_pretrained(name, **passed)
        except OSError as problem:
            raise CorecompressError(
                f"{name}: no model can be loaded from there: {' '.join(str(problem).split())}"
            ) from problem
    named = (getattr(config, "architectures", None) or ["AutoModel"])[0]
    return named if hasattr(transformers, named) else "AutoModel"


def _class(transformers: Any, name: str) -> Any:
    cls = getattr(transformers, name, None)
    if not hasattr(cls, "from_pretrained"):
        raise CorecompressError(f"transformers {transformers.__version__} has no model class '{name}'; try AutoModel")
    return cls
