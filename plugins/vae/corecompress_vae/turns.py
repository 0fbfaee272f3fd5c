"""Pieces of data in several threads, adding to common sums in the order of the pieces.

Sums of floats depend on their order, and torch's own on how many threads share them. So every piece is run by one
thread alone, and what a layer sees in a piece is added when all pieces before are done with that layer: the same bits
whatever the number of threads, with one set of sums in memory.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch


class Turns:
    """Who may add to which layer's sums. A piece waits for pieces before it only, so the first never waits."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.going: dict[int, Counter[str]] = {}
        self.ahead: set[int] = set()
        self.own = threading.local()

    @contextmanager
    def piece(self, number: int) -> Iterator[None]:
        """Run piece `number` in this thread. Every one before it has to be entered already."""
        self.own.number = number
        try:
            yield
        finally:
            self.own.number = None
            with self.changed:
                del self.going[number]
                self.ahead.discard(number)
                self.changed.notify_all()

    def enter(self, number: int) -> None:
        """The piece comes before all that are entered later."""
        with self.changed:
            self.going[number] = Counter()
            self.ahead.add(number)

    def expect(self, layer: str) -> None:
        """This piece will add to that layer's sums once (more), going back."""
        if (number := self._number()) is not None:
            with self.changed:
                self.going[number][layer] += 1

    def turn_back(self) -> None:
        """This piece expects nothing more: its forward pass is over."""
        if (number := self._number()) is not None:
            with self.changed:
                self.ahead.discard(number)
                self.changed.notify_all()

    @contextmanager
    def of(self, layer: str) -> Iterator[None]:
        """Wait for the turn at that layer."""
        number = self._number()
        if number is None:
            yield
            return
        with self.changed:
            self.changed.wait_for(lambda: not any(self._is_due(other, layer) for other in self.going if other < number))
        try:
            yield
        finally:
            with self.changed:
                self.going[number][layer] -= 1
                self.changed.notify_all()

    def _number(self) -> int | None:
        found: int | None = getattr(self.own, "number", None)
        return found

    def _is_due(self, number: int, layer: str) -> bool:
        return number in self.ahead or self.going[number][layer] > 0


@contextmanager
def one_thread() -> Iterator[None]:
    """No operation of torch is shared by several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_order(work: Callable[..., Any], items: Iterable[tuple[Any, ...]], threads: int) -> Iterator[Any]:
    """work(*item) of every item, results in their order, `threads` at a time, each with one thread of torch's."""
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[Any]] = deque()
        for item in items:
            if len(waiting) >= threads:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, *item))
        while waiting:
            yield waiting.popleft().result()
