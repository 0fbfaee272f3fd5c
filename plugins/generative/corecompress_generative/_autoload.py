"""Called at the end of `import torch` (entry point torch.backends): AutoConfig and AutoModel know fitted folders.

It imports nothing, never raises, and only leaves a hook that runs when AutoConfig is imported. The models register
themselves when the first of their configurations is made.
"""

import sys

CONFIGS = "transformers.models.auto.configuration_auto"


class _Finder:
    """Sees that module's import come, and has its spec tell when it is over."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != CONFIGS:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not _Finder)
        spec = next((found for found in others if found is not None), None)
        if spec is not None:
            _watch(spec)
        return spec


def _watch(spec):  # type: ignore[no-untyped-def]
    """Register when the import that this spec is of ends: importlib then says so in an attribute of it. (A hook behind
    the loader would come too late where `import torch` is a part of that very import.)"""

    class Watched(type(spec)):  # type: ignore[misc]
        def __setattr__(self, name, value):  # type: ignore[no-untyped-def]
            super().__setattr__(name, value)
            if name == "_initializing" and not value:
                self.__class__ = type(self).__mro__[1]
                _register()

    spec.__class__ = Watched


def _register() -> None:
    try:
        import corecompress_generative.config  # noqa: F401  (registers itself at its end)
    except Exception as problem:
        import warnings

        warnings.warn(f"corecompress-generative could not register with transformers: {problem!r}", stacklevel=2)


def install() -> None:
    """Leave the hook; register at once where AutoConfig is imported already."""
    try:
        module = sys.modules.get(CONFIGS)
        if module is None:
            if _Finder not in sys.meta_path:
                sys.meta_path.insert(0, _Finder)
        elif getattr(module.__spec__, "_initializing", False):
            _watch(module.__spec__)
        else:
            _register()
    except Exception:
        pass
