"""A folder in which commands are disturbed: their inputs, each one's undisturbed result, and a working directory."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.commands import COMMANDS, RUN, Command, inputs
from tests.faults.contents import contents
from tests.faults.events import Event, watch
from tests.faults.warm import IMPORTED, Ended, Started, learn, run, start, warm_up


class Place:
    """Runs commands side by side with what they give when nobody disturbs them.

    Every command runs in ``work``, so that paths which it writes down are always the same ones.

    Args:
        folder: made if missing; what was made in it before is used again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.work, self.logs = self.folder / "work", self.folder / "logs"
        temporary = self.folder / "temporary"
        temporary.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = str(temporary)
        warm_up()
        self._wanted: dict[str, dict[str, Any]] = {}
        self._learnt: set[str] = set()
        self._make_inputs()

    # --- running ------------------------------------------------------------------------------------------------------

    def begin(self, command: Command) -> None:
        """Empty the working directory, and put in what the command reads."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)  # a disk of its own stays
        if command.reads_run:
            shutil.copytree(self.reference("image/flow_dpo") / RUN, self.work / RUN)

    def start(
        self,
        arguments: tuple[str, ...],
        *,
        on: Callable[[Event], None] | None = None,
        logs: str = "held",
    ) -> Started:
        """Begin a command in the working directory.

        Args:
            arguments: of ``mmalign``.
            on: called before every change that it makes there.
            logs: the folder that takes its output.
        """
        first = (lambda: None) if on is None else (lambda: watch(self.work, on))
        return start(arguments, here=self.work, logs=self.folder / f"logs-{logs}", first=first)

    def run(
        self, arguments: tuple[str, ...], *, on: Callable[[Event], None] | None = None, reads: bool = False
    ) -> Ended:
        """Run a command in the working directory."""
        first = (lambda: None) if on is None else (lambda: watch(self.work, on, reads=reads))
        return run(arguments, here=self.work, logs=self.logs, first=first)

    # --- the undisturbed results --------------------------------------------------------------------------------------

    def reference(self, name: str) -> Path:
        """The working directory as a command leaves it when nothing disturbs it."""
        kept = self.folder / "references" / name.replace("/", "-").replace(" ", "-")
        if not kept.is_dir():
            command = COMMANDS[name]
            self.begin(command)
            lines = kept.with_suffix(".events")
            lines.parent.mkdir(exist_ok=True)
            ended = self.run(command.arguments, on=_noting(lines))
            _all_well(name, ended)
            shutil.copy(self.logs / IMPORTED, kept.with_suffix(".imported"))
            shutil.copytree(self.work, kept)
        if name not in self._learnt:
            learn(kept.with_suffix(".imported"))
            self._learnt.add(name)
        return kept

    def events(self, name: str) -> list[str]:
        """What the undisturbed command changed, a line each: "kind path"."""
        kept = self.reference(name)
        return kept.with_suffix(".events").read_text().splitlines()

    def wanted(self, name: str) -> dict[str, Any]:
        """Contents of the reference."""
        if name not in self._wanted:
            self._wanted[name] = contents(self.reference(name))
        return self._wanted[name]

    def _make_inputs(self) -> None:
        kept = self.folder / "inputs"
        if kept.is_dir():
            return
        made = self.folder / "unfinished"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        for arguments in inputs(made):
            _all_well(arguments[0], run(arguments, here=made, logs=self.logs))
            learn(self.logs / IMPORTED)
        made.rename(kept)


def _noting(file: Path) -> Callable[[Event], None]:
    """Writes down every event; the file lies outside what is watched."""
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def note(event: Event) -> None:
        os.write(log, f"{event.kind} {event.path}\n".encode())

    return note


def _all_well(name: str, ended: Ended) -> None:
    assert ended.status == 0, f"{name}, undisturbed: status {ended.status}: {ended.err[-2000:]}"
