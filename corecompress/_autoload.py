"""Called at the end of `import torch` (entry point torch.backends): teach transformers about compressed folders.

It imports nothing, never raises, and only leaves a hook that runs when transformers' quantizers are imported: an
error here would break `import torch` for everything in this environment.
"""

import sys

WATCHED = "transformers.quantizers.auto"


class _Finder:
    """Runs `register` right after the watched module has been executed, once."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != WATCHED:
            return None
        sys.meta_path.remove(_Finder)  # type: ignore[arg-type]
        import importlib.util

        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module):  # type: ignore[no-untyped-def]
            execute(module)
            _register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    try:
        from corecompress.hf.quantizer import register

        register()
    except Exception as problem:
        import warnings

        warnings.warn(f"corecompress could not register with transformers: {problem!r}", stacklevel=2)


def install() -> None:
    """Leave the hook; register at once where transformers' quantizers are imported already."""
    try:
        if WATCHED in sys.modules:
            _register()
        elif _Finder not in sys.meta_path:
            sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]
    except Exception:  # noqa: S110  (nothing may break `import torch`)
        pass
