"""What a long scoring run says of itself: how far it is, how fast, and what failed."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmalign.rewards.scoring import COLUMNS, ScoredRow

if TYPE_CHECKING:
    from rich.console import Console

FAILURES_SHOWN = 5
SECONDS_BETWEEN_LINES = 30.0
"""Of progress, where standard error is no terminal."""


@dataclass(slots=True)
class Tally:
    """What is remembered of rows that are written already."""

    rows: int = 0
    failed: int = 0
    shown: list[str] = field(default_factory=list)
    aspects: dict[str, None] = field(default_factory=dict)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Count rows, and keep the names of aspects and the first failures."""
        for row in rows:
            self.rows += 1
            self.aspects.update(dict.fromkeys(name for name in row if name not in COLUMNS))
            if row["score"] is None:
                self.failed += 1
                if self.failed <= FAILURES_SHOWN:
                    self.shown.append(f"no score for {row['id']} by {row['reward']}: {row['status']}")

    def report(self, console: "Console", *, files: int, rate: float) -> None:
        """The first failures, and how many there are."""
        for line in self.shown:
            console.print(line, style="yellow", markup=False)
        if self.failed > FAILURES_SHOWN:
            console.print(f"and {self.failed - FAILURES_SHOWN} more; the column status says why")
        scored = self.rows - self.failed
        speed = f", {rate:.1f} files/s" if rate else ""
        console.print(f"{files} samples, {self.rows} rows: {scored} scored, {self.failed} failed{speed}")


@dataclass(slots=True)
class Progress:
    """How far a run is: a bar on a terminal, now and then a line elsewhere."""

    console: "Console"
    files: int
    done: int
    rows_per_file: int
    rate: float = 0.0
    """Files per second, of this run."""

    def watch(self, batches: Iterable[list[ScoredRow]]) -> Iterator[list[ScoredRow]]:
        """The same batches, counted as they pass."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("scoring"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        terminal, before = self.console.is_terminal, self.done
        started = said = time.monotonic()
        with Bar(*columns, console=self.console, transient=True, disable=not terminal) as bar:
            task = bar.add_task("", total=self.files, completed=self.done, rate="")
            for batch in batches:
                yield batch
                self.done += len(batch) // self.rows_per_file
                now = time.monotonic()
                self.rate = (self.done - before) / max(now - started, 1e-9)
                bar.update(task, completed=self.done, rate=f"{self.rate:.1f} files/s")
                if not terminal and now - said > SECONDS_BETWEEN_LINES:
                    self.console.print(f"{self.done} of {self.files} files, {self.rate:.1f} files/s")
                    said = now
