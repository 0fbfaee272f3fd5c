"""Called at the end of `import torch` (entry point torch.backends): teach transformers about compressed folders.

It imports nothing, never raises, and only leaves a hook that runs when transformers' quantizers are imported: an
error here would break `import torch` for everything in this environment.
"""

import sys

QUANTIZERS = "transformers.quantizers.auto"
WATCHED = (QUANTIZERS, "transformers.modeling_utils")
"""The second for the case that `import torch` happens inside the import of the first; it always comes later."""


CONFIGS = "transformers.models.auto.configuration_auto"
"""Behind it models of plugins are registered, entry points of the group MODELS."""
MODELS = "corecompress.models"


class _Finder:
    """Tries to register right after a watched module has been executed, until that works."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name not in (*WATCHED, CONFIGS):
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not _Finder)
        spec = next((found for found in others if found is not None), None)
        if name == CONFIGS and spec is not None:
            _watch(spec)
            return spec
        loader = getattr(spec, "loader", None)
        if hasattr(loader, "exec_module"):
            execute = loader.exec_module  # type: ignore[union-attr]

            def execute_and_register(module):  # type: ignore[no-untyped-def]
                execute(module)
                _register()

            loader.exec_module = execute_and_register  # type: ignore[union-attr]
        return spec


def _watch(spec: object) -> None:
    """Register models when the import that this spec is of ends: importlib then says so in an attribute of it. (A hook
    behind the loader would come too late where `import torch` is a part of that very import.)"""

    class Watched(type(spec)):  # type: ignore[misc]
        def __setattr__(self, name, value):  # type: ignore[no-untyped-def]
            super().__setattr__(name, value)
            if name == "_initializing" and not value:
                self.__class__ = type(self).__mro__[1]
                _register_models()

    spec.__class__ = Watched


def _register_models() -> None:
    """Import what plugins have for the Auto classes; it registers itself. One that fails is reported, and left out."""
    import warnings
    from importlib.metadata import entry_points

    for entry in entry_points(group=MODELS):
        try:
            entry.load()
        except Exception as problem:
            warnings.warn(f"{entry.value} could not register with transformers: {problem!r}", stacklevel=2)


def _is_ready() -> bool:
    """Whether transformers' quantizers are imported, and not just being imported."""
    module = sys.modules.get(QUANTIZERS)
    return module is not None and not getattr(module.__spec__, "_initializing", False)


def _register() -> None:
    try:
        import corecompress.hf.quantizer  # noqa: F401  (registers; where it is what is just being imported, at its end)

        if _Finder in sys.meta_path and CONFIGS in sys.modules:
            sys.meta_path.remove(_Finder)
    except Exception as problem:
        import warnings

        warnings.warn(f"corecompress could not register with transformers: {problem!r}", stacklevel=2)


def install() -> None:
    """Leave the hook; register at once where transformers' quantizers are imported already."""
    try:
        if _is_ready():
            _register()
        elif _Finder not in sys.meta_path:
            sys.meta_path.insert(0, _Finder)
        configs = sys.modules.get(CONFIGS)
        if configs is not None and getattr(configs.__spec__, "_initializing", False):
            _watch(configs.__spec__)
        elif configs is not None:
            _register_models()
    except Exception:
        pass
