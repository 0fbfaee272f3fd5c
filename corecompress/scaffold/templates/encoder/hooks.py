"""Principal components as a corecompress encoder. Hooks only; the work is in encoder.py."""

from corecompress import Component, hookimpl


@hookimpl
def encoder_components() -> list[Component]:
    summary = "principal components of chunks of weights"
    return [Component("$distribution", "$package.encoder:Principal", summary, api=1)]
