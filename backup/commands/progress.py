"""A job on the terminal: what it is doing, a countdown of quiet, a bar of what has been moved."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from serverfree.backup.watching import Watcher

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def watcher(quiet_period: float | None = None, *, silent: bool = False) -> Iterator[Watcher]:
    """Yield a watcher that draws on standard error, or one that is silent where nobody looks."""
    # Imported here: it takes longer than all the rest, and most runs draw nothing.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    if silent:
        yield Watcher()
    elif not console.is_terminal:
        yield _Plain()
    else:
        with Progress(
            "{task.description}", BarColumn(), DownloadColumn(binary_units=True),
            TransferSpeedColumn(), console=console, transient=True,
        ) as bar:  # fmt: skip
            yield _Bar(bar, bar.add_task("", total=None), quiet_period)


class _Plain(Watcher):
    """A line for each thing that begins, for logs."""

    def phase(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    note = phase


class _Bar(Watcher):
    """One line that changes; what should be seen stays above it."""

    def __init__(self, bar: "Progress", task: "TaskID", quiet_period: float | None) -> None:
        self._bar, self._task, self._period = bar, task, quiet_period

    def phase(self, text: str) -> None:
        self._bar.update(self._task, description=text, completed=0, total=None)

    def waiting(self, quiet: float, waited: float) -> None:
        period = "" if self._period is None else f" of {self._period:g}"
        self._bar.update(
            self._task,
            description=f"waiting for quiet: {quiet:.1f}{period} s, for {waited:.0f} s now",
        )

    def moved(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total or None)

    def note(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)
