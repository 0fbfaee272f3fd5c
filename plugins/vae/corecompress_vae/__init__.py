"""Weights as latents: calibrated trellis quantisation with scale hyper-priors. Hooks only; see compressor.py."""

from corecompress import Component, hookimpl


@hookimpl
def compressor_components() -> list[Component]:
    summary = (
        "lossy, calibrated on text or data-free: trellis-quantised weights, entropy coded under a scale hyper-prior"
    )
    return [Component("vae", "corecompress_vae.compressor:Vae", summary, api=1)]
