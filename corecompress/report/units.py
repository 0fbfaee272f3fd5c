"""Bytes and seconds as a person reads them."""

from __future__ import annotations


def human_bytes(n: float) -> str:
    """1234567 -> "1.23 MB" (powers of ten, as disks and hubs count)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n) < 999.5 or unit == "GB":
            return f"{n:.0f} B" if unit == "B" else f"{n:.3g} {unit}" if n < 1000 else f"{n:.0f} {unit}"
        n /= 1000
    raise AssertionError


def human_seconds(seconds: float) -> str:
    """Seconds as "0.4 s", "12 s", "3 min 20 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def human_figure(value: float, digits: int = 4) -> str:
    """A measured figure in so many significant digits: "25.93", "0.01234", "0", "2.1e-05", "1 − 3.8e-07"."""
    if value == 0:
        return "0"
    if value != 1 and f"{value:.{digits}g}" == "1" and digits > 2:  # a cosine that is nearly, but not exactly, 1
        return f"1 {'−' if value < 1 else '+'} {abs(1 - value):.2g}"
    return f"{value:.{digits}g}" if 1e-4 <= abs(value) < 1e6 else f"{value:.{digits - 1}e}"
