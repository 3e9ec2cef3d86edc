"""Names of what is being written: they say who writes it, so that what a killed process left is known and removed.

It is no sample and no row to any reader (:func:`is_unfinished`); the next command that writes there removes it.
"""

import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = ".mmalign-"
"""What temporary names begin with: .mmalign-<host>-<process>-<random>-<the end of the name>."""
UNFINISHED = re.compile(r"\.mmalign-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}-")
KEPT_NAME = 40
"""Letters of a name's end that its temporary name keeps: its suffixes, and no more than a file system takes."""
ABANDONED_S = 86_400
"""After this, what another machine has left unfinished is taken for abandoned."""
HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"


def temporary_name(name: str) -> str:
    """A name for something that will be called ``name``: of its own for each host, process and call."""
    return f"{MARK}{HOST}-{os.getpid()}-{secrets.token_hex(4)}-{name[-KEPT_NAME:]}"


def is_unfinished(path: Path) -> bool:
    """Whether something is being written under this name, or was when its process was killed.

    >>> is_unfinished(Path("out") / temporary_name("00000.png")), is_unfinished(Path("out/.hidden.png"))
    (True, False)
    """
    return any(UNFINISHED.match(part) for part in path.parts)


def remove_abandoned(place: Path) -> None:
    """Remove what killed processes left unfinished, for whoever alone writes there.

    Args:
        place: a folder, of which everything unfinished goes; or a file, of which its own unfinished versions do.
    """
    for found in _below(place) if place.is_dir() else _beside(place):
        try:
            shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
        except OSError:
            continue  # somebody else's; readers pass it over


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        names = [name for name in (*folders, *files) if UNFINISHED.match(name)]
        folders[:] = [name for name in folders if name not in names]
        yield from (Path(place) / name for name in names)


def _beside(path: Path) -> Iterator[Path]:
    with suppress(OSError):
        for found in path.parent.iterdir():
            mark = UNFINISHED.match(found.name)
            if mark and found.name[mark.end() :] == path.name[-KEPT_NAME:] and _is_abandoned(found):
                yield found


def _is_abandoned(path: Path) -> bool:
    found = UNFINISHED.match(path.name)
    assert found is not None
    if found["host"] == HOST:
        return not _runs(int(found["pid"]))
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_S
    except OSError:
        return False


def _runs(pid: int) -> bool:
    if os.name != "posix":
        return True  # there is no such question there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it runs, and is somebody else's
    return True
