"""How everything is written: under a temporary name, onto the disk, and then renamed, so that it is whole or not there.

Temporary names are those of ``mmalign.unfinished``, so that what a killed process left is known for what it is.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmalign.errors import MmalignError
from mmalign.unfinished import temporary_name

WAYS_OUT = {
    errno.ENOSPC: "the disk is full; make room, or write elsewhere",
    errno.EDQUOT: "the quota of this disk is used up; make room, or write elsewhere",
    errno.EFBIG: "the file system takes no file of this size; write elsewhere",
    errno.EACCES: "no permission; choose a folder that you may write to",
    errno.EPERM: "no permission; choose a folder that you may write to",
    errno.EROFS: "this file system is read-only; write elsewhere",
    errno.ENAMETOOLONG: "the name is too long for this file system; give a shorter one",
    errno.EEXIST: "a part of this path is a file and no folder; give another path",
    errno.ENOTDIR: "a part of this path is a file and no folder; give another path",
    errno.EISDIR: "this is a folder, and a file was to be written; give another name",
    errno.EIO: "the disk reports an error; check it before anything else",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
}
"""By the number of a system's error, what is wrong and what helps."""


class WriteError(MmalignError):
    """Something could not be written; what was there before is as it was.

    >>> print(WriteError("out/scores.jsonl", errno.ENOSPC))
    out/scores.jsonl: could not be written: the disk is full; make room, or write elsewhere
    """

    def __init__(self, path: Path | str, number: int) -> None:
        self.path, self.errno = Path(path), number
        super().__init__(f"{path}: could not be written: {WAYS_OUT[number]}")


@contextmanager
def whole_file(path: Path | str, *, durable: bool = True) -> Iterator[Path]:
    """A temporary file beside ``path``, with its suffixes; it takes the place of ``path`` when the block ends well.

    A reader sees the old file or the new one and never half of one. Missing folders are made. The mode is what the
    user's umask says, whichever library writes.

    Args:
        path: of the file.
        durable: whether it outlasts a power cut once the block has ended; without, it may be lost or empty then.

    Raises:
        MmalignError: ``path`` is a folder or a device.
        WriteError: the disk is full, or the folder cannot be written to.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "new" / "note.txt"
    >>> with whole_file(target) as unfinished:
    ...     _ = unfinished.write_text("all of it")
    >>> target.read_text(), [path.name for path in target.parent.iterdir()]
    ('all of it', ['note.txt'])
    """
    path = Path(path)
    unfinished = path.with_name(temporary_name(path.name))
    with writing(path):
        if path.exists() and not path.is_file():
            raise MmalignError(
                f"{path}: is no ordinary file, and would be replaced by one; give another name"
            )
        make_folder(path.parent, durable=durable)
        mode = _create(unfinished)
        try:
            yield unfinished
            os.chmod(unfinished, mode)  # some libraries write their files for their owner alone
            if durable:
                sync(unfinished)
            os.replace(unfinished, path)
            if durable:
                sync(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path | str, *, last: str | None = None) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends well; onto the disk, as files are.

    Where ``path`` holds something already, files move there one by one, ``last`` as the last of them and its old
    version away before the first: whoever reads ``last`` first sees a whole folder or none.

    Raises:
        WriteError: the disk is full, or the folder cannot be written to.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "lora"
    >>> with whole_folder(target) as unfinished:
    ...     _ = (unfinished / "a.txt").write_text("a")
    >>> [path.name for path in target.parent.iterdir()], [path.name for path in target.iterdir()]
    (['lora'], ['a.txt'])
    """
    path = Path(path)
    unfinished = path.with_name(temporary_name(path.name))
    with writing(path):
        make_folder(path.parent)
        os.mkdir(unfinished)
        try:
            yield unfinished
            probe = unfinished / temporary_name("mode")
            mode = _create(probe)
            probe.unlink()
            files = sorted(file for file in unfinished.rglob("*") if file.is_file())
            for file in files:
                os.chmod(file, mode)
            sync(*files, *(folder for folder in unfinished.rglob("*") if folder.is_dir()), unfinished)
            if path.is_dir() and any(path.iterdir()):
                _move_into(path, unfinished, files, last)
            else:
                os.rename(unfinished, path)
            sync(path.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _move_into(path: Path, unfinished: Path, files: list[Path], last: str | None) -> None:
    """Put files into a folder that holds some already."""
    names = sorted(
        (file.relative_to(unfinished) for file in files), key=lambda name: name == Path(last or "")
    )
    if last is not None:
        (path / last).unlink(missing_ok=True)
    for name in names:
        make_folder((path / name).parent)
        os.replace(unfinished / name, path / name)
    sync(*{(path / name).parent for name in names})


def make_folder(folder: Path, *, durable: bool = True) -> None:
    """Make a folder and those above it where they are missing."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if durable and missing:
        sync(*(part.parent for part in missing))


def append(path: Path, text: str) -> None:
    """Add text to the end of a file, onto the disk; what a kill cuts off is the reader's to see."""
    with writing(path), path.open("ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def sync(*paths: Path) -> None:
    """Onto the disk: the content of files, the names in folders."""
    for path in paths:
        if path.is_dir() and os.name != "posix":
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:  # some network file systems cannot, for folders
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                raise
        finally:
            os.close(handle)


# --- what cannot be written -------------------------------------------------------------------------------------------


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Say in a sentence that the disk is full or a folder cannot be written to, whichever library found out.

    Raises:
        WriteError: so it is.
    """
    try:
        yield
    except MmalignError:
        raise
    except Exception as error:
        number = disk_fault(error)
        named = getattr(error, "filename", None)
        if number is None or (isinstance(named, str) and not _concerns(named, Path(path))):
            raise
        raise WriteError(path, number) from None


def disk_fault(error: BaseException) -> int | None:
    """The number of a system's error that ``WAYS_OUT`` explains; Rust libraries have it in their message alone.

    >>> disk_fault(OSError(errno.ENOSPC, "No space left on device")) == errno.ENOSPC
    True
    >>> disk_fault(ValueError("I/O error: No space left on device (os error 28)"))
    28
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (said := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(said[1])
    return number if number in WAYS_OUT else None


def _concerns(named: str, path: Path) -> bool:
    """Whether a file that an error names is the one being written, its folder, or a part of it."""
    other, folder = Path(named).absolute(), path.absolute().parent
    return other.is_relative_to(folder) or folder.is_relative_to(other)


def _create(path: Path) -> int:
    """Make an empty file, and say which mode the umask gave it."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)
