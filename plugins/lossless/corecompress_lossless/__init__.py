"""Lossless compression of weights as a corecompress plugin. Hooks only; the work is in compressor.py."""

from corecompress import Component, hookimpl


@hookimpl
def compressor_components() -> list[Component]:
    summary = "bit-exact for every dtype: floats in planes, each plane entropy coded where that pays"
    return [Component("lossless", "corecompress_lossless.compressor:Lossless", summary, api=1)]
