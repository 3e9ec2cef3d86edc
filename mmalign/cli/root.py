"""The option ``--root`` of commands that read tables: where their media may lie."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from mmalign.errors import ConfigError
from mmalign.roots import lies_in, rooted


class Rooted(Protocol):
    """A command that has a root."""

    @property
    def root(self) -> Path | None:
        """The folder, or None for that of each table."""
        ...


C = TypeVar("C", bound=Rooted)


def in_root(action: Callable[[C], int], command: C) -> int:
    """Do what a command says with its root in force.

    Raises:
        ConfigError: there is no such folder.
    """
    if command.root is not None and not command.root.is_dir():
        raise ConfigError(f"--root {command.root} is no folder")
    with rooted(command.root):
        return action(command)


def root_that_is_needed(table: Path, media: Iterable[Path]) -> str | None:
    """What to say of a table that was written where its media are not; None where they lie below its folder."""
    far = [path for path in media if not lies_in(path, table.parent)]
    if not far:
        return None
    shared = os.path.commonpath([table.parent.resolve(), *(path.resolve() for path in far)])
    return f"media of it lie outside '{table.parent}'; whatever reads it wants --root {shared}"
