"""Group-wise round-to-nearest as a corecompress plugin. Hooks only; the work is in compressor.py."""

from corecompress import Component, hookimpl


@hookimpl
def compressor_components() -> list[Component]:
    summary = "weights rounded to a grid for each group, entropy coded"
    return [Component("$distribution", "$package.compressor:RoundToNearest", summary, api=1)]
