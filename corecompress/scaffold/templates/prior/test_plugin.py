"""What is particular to `$distribution`."""

import numpy as np
import pytest

from corecompress.plugins import registry
from corecompress.recipe import build, parse_spec


@pytest.mark.parametrize("deviation", [0.7, 3.0, 20.0])
def test_the_fitted_scale_is_that_of_the_data(deviation):
    prior = build(registry(), "prior", parse_spec("$distribution"))
    drawn = np.random.default_rng(0).logistic(0, deviation * np.sqrt(3) / np.pi, 20_000)
    prior.fit(np.rint(drawn).astype(int))
    assert float(prior.log_scale.exp()) == pytest.approx(deviation, rel=0.05)
