"""A progress bar for terminals."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


class Amount(DownloadColumn):
    """How much is done: bytes as bytes, all else counted."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        if unit == "bytes":
            return super().render(task)
        return Text("" if not task.total else f"{task.completed:.0f}/{task.total:.0f} {unit}", "progress.download")


class Speed(TransferSpeedColumn):
    """Bytes a second, where it is bytes."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["unit"] == "bytes" else Text("")


class Bar:
    """One bar, renamed at each step; vanishes when all is done."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            Amount(),
            Speed(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("starting", total=None, unit="bytes")

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, what: str, total: int, unit: str = "bytes") -> None:
        self._bar.reset(self._task, description=what, total=total, completed=0, unit=unit)

    def describe(self, what: str) -> None:
        self._bar.update(self._task, description=what)

    def advance(self, amount: int) -> None:
        self._bar.advance(self._task, amount)

    def say(self, line: str) -> None:
        self.note(line)

    def note(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False)
