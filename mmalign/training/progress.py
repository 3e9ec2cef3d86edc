"""Progress for people: what is happening, how far it is and how long is left, on standard error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# In a notebook it writes a log too: rich's own widgets there want ipywidgets, and recurse where a warning is shown.
console = Console(stderr=True, force_jupyter=False)
if not console.is_terminal:
    console = Console(stderr=True, force_jupyter=False, width=120)  # a log has no width of its own
console.quiet = os.environ.get("RANK", "0") != "0"  # of several processes, one talks


class Stage:
    """One bar: ``advance`` moves it, ``note`` shows a number beside it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: int = 1) -> None:
        """Move on by ``count`` units."""
        self._progress.advance(self._task, count)

    def note(self, text: str) -> None:
        """Show a short text beside the bar."""
        self._progress.update(self._task, note=text)


@contextmanager
def stage(name: str, total: int, *, done: int = 0) -> Iterator[Stage]:
    """A bar for one stage; on a terminal it moves, in a log it is one line at the end; of nothing there is no bar."""
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Stage(
            progress, progress.add_task(name, total=total, completed=done, note="", visible=total > 0)
        )
