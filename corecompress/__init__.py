"""corecompress: a checkpoint goes in, a smaller one comes out that plain `transformers` still loads.

Importing this package imports nothing else: `import torch` reaches it through an entry point (see _autoload.py),
so a name below costs its module only when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from corecompress.api import benchmark as benchmark
    from corecompress.api import compare as compare
    from corecompress.api import compress as compress
    from corecompress.api import decompress as decompress
    from corecompress.api import evaluate as evaluate
    from corecompress.api import fit as fit
    from corecompress.api import generate as generate
    from corecompress.api import inspect as inspect
    from corecompress.api import load as load
    from corecompress.api import open_data as open_data
    from corecompress.api import plan as plan
    from corecompress.api import reconstruct as reconstruct
    from corecompress.api import verify as verify
    from corecompress.components import Component as Component
    from corecompress.components import Sample as Sample
    from corecompress.components import Tensor as Tensor
    from corecompress.components import TensorInfo as TensorInfo
    from corecompress.components import option as option
    from corecompress.errors import CorecompressError as CorecompressError
    from corecompress.errors import CorruptArtifact as CorruptArtifact
    from corecompress.hookspecs import HOOK_API as HOOK_API
    from corecompress.hookspecs import hookimpl as hookimpl

_HOMES = {
    "corecompress.api": (
        "benchmark",
        "compare",
        "compress",
        "decompress",
        "evaluate",
        "fit",
        "generate",
        "inspect",
        "load",
        "open_data",
        "plan",
        "reconstruct",
        "verify",
    ),
    "corecompress.components": ("Component", "Sample", "Tensor", "TensorInfo", "option"),
    "corecompress.errors": ("CorecompressError", "CorruptArtifact"),
    "corecompress.hookspecs": ("HOOK_API", "hookimpl"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'corecompress' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME_OF[name]), name)
