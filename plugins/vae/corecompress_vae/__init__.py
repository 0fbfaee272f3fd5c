"""Weights as latents: calibrated trellis quantisation with scale hyper-priors. Hooks only; see compressor.py."""

from corecompress import Component, hookimpl


@hookimpl
def compressor_components() -> list[Component]:
    summary = (
        "lossy, calibrated on text or data-free: trellis-quantised weights, entropy coded under a scale hyper-prior"
    )
    return [Component("vae", "corecompress_vae.compressor:Vae", summary, api=1)]


@hookimpl
def prior_components() -> list[Component]:
    families = "corecompress_vae.priors.families"
    return [
        Component("gaussian", f"{families}:Gaussian", "normal distribution", api=1),
        Component("laplace", f"{families}:Laplace", "two-sided exponential: heavier tails, sharper peak", api=1),
        Component("logistic-mixture", f"{families}:LogisticMixture", "logistics of several learned widths", api=1),
        Component("hadamard", f"{families}:Hadamard", "product of two Gaussians, z = u ⊙ v", api=1),
        Component(
            "factorized", "corecompress_vae.priors.factorized:Factorized", "a learned cumulative distribution", api=1
        ),
        Component(
            "hierarchical",
            "corecompress_vae.priors.hierarchical:Hierarchical",
            "hyper-latents (scale classes) first, then learned, counted tables for each",
            api=1,
        ),
        Component(
            "gan",
            "corecompress_vae.priors.gan:Gan",
            "new latents from a generator and a critic (WGAN-GP); a Gaussian where rates are asked for",
            api=1,
        ),
    ]


@hookimpl
def encoder_components() -> list[Component]:
    return [
        Component("identity", "corecompress_vae.encoders.identity:Identity", "latents are the data", api=1),
        Component(
            "scale-hyperprior",
            "corecompress_vae.encoders.scale_hyperprior:ScaleHyperprior",
            "rows and columns divided by scales that are hyper-latents (8-bit log codes)",
            api=1,
        ),
        # Its networks are 50 kB: the tiny model of the conformance kit at 3 bits is smaller than they are.
        Component(
            "mlp-vae",
            "corecompress_vae.encoders.mlp:MlpVae",
            "analysis and synthesis networks on chunks of 16",
            api=1,
            example="vae(bits=8, encoder=mlp-vae(steps=100))",  # its networks are 67 kB, and tiny models are not larger
        ),
    ]


@hookimpl
def data_components() -> list[Component]:
    return [Component("weights", "corecompress_vae.weights:Weights", "a checkpoint's tensors as chunks", api=1)]
