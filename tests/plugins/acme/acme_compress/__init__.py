"""Pruning, and a prior that expects zeros. Hooks only."""

from corecompress import Component, hookimpl


@hookimpl
def compressor_components() -> list[Component]:
    summary = "sets the smallest weights to zero, anywhere or two of every four"
    example = "acme-prune(sparsity=0.5) | lossless"
    return [Component("acme-prune", "acme_compress.prune:Prune", summary, api=1, example=example)]


@hookimpl
def prior_components() -> list[Component]:
    summary = "zeros, and Laplacian values besides"
    return [Component("acme-spike", "acme_compress.spike:Spike", summary, api=1)]
