"""Called at the end of `import torch` (entry point torch.backends): AutoConfig and AutoModel know fitted folders.

It imports nothing, never raises, and only leaves a hook that runs when AutoConfig is imported. The models register
themselves when the first of their configurations is made.
"""

import sys

CONFIGS = "transformers.models.auto.configuration_auto"


class _Finder:
    """Registers right after that module has been executed."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != CONFIGS:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not _Finder)
        spec = next((found for found in others if found is not None), None)
        loader = getattr(spec, "loader", None)
        if hasattr(loader, "exec_module"):
            execute = loader.exec_module  # type: ignore[union-attr]

            def execute_and_register(module):  # type: ignore[no-untyped-def]
                execute(module)
                _register()

            loader.exec_module = execute_and_register  # type: ignore[union-attr]
        return spec


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
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            _register()
        elif _Finder not in sys.meta_path:
            sys.meta_path.insert(0, _Finder)
    except Exception:
        pass
