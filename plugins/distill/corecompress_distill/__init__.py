"""A smaller network from a checkpoint: cut, then trained on the original. Hooks only; see compressor.py."""

from corecompress import Component, hookimpl


@hookimpl
def compressor_components() -> list[Component]:
    summary = "fewer layers, narrower layers or another student, trained on the original's outputs (needs --data)"
    example = "distill(layers=1, steps=4) --data text:demo"
    return [Component("distill", "corecompress_distill.compressor:Distill", summary, api=1, example=example)]
