"""A logistic prior as a corecompress plugin. Hooks only; the work is in prior.py."""

from corecompress import Component, hookimpl


@hookimpl
def prior_components() -> list[Component]:
    summary = "logistic distribution: a bell with heavier tails than a Gaussian's"
    return [Component("$distribution", "$package.prior:Logistic", summary, api=1)]
