"""Where long steps report to: nothing, plain lines, or a bar (the bar lives in cli/)."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Silent:
    """Says nothing but what must be read: warnings go to standard error."""

    def start(self, what: str, total: int, unit: str = "bytes") -> None:
        pass

    def describe(self, what: str) -> None:
        pass

    def advance(self, amount: int) -> None:
        pass

    def say(self, line: str) -> None:
        pass

    def note(self, line: str) -> None:
        print(line, file=sys.stderr)


class Mute(Silent):
    """Says nothing at all: for the processes of a run that don't lead it."""

    def note(self, line: str) -> None:
        pass


class Lines(Silent):
    """A line at each step's beginning, and one every few seconds: for logs, where a bar would be noise."""

    EVERY = 5.0

    def __init__(self, out: TextIO | None = None):
        self._out = out or sys.stderr
        self._what, self._total, self._done, self._said, self._last = "", 0, 0, 0, 0.0

    def start(self, what: str, total: int, unit: str = "bytes") -> None:
        self._what, self._total, self._done, self._said = what, total, 0, 0
        self._last = time.monotonic()
        print(f"{what} …", file=self._out)

    def describe(self, what: str) -> None:
        self._what = what

    def advance(self, amount: int) -> None:
        self._done += amount
        passed = time.monotonic() - self._last
        if passed > self.EVERY and self._total:
            left = passed * (self._total - self._done) / max(self._done - self._said, 1)
            share = 100 * self._done / self._total
            guess = f", {left:.0f} s left" if share >= 1 else ""  # before that it would be days or nothing
            print(f"{self._what}: {share:.0f} %{guess}", file=self._out)
            self._last, self._said = time.monotonic(), self._done

    def say(self, line: str) -> None:
        print(line, file=self._out)

    def note(self, line: str) -> None:
        print(line, file=self._out)
