"""One command at a time on a run folder or an output; a second one is refused at once, with the number of the first.

The system lets go of a lock when its process ends, however it ends. Of several processes of one job the main one takes
it.
"""

import errno
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mmalign.errors import ConfigError
from mmalign.files import make_folder, writing
from mmalign.unfinished import is_unfinished, remove_abandoned

NAME = ".lock"
"""Of the file in a folder, or behind the dot and name of an output, that says who has it."""


class LockedError(ConfigError):
    """Another process is writing there."""


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Have a folder alone while the block runs; it is made if it is missing, and what killed processes left goes.

    Raises:
        LockedError: another process has it.
    """
    made = not folder.exists()
    make_folder(folder)
    try:
        with _locked(folder / NAME, folder):
            yield
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()  # nothing came of it


def holds_something(folder: Path) -> bool:
    """Whether there is more in a folder than a lock and what a killed process left; a file is something too."""
    if not folder.is_dir():
        return True
    return any(path.name != NAME and not is_unfinished(path) for path in folder.iterdir())


@contextmanager
def locked_output(path: Path, *others: Path | None) -> Iterator[None]:
    """Have a file alone, or a folder that is still to be made, while the block runs; the lock lies beside it.

    Args:
        path: of the output, by which it is locked.
        others: what else is written with it, of which unfinished versions go too.

    Raises:
        LockedError: another process has it.
    """
    with writing(path):
        make_folder(path.parent)
    with _locked(path.with_name(f".{path.name[-200:]}{NAME}"), path):
        for other in filter(None, others):
            remove_abandoned(other)
        yield


@contextmanager
def _locked(lock: Path, of: Path) -> Iterator[None]:
    with writing(of):
        file = _taken(lock, of)
    try:
        remove_abandoned(of)
        yield
    finally:
        lock.unlink(missing_ok=True)  # before others may have it, so that none locks a file that is gone
        file.close()


def _taken(lock: Path, of: Path) -> BinaryIO:
    """The open and locked file."""
    while True:
        try:
            file = lock.open("a+b")
        except FileNotFoundError:  # of a file system without files of ours, such as /proc
            raise ConfigError(f"{of}: nothing can be written in this folder; give another path") from None
        try:
            lock_file(file, of)
            if _is_there(lock, file):
                file.truncate(0)
                file.write(f"{os.getpid()} {socket.gethostname()} {_command()}\n".encode())
                file.flush()
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # it was somebody's, who has just finished and removed it


def lock_file(file: BinaryIO, of: Path) -> None:
    """Lock an open file until it is closed.

    Raises:
        LockedError: another process has; where the file says which, so does the message.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nothing keeps a second command away there
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            warnings.warn(
                f"{of}: this file system has no locks ({error.strerror}); do not start a second command here"
            )
            return
        raise LockedError(f"{of} is being written by {_holder(file)}; wait for it or stop it") from None


def _holder(file: BinaryIO) -> str:
    file.seek(0)
    pid, _, rest = file.readline(200).decode(errors="replace").strip().partition(" ")
    host, _, command = rest.partition(" ")
    if not pid.isdecimal():
        return "another process"
    where = "" if host == socket.gethostname() else f" on {host}"
    return f"{command or 'another command'}, process {pid}{where}"


def _command() -> str:
    """``mmalign align``: the name and subcommand, without what a person may have typed after them."""
    name = Path(sys.argv[0]).name
    if name not in ("mmalign", "__main__.py"):
        return "Python"
    return " ".join(("mmalign", *sys.argv[1:2]))


def _is_there(lock: Path, file: BinaryIO) -> bool:
    """Whether the file that was locked is the one that others find."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), lock.stat())
    except FileNotFoundError:
        return False
