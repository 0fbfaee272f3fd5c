"""Threads of this process, as many tensors in flight as the memory allows, results in the order of the tasks."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_order(
    work: Callable[[Task], Result], tasks: Iterable[Task], cost: Callable[[Task], int], jobs: int, budget: int
) -> Iterator[tuple[Task, Result]]:
    """(task, work(task)) in the order of `tasks`, `jobs` at a time.

    cost: bytes that a task holds until its result has been taken; the tasks under way hold `budget` bytes together at
    most, unless one of them alone needs more (the caller refuses that beforehand). An exception of a task is raised
    in its turn; what was begun behind it is dropped.
    """
    waiting: deque[tuple[Task, Future[Result], int]] = deque()
    held = 0
    with ThreadPoolExecutor(jobs, thread_name_prefix="corecompress") as pool:
        try:
            for task in tasks:
                need = cost(task)
                while waiting and (held + need > budget or len(waiting) >= 4 * jobs):
                    earlier, future, freed = waiting.popleft()
                    yield earlier, future.result()
                    held -= freed
                held += need
                waiting.append((task, pool.submit(work, task), need))
            while waiting:
                earlier, future, _ = waiting.popleft()
                yield earlier, future.result()
        finally:
            for _, future, _ in waiting:
                future.cancel()
