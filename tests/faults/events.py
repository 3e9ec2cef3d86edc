"""What a process does to files below a folder, as it does it: Python's audit events, counted and shown.

Code that writes from C or Rust (safetensors, codecs, Arrow) raises no events of its own; the names that it writes to
are made and moved by Python.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = frozenset(
    (
        *(
            "os.rename",
            "os.remove",
            "os.mkdir",
            "os.rmdir",
            "os.link",
            "os.symlink",
            "os.truncate",
            "os.chmod",
        ),
        *("shutil.copyfile", "shutil.copytree", "shutil.move", "shutil.rmtree"),
    )
)
"""Events that change the file system; beside them, every opening of a file to write it."""


@dataclass(frozen=True)
class Event:
    """One change that is about to be made.

    Args:
        kind: of Python's audit events; "open" is an opening to write, "read" one to read.
        path: that it is made to, absolute.
    """

    kind: str
    path: str


def watch(folder: Path, then: Callable[[Event], None], *, reads: bool = False) -> None:
    """Call ``then`` before every change below a folder, in the thread that makes it, for as long as this process lives.

    Args:
        folder: what lies elsewhere is not shown.
        then: may end the process.
        reads: show openings to read too, wherever they are.
    """
    root = os.path.realpath(folder)

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        event = _event(name, arguments) if name == "open" or name in CHANGES else None
        if event is None:
            return
        if event.kind == "read":
            if reads:
                then(event)
        elif event.path == root or event.path.startswith(root + os.sep):
            then(event)

    sys.addaudithook(hook)


def _event(name: str, arguments: tuple[Any, ...]) -> Event | None:
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return None  # a file that is open already
    where = os.path.join(_parent(name, arguments), os.fsdecode(path))
    if name == "open":
        flags = arguments[2]
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        return Event("open" if writes else "read", os.path.abspath(where))
    return Event(name, os.path.abspath(where))


def _parent(name: str, arguments: tuple[Any, ...]) -> str:
    """The folder that a path is relative to: the process's own, or that of a descriptor, as ``shutil.rmtree`` does."""
    place = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2, "os.rename": 2}.get(name)
    descriptor = arguments[place] if place is not None and place < len(arguments) else -1
    return (
        os.readlink(f"/proc/self/fd/{descriptor}") if isinstance(descriptor, int) and descriptor >= 0 else ""
    )
