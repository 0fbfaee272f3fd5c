"""Checks of priors. Each is fitted on 40,000 symbols as a quantiser gives them."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from corecompress.components import CLASS_OF_ONE, CLASSES, class_deviation
from corecompress.errors import CorruptData
from corecompress.testing import fresh
from corecompress.testing.kit import CheckFailed, Subject, check, need, rebuild
from corecompress.testing.samples import flipped, symbols

TOLERANCE, SLACK = 0.005, 64
"""By how much a code may differ from its claim: a share of it, and bytes."""


def fitted(subject: Subject) -> Any:
    """The prior of all checks."""
    return subject.once("fitted", lambda: fit(subject.build()))


def fit(prior: Any) -> Any:
    """Fit it to the symbols."""
    prior.fit(symbols())
    return prior


def rates(prior: Any, latents: Any, context: Any = None) -> Any:
    """Bits of each latent, float64; through tensors where torch is installed."""
    import numpy as np

    found = prior.rate(_tensor(latents), None if context is None else _tensor(context))
    return np.asarray(found.detach() if hasattr(found, "detach") else found, np.float64)


def _tensor(values: Any) -> Any:
    import numpy as np

    try:
        import torch
    except ImportError:
        return np.asarray(values)
    return torch.from_numpy(np.ascontiguousarray(values))


@check("rate", "the rate is finite bits of every latent, those with noise and far away ones too", "prior")
def rate(subject: Subject) -> str:
    import numpy as np

    prior = fitted(subject)
    noisy = symbols()[:4096].astype(np.float32) + np.random.default_rng(1).uniform(-0.5, 0.5, 4096).astype(np.float32)
    for latents in (noisy, noisy.reshape(16, 256), np.array([-1e6, -1000, 0.5, 3000, 1e6], np.float32)):
        found = rates(prior, latents)
        need(found.shape == latents.shape, f"latents {list(latents.shape)} have rates {list(found.shape)}")
        wrong = latents[~np.isfinite(found)]
        need(not wrong.size, f"the rate of {wrong[:1]} is not finite")
        need((found >= -1e-3).all(), f"a rate is {found.min():.3g} bits, below zero")
    whole = np.arange(-4096, 4097)
    total = float(np.exp2(-rates(prior, whole.astype(np.float32), np.full(whole.size, CLASS_OF_ONE))).sum())
    need(0.98 < total < 1.02, f"the probabilities of all whole numbers in one class sum to {total:.4f}")
    return f"{rates(prior, noisy).mean():.3f} bits each; probabilities sum to {total:.4f}"


@check("gradient", "the rate is differentiable", "prior")
def gradient(subject: Subject) -> str | None:
    try:
        import torch
    except ImportError:
        return "torch is not installed, so there is nothing to differentiate"
    latents = torch.linspace(-9.3, 9.4, 200, requires_grad=True)
    found = fitted(subject).rate(latents)
    need(isinstance(found, torch.Tensor), f"the rate of a tensor is {type(found).__name__}, not a tensor")
    need(found.requires_grad, "the rate has no gradient")
    found.sum().backward()
    slope = latents.grad
    need(slope is not None and bool(slope.isfinite().all()), "a gradient is missing or not finite")
    assert slope is not None
    need(float(slope[-20:].mean()) > 0 > float(slope[:20].mean()), "the rate does not rise away from the middle")
    return None


@check("code-length", "the real code is within 0.5 % + 64 bytes of what rate and bits claim", "prior")
def code_length(subject: Subject) -> str:
    prior, drawn = fitted(subject), symbols()
    coder = prior.freeze()
    real = len(coder.compress(drawn))
    claims = {"rate": float(rates(prior, drawn.astype("float32")).sum()) / 8, "bits": coder.bits(drawn) / 8}
    for name, claim in claims.items():
        wrong = abs(real - claim)
        need(wrong <= TOLERANCE * claim + SLACK, f"{name} claims {claim:,.0f} bytes, the code has {real:,}")
    return f"{real:,} bytes; rate claims {claims['rate']:,.0f}, bits {claims['bits']:,.0f}"


@check("round-trip", "symbols come back exactly, rare, far and constant ones too, and none at all", "prior")
def round_trip(subject: Subject) -> None:
    import numpy as np

    coder, drawn = fitted(subject).freeze(), symbols()
    far = np.array([-(1 << 31), (1 << 31) - 1, 0, 12345, -77777], np.int32)
    cases = {"the fitted symbols": drawn, "the ends of int32": far, "one": drawn[:1], "none": drawn[:0]}
    cases |= {"zeros": np.zeros(5000, np.int32), "int64": drawn[:999].astype(np.int64)}
    for name, given in cases.items():
        back = np.asarray(coder.decompress(coder.compress(given), given.size))
        need(np.array_equal(back, given), f"{name} do not come back")
        need(back.dtype == np.int32, f"{name} come back as {back.dtype}, not int32")


@check("other-process", "another process writes the same bytes, and reads these", "prior")
def other_process(subject: Subject) -> None:
    data = fitted(subject).freeze().compress(symbols())
    text = base64.b64encode(bytes(data)).decode()
    there = fresh.call("corecompress.testing.prior:code_there", **subject.identity(), data=text)
    need(there["written"] == hashlib.sha256(data).hexdigest(), "another process codes the same symbols otherwise")
    need(there["read"], "another process reads other symbols")


def code_there(kind: str, spec: str, data: str) -> dict[str, Any]:
    """In another process: fit, code, and decode what was coded here."""
    import numpy as np

    coder, drawn = fit(rebuild(kind, spec)).freeze(), symbols()
    back = np.asarray(coder.decompress(base64.b64decode(data), drawn.size))
    return {"written": hashlib.sha256(coder.compress(drawn)).hexdigest(), "read": bool(np.array_equal(back, drawn))}


@check("damage", "damaged bytes are CorruptData or other symbols, never another error", "prior")
def damage(subject: Subject) -> str:
    import numpy as np

    coder, drawn = fitted(subject).freeze(), symbols()[:3000]
    whole = bytes(coder.compress(drawn))
    rng, noticed = np.random.default_rng(0), 0
    cut = [whole[:length] for length in (0, 1, 7, len(whole) // 2, len(whole) - 1)]
    bad = [flipped(whole, rng) for _ in range(60)]
    for data in [*cut, *bad, whole + b"\0"]:
        try:
            back = np.asarray(coder.decompress(data, drawn.size))
        except CorruptData:
            noticed += 1
        except Exception as problem:
            raise CheckFailed(f"damage raised {type(problem).__name__} ({problem}), not CorruptData") from None
        else:
            need(data not in cut, f"{len(data)} of {len(whole)} bytes were read without a word")
            need(back.shape == drawn.shape, f"damaged bytes gave {list(back.shape)} symbols, not {list(drawn.shape)}")
    return f"{noticed} of {len(cut) + len(bad) + 1} damaged codes noticed"


@check("context", "with scale classes as context, rates and codes follow the width of the class", "prior")
def context(subject: Subject) -> str:
    import numpy as np

    rng = np.random.default_rng(2)
    classes = rng.integers(4, 28, 20_000)
    drawn = np.rint(rng.laplace(0, 1, classes.size) * class_deviation(classes) / 2**0.5).astype(np.int32)
    prior = subject.build()
    prior.fit(drawn, classes)
    narrow, wide = np.full(3, 8), np.full(3, 28)
    far, near = np.full(3, 15, np.float32), np.zeros(3, np.float32)
    need(
        rates(prior, far, wide)[0] < rates(prior, far, narrow)[0],
        "15 costs no less in a wide class than in a narrow one",
    )
    need(
        rates(prior, near, wide)[0] > rates(prior, near, narrow)[0],
        "0 costs no more in a wide class than in a narrow one",
    )
    need(np.isfinite(rates(prior, near, np.full(3, -4))).all(), "the rate of a class below 0 is not finite")
    coder = prior.freeze()
    data = coder.compress(drawn, classes)
    need(np.array_equal(np.asarray(coder.decompress(data, drawn.size, classes)), drawn), "symbols do not come back")
    need(len(coder.compress(drawn[:9], np.arange(9) % 2 * (CLASSES - 1))) > 0, "the ends of the classes are not coded")
    claim = coder.bits(drawn, classes) / 8
    need(
        abs(len(data) - claim) <= TOLERANCE * claim + SLACK,
        f"bits claims {claim:,.0f} bytes, the code has {len(data):,}",
    )
    plain = len(fit_plain(subject, drawn).freeze().compress(drawn))
    need(len(data) < plain, f"the code with context has {len(data):,} bytes, that without {plain:,}")
    return f"{len(data):,} bytes, {plain:,} without context"


def fit_plain(subject: Subject, drawn: Any) -> Any:
    """The prior fitted to symbols alone."""
    prior = subject.build()
    prior.fit(drawn)
    return prior


@check("weights", "fitting to counted symbols is fitting to the symbols themselves", "prior")
def weights(subject: Subject) -> None:
    import numpy as np

    drawn = symbols()[:20_000]
    classes = np.arange(drawn.size) % 3 * 4 + 8
    pairs, counts = np.unique(np.stack([drawn, classes]), axis=1, return_counts=True)
    one, other = subject.build(), subject.build()
    one.fit(drawn, classes)
    other.fit(pairs[0], pairs[1], counts.astype(np.float64))
    probe, context = np.arange(-12, 13).astype(np.float32), np.full(25, 12)
    apart = float(np.abs(rates(one, probe, context) - rates(other, probe, context)).max())
    need(apart < 0.05, f"rates differ by up to {apart:.3g} bits")


@check("sample", "what is drawn is the same for the same seed, and looks like what was fitted", "prior")
def sample(subject: Subject) -> str:
    import numpy as np

    prior = fitted(subject)
    try:
        drawn = np.asarray(prior.sample(20_000, seed=5), np.float64)
    except NotImplementedError:
        return "it can't generate, and says so"
    need(drawn.shape == (20_000,), f"20,000 draws have the shape {list(drawn.shape)}")
    need(np.array_equal(drawn, np.asarray(prior.sample(20_000, seed=5))), "the same seed draws something else")
    need(not np.array_equal(drawn, np.asarray(prior.sample(20_000, seed=6))), "another seed draws the same")
    middle, wanted = float(np.abs(drawn).mean()), float(np.abs(symbols()).mean())
    need(wanted / 2 < middle < wanted * 2, f"the mean magnitude is {middle:.2f}, of what was fitted {wanted:.2f}")
    return f"mean magnitude {middle:.2f}, of what was fitted {wanted:.2f}"
