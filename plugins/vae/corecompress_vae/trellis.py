"""Entropy-coded trellis quantisation: which of two quantisers is next follows from the parity of what came before.

A sequence x_t / Δ becomes whole numbers k_t; the level is 2 k_t + z_t, where z_t ∈ {0, 1} is the quantiser (Q0: even
levels, Q1: odd levels) that the trellis state names, and the parity of k_t moves the state. So the levels in use are
twice as dense as those that a symbol must tell apart, and the encoder chooses the path with the Viterbi algorithm,
weighing squared error against code length.

Sources: T. R. Fischer, M. Wang, "Entropy-constrained trellis-coded quantization", IEEE Trans. IT 38 (1992);
G. Ungerboeck, "Channel coding with multilevel/phase signals", IEEE Trans. IT 28 (1982), table I, for the trellises;
H. Schwarz et al., "Hybrid video coding with trellis-coded quantization", DCC 2019, for parity-driven states.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

POLYNOMIALS = {4: (0o5, 0o2), 8: (0o13, 0o4), 16: (0o23, 0o4), 32: (0o45, 0o10), 64: (0o103, 0o24)}
"""Parity-check polynomials (h0, h1) of Ungerboeck's systematic feedback codes, by number of states."""

SCALAR = 1
"""States of a quantiser without memory."""
REACH = 127
"""Symbols −127 … 127 have a slot in a table; what lies beyond is escaped, never clipped."""
ESCAPE = 0
"""The slot of an escape; symbol k has slot k + SHIFT."""
SHIFT = 128
LANES = 16
"""Numbers of one vector; a group of rows has a multiple of it."""
FAR_BITS = np.float32(28)
"""Bits of an escape besides its slot."""


@dataclass(frozen=True)
class Trellis:
    """A trellis of `states` states; z of a state is the quantiser that comes next.

    after: uint8 [states · 2], the state behind (state, parity of k), numbered so that z is a state's lowest bit;
    wiring: (half, swap0, swap1), numbered as registers, so that z is the highest bit: into state 2 q + z lead the
    states (q ^ z · swap0 ^ u · swap1) + z · half, for the parities u.
    """

    states: int
    after: NDArray[np.uint8]
    wiring: tuple[int, int, int]


@lru_cache
def trellis(states: int) -> Trellis:
    """The trellis with 4, 8, 16, 32 or 64 states; with 1 there are only even levels, which is a scalar quantiser."""
    if states == SCALAR:
        return Trellis(1, np.zeros(2, np.uint8), (0, 0, 0))
    h0, h1 = (polynomial & (states - 1) for polynomial in POLYNOMIALS[states])
    half = states // 2
    turned = [(2 * register | register // half) & (states - 1) for register in range(states)]
    after = np.zeros((states, 2), np.uint8)
    for register in range(states):
        for u in (0, 1):
            target = ((2 * register) & (states - 1)) ^ (register // half * h0) ^ (u * h1)
            after[turned[register], u] = turned[target]
    return Trellis(states, after.reshape(-1), (half, h0 >> 1, h1 >> 1))


@njit(inline="always")
def _bits(k, prices):  # type: ignore[no-untyped-def]
    """What symbol k costs; an escape's where the table has none."""
    slot = np.uint32(min(max(k + np.int32(SHIFT), np.int32(0)), np.int32(2 * SHIFT - 1)))
    inside = prices[slot]
    return inside if -SHIFT < k < SHIFT else FAR_BITS


@njit(inline="always")
def _subset(x, z, u, prices, slope):  # type: ignore[no-untyped-def]
    """(cost, k) of the better neighbour of x among the levels 2 k + z with k of parity u; cost: squared error and bits.

    In 32 bits and without branches, for loops over survivors.
    """
    two = np.int32(2)
    k = two * np.int32(np.floor((x - np.float32(2 * u + z)) * np.float32(0.25))) + np.int32(u)
    near, far = x - np.float32(two * k + np.int32(z)), x - np.float32(two * (k + two) + np.int32(z))
    low, high = near * near + slope * _bits(k, prices), far * far + slope * _bits(k + two, prices)
    return (high, k + two) if high < low else (low, k)


@njit(inline="always")
def viterbi(x, classes, rate, slope, half, swap0, swap1, dec, cand, cost, fresh, level):  # type: ignore[no-untyped-def]
    """Levels int32 [n] of one column x float32 [n], in units of its step; the trellis begins in state 0; half > 0.

    classes: int32 [n], the row of rate float32 [classes, 2, 256] (bits of the slot k + 128) that prices x_t; slope:
    squared error that a bit is worth, in units of the step squared. half, swap0, swap1: the trellis (Trellis.wiring);
    as constants of a kernel they let the compiler unroll the loops over states.
    dec uint8 [n, 2 · half], cand int32 [n, 4], cost and fresh float32 [2 · half]: working memory.
    """
    n = x.size
    cost[:] = np.float32(1e30)
    cost[0] = 0
    for t in range(n):
        row = classes[t]
        d00, cand[t, 0] = _subset(x[t], 0, 0, rate[row, 0], slope)
        d01, cand[t, 1] = _subset(x[t], 0, 1, rate[row, 0], slope)
        d10, cand[t, 2] = _subset(x[t], 1, 0, rate[row, 1], slope)
        d11, cand[t, 3] = _subset(x[t], 1, 1, rate[row, 1], slope)
        for q in range(half):
            a, b = cost[q] + d00, cost[q ^ swap1] + d01
            dec[t, q] = b < a
            fresh[q] = min(a, b)
        for q in range(half):
            a, b = cost[half + (q ^ swap0)] + d10, cost[half + (q ^ swap0 ^ swap1)] + d11
            dec[t, half + q] = b < a
            fresh[half + q] = min(a, b)
        least = fresh.min() if t & 15 == 15 else np.float32(0)
        for q in range(half):
            cost[2 * q], cost[2 * q + 1] = fresh[q] - least, fresh[half + q] - least
    s = np.argmin(cost)
    for t in range(n - 1, -1, -1):
        z, q = s & 1, s >> 1
        u = np.int64(dec[t, z * half + q])
        level[t] = 2 * cand[t, 2 * z + u] + z
        s = (q ^ (z * swap0) ^ (u * swap1)) | (z * half)


@njit(inline="always")
def viterbi_fed(  # type: ignore[no-untyped-def]
    x, classes, rate, slope, half, swap0, swap1, mix, dec, cand, cost, fresh, due, level
):
    """As `viterbi`, with the error of each x_t fed into those behind it in its group of G: x_(t+d) −= error ·
    mix[t, r + d], r the place of t in its group. mix: float32 [n, G], 0 up to r.

    What is fed depends on the path, so every survivor has its own (per-survivor processing; R. Raheli et al., IEEE
    Trans. Communications 43, 1995). cand int32 [n, 2 · half], due float32 [2, 2 · half, G]: working memory.
    """
    n, group = mix.shape
    price, found = np.empty((2, 2 * half), np.float32), np.empty((2, 2 * half), np.int32)
    cost[:] = np.float32(1e30)
    cost[0] = 0
    for t in range(n):
        row, r = classes[t], t % group
        now, then = due[t & 1], due[1 - (t & 1)]
        if r == 0:
            now[:] = 0
        for z in range(2):
            for u in range(2):
                for p in range(z * half, z * half + half):
                    price[u, p], found[u, p] = _subset(x[t] - now[p, r], z, u, rate[row, z], slope)
        for z in range(2):
            for q in range(half):
                p0 = (q ^ (z * swap0)) + z * half
                p1 = p0 ^ swap1
                a, b = cost[p0] + price[0, p0], cost[p1] + price[1, p1]
                u = np.int64(b < a)
                p, to = p0 ^ (u * swap1), 2 * q + z
                dec[t, to], cand[t, to], fresh[to] = u, 2 * found[u, p] + z, min(a, b)
                e = x[t] - now[p, r] - np.float32(cand[t, to])
                for lane in range(r // LANES, group // LANES):
                    for d in range(LANES):  # a constant, so that it becomes one vector
                        at = lane * LANES + d
                        then[to, at] = now[p, at] + e * mix[t, at]
        least = fresh.min() if t & 15 == 15 else np.float32(0)
        cost[:] = fresh - least
    s = np.argmin(cost)
    for t in range(n - 1, -1, -1):
        z, q = s & 1, s >> 1
        level[t] = cand[t, s]
        s = (q ^ (z * swap0) ^ (np.int64(dec[t, s]) * swap1)) | (z * half)


@njit(inline="always")
def nearest(x, classes, rate, slope, mix, level):  # type: ignore[no-untyped-def]
    """The same for a quantiser without memory, every level being 2 k; mix: as `viterbi_fed`'s, or [0, 0]. Changes x."""
    group = mix.shape[1]
    for t in range(x.size):
        k, prices = np.int32(np.floor(x[t] * np.float32(0.5))), rate[classes[t], 0]
        near, far = x[t] - np.float32(2 * k), x[t] - np.float32(2 * k + 2)
        low, high = near * near + slope * _bits(k, prices), far * far + slope * _bits(k + np.int32(1), prices)
        level[t] = 2 * k + 2 if high < low else 2 * k
        for d in range(1, min(group - t % group, x.size - t) if group else 0):
            x[t + d] -= (x[t] - np.float32(level[t])) * mix[t, t % group + d]
