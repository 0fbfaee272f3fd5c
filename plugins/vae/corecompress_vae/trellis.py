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
FAR = np.int64(1) << 28
"""Largest level that is coded; the caller makes steps coarse enough."""


@dataclass(frozen=True)
class Trellis:
    """A trellis of `states` states, numbered so that the lowest bit of a state is its quantiser z.

    after: uint8 [states · 2], the state behind (state, parity of k); before: int64 [2, states], the state in front of
    a state when the parity was u; entered: int64 [states], the quantiser of the states in front (the same for both).
    """

    states: int
    after: NDArray[np.uint8]
    before: NDArray[np.int64]
    entered: NDArray[np.int64]


@lru_cache
def trellis(states: int) -> Trellis:
    """The trellis with 4, 8, 16, 32 or 64 states; with 1 there are only even levels, which is a scalar quantiser."""
    if states == SCALAR:
        none = np.zeros((2, 1), np.int64)
        return Trellis(1, np.zeros(2, np.uint8), none, none[0])
    h0, h1 = POLYNOMIALS[states]
    memory = states.bit_length() - 1
    after = np.zeros((states, 2), np.int64)
    for register in range(states):
        z = register >> (memory - 1)
        for u in (0, 1):
            moved = (register << 1) & (states - 1)
            after[register, u] = moved ^ (h0 & (states - 1) if z else 0) ^ (h1 if u else 0)
    # the top cell of the register is the quantiser; turned round it becomes the lowest bit
    turned = [((r << 1) | (r >> (memory - 1))) & (states - 1) for r in range(states)]
    renamed = np.zeros((states, 2), np.int64)
    before, entered = np.zeros((2, states), np.int64), np.zeros(states, np.int64)
    for register in range(states):
        for u in (0, 1):
            source, target = turned[register], turned[after[register, u]]
            renamed[source, u] = target
            before[u, target] = source
            entered[target] = source & 1
    return Trellis(states, renamed.reshape(-1).astype(np.uint8), before, entered)


@njit(cache=True, nogil=True)
def viterbi(x, classes, rate, far, slope, after, before, entered, dec, cand, cost, fresh, level):  # type: ignore[no-untyped-def]
    """Levels int32 [n] of one column x float32 [n], in units of its step; the trellis begins in state 0.

    classes: int32 [n], the row of rate float32 [classes, 2, 256] (bits of the slot k + 128) that prices x_t; far:
    bits of an escape besides its slot; slope: squared error that a bit is worth, in units of the step squared.
    dec uint64 [n], cand int32 [n, 4], cost and fresh float32 [states]: working memory.
    """
    n, states = x.size, cost.size
    cost[:] = np.float32(1e30)
    cost[0] = 0
    d00 = d01 = d10 = d11 = np.float32(0)
    for t in range(n):
        xt, row = x[t], classes[t]
        for z in range(2):
            for u in range(2):
                # the subset of levels 4m + 2u + z: its two neighbours of x, the better one with its bits
                base = np.int64(np.floor((xt - np.float32(2 * u + z)) * np.float32(0.25)))
                k = 2 * base + u
                e = xt - np.float32(2 * k + z)
                f = e - np.float32(4)
                low = e * e + slope * (rate[row, z, k + SHIFT] if -SHIFT < k < SHIFT else far)
                high = f * f + slope * (rate[row, z, k + 2 + SHIFT] if -SHIFT < k + 2 < SHIFT else far)
                if high < low:
                    low = high
                    k += 2
                cand[t, 2 * z + u] = 2 * k + z
                if z == 0:
                    if u == 0:
                        d00 = low
                    else:
                        d01 = low
                elif u == 0:
                    d10 = low
                else:
                    d11 = low
        bits = np.uint64(0)
        for s in range(states):
            if entered[s] == 0:
                a, b = cost[before[0, s]] + d00, cost[before[1, s]] + d01
            else:
                a, b = cost[before[0, s]] + d10, cost[before[1, s]] + d11
            if b < a:
                a = b
                bits |= np.uint64(1) << np.uint64(s)
            fresh[s] = a
        dec[t] = bits
        cost, fresh = fresh, cost
        if t & 15 == 15:
            least = cost.min()
            for s in range(states):
                cost[s] -= least
    s = np.argmin(cost)
    for t in range(n - 1, -1, -1):
        u = np.int64((dec[t] >> np.uint64(s)) & np.uint64(1))
        z = entered[s]
        level[t] = cand[t, 2 * z + u]
        s = before[u, s]
