"""From rows to figures: means, percentiles, ranks, with standard errors by bootstrap over documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from corecompress.measure.task import LABELS

RESAMPLES = 500
Values = dict[str, NDArray[Any]]
Figures = tuple[Any, ...]


@dataclass(frozen=True)
class Metric:
    """A figure of the compressed model, and of the original where it has one by itself (perplexity).

    unit: "" for a share or a ratio; stderr: standard error by bootstrap over documents, None for fewer than two.
    """

    label: str
    unit: str
    better: Literal["lower", "higher"]
    value: float
    stderr: float | None
    original: float | None = None
    original_stderr: float | None = None


def measure(original: Values, compressed: Values, names: tuple[str, ...], seed: int) -> dict[str, Metric]:
    """The metrics of these names from what the two workers wrote."""
    return {name: Metric(*LABELS[name], *_MEASURES[name](original, compressed, seed)) for name in names}


def _nll(original: Values, compressed: Values, seed: int, then: Callable[[Any], Any] = lambda mean: mean) -> Figures:
    documents = compressed["documents"]
    before, before_error = _mean(original["nll"], documents, seed, then)
    after, after_error = _mean(compressed["nll"], documents, seed, then)
    return after, after_error, before, before_error


def _perplexity(original: Values, compressed: Values, seed: int) -> Figures:
    return _nll(original, compressed, seed, np.exp)


def _kl(original: Values, compressed: Values, seed: int) -> Figures:
    return _mean(compressed["kl"], compressed["documents"], seed)


def _kl_p99(original: Values, compressed: Values, seed: int) -> Figures:
    return _percentile(compressed["kl"], compressed["documents"], 99, seed)


def _top1(original: Values, compressed: Values, seed: int) -> Figures:
    return _mean(compressed["same"], compressed["documents"], seed)


def _cosines(compressed: Values) -> NDArray[np.float64]:
    mine, theirs = compressed["mine"], compressed["theirs"]
    if np.array_equal(mine, theirs):
        return np.ones(len(mine))
    found: NDArray[np.float64] = (_unit(mine) * _unit(theirs)).sum(1)
    return found


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return found


def _cosine(original: Values, compressed: Values, seed: int) -> Figures:
    return _mean(_cosines(compressed), compressed["documents"], seed)


def _cosine_p1(original: Values, compressed: Values, seed: int) -> Figures:
    return _percentile(_cosines(compressed), compressed["documents"], 1, seed)


def _neighbours(compressed: Values) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(whether the nearest other sentence is the same one, Spearman's correlation of the similarities), a sentence."""
    mine, theirs = _unit(compressed["mine"]), _unit(compressed["theirs"])
    hits, ranks = [], []
    for at in range(0, len(mine), 256):
        pair = []
        for side in (mine, theirs):
            similar = side[at : at + 256] @ side.T
            similar[np.arange(len(similar)), np.arange(at, at + len(similar))] = -np.inf
            pair.append(similar)
        hits.append(pair[0].argmax(1) == pair[1].argmax(1))
        if len(mine) > 2:
            ranked = [np.argsort(np.argsort(s, axis=1), axis=1)[:, :].astype(np.float64) for s in pair]
            n = len(mine)
            ranks.append(1 - 6 * ((ranked[0] - ranked[1]) ** 2).sum(1) / ((n - 1) * ((n - 1) ** 2 - 1)))
    return np.concatenate(hits), np.concatenate(ranks) if ranks else np.ones(len(mine))


def _recall1(original: Values, compressed: Values, seed: int) -> Figures:
    return _mean(_neighbours(compressed)[0], compressed["documents"], seed)


def _rank_correlation(original: Values, compressed: Values, seed: int) -> Figures:
    return _mean(_neighbours(compressed)[1], compressed["documents"], seed)


def _relative_error(original: Values, compressed: Values, seed: int) -> Figures:
    error, norm = compressed["error"], compressed["norm"]
    groups = _by_document(compressed["documents"])
    sums = np.stack([_sums(error, groups), _sums(norm, groups)])
    return _bootstrap(sums, lambda s: np.sqrt(s[0] / np.maximum(s[1], 1e-300)), seed)


_MEASURES: dict[str, Callable[[Values, Values, int], Figures]] = {
    "perplexity": _perplexity,
    "kl": _kl,
    "kl_p99": _kl_p99,
    "top1": _top1,
    "cosine": _cosine,
    "cosine_p1": _cosine_p1,
    "recall1": _recall1,
    "rank_correlation": _rank_correlation,
    "relative_error": _relative_error,
    "nll": _nll,
}


def _by_document(documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 … number of documents − 1 for every row."""
    found: NDArray[np.int64] = np.unique(documents, return_inverse=True)[1].reshape(-1)
    return found


def _sums(values: NDArray[Any], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    found: NDArray[Any] = np.bincount(groups, values.astype(np.float64))
    return found


def _mean(
    values: NDArray[Any], documents: NDArray[np.int64], seed: int, then: Callable[[Any], Any] = lambda mean: mean
) -> tuple[float, float | None]:
    groups = _by_document(documents)
    sums = np.stack([_sums(values, groups), np.bincount(groups).astype(np.float64)])
    return _bootstrap(sums, lambda s: then(s[0] / s[1]), seed)


def _bootstrap(sums: NDArray[np.float64], figure: Callable[[Any], Any], seed: int) -> tuple[float, float | None]:
    """(figure of all documents, its standard error). sums: [quantities, documents] (Efron & Tibshirani 1993, ch. 6)."""
    count = sums.shape[1]
    value = float(figure(sums.sum(1)))
    if count < 2:
        return value, None
    random = np.random.default_rng(seed)
    drawn = [figure(sums @ np.bincount(random.integers(0, count, count), minlength=count)) for _ in range(RESAMPLES)]
    return value, float(np.std(drawn, ddof=1))


def _percentile(
    values: NDArray[np.float64], documents: NDArray[np.int64], percent: float, seed: int
) -> tuple[float, float | None]:
    groups = _by_document(documents)
    order = np.argsort(values)
    ranked, owner, count = values[order], groups[order], int(groups.max()) + 1

    def figure(weight: NDArray[Any]) -> float:
        reached = np.cumsum(weight[owner])
        return float(ranked[min(np.searchsorted(reached, percent / 100 * reached[-1]), len(ranked) - 1)])

    value = figure(np.ones(count))
    if count < 2:
        return value, None
    random = np.random.default_rng(seed)
    drawn = [figure(np.bincount(random.integers(0, count, count), minlength=count)) for _ in range(RESAMPLES // 5)]
    return value, float(np.std(drawn, ddof=1))
