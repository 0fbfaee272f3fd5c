"""What is particular to `$distribution`."""

import numpy as np

from corecompress.plugins import registry
from corecompress.progress import Silent
from corecompress.recipe import build, parse_spec
from corecompress.testing.samples import Chunks, Normal


def test_components_are_orthogonal_and_the_first_ones_hold_most():
    encoder = build(registry(), "encoder", parse_spec("$distribution"))
    encoder.fit(Chunks(16), Normal(), progress=Silent())
    basis = encoder.state_dict()["basis"]
    assert np.allclose(basis.T @ basis, np.eye(16), atol=1e-5)
    latents = encoder.encode(np.concatenate([batch["x"] for batch in Chunks(16).batches(0, "training")]))
    variances = np.square(latents).mean(0)
    assert (np.diff(variances) <= 1e-4 * variances[0]).all()
