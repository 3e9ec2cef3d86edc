"""Stops a run where a test wants it to."""

from pathlib import Path
from typing import Any

import pytest

from mmalign.training import loop, samples


def kill_in(stage: str, monkeypatch: pytest.MonkeyPatch, *, file: str, step: int) -> type[BaseException]:
    """Make a run stop in a stage, as a kill does: before a file of the samples, or before a step of the loop.

    Returns:
        What it is stopped by; ``monkeypatch.undo()`` lets runs go on.
    """

    class Killed(BaseException):
        pass

    real_write, real_step = samples._write, loop.one_step

    def write(medium: Any, path: Path) -> list[Path]:
        if path.parent.name == stage and path.name == file:
            raise Killed
        return real_write(medium, path)

    def one_step(*args: Any, step: int, **kwargs: Any) -> Any:
        if stage == "loop" and step == last:
            raise Killed
        return real_step(*args, step=step, **kwargs)

    last = step
    monkeypatch.setattr(samples, "_write", write)
    monkeypatch.setattr(loop, "one_step", one_step)
    return Killed
