"""What may be read from where: a table's media lie in its own folder, or below the folder given with ``--root``.

One rule for all readers. Links are followed first, so one that leads out of the folder is outside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_ROOT: ContextVar[Path | None] = ContextVar("_ROOT", default=None)


@contextmanager
def rooted(root: Path | None) -> Iterator[None]:
    """Inside the block, media of tables may lie anywhere below this folder; None leaves that as it is.

    >>> with rooted(Path("/data")):
    ...     root_of(Path("/lists/pairs.csv")).as_posix()
    '/data'
    """
    token = _ROOT.set(root) if root is not None else None
    try:
        yield
    finally:
        if token is not None:
            _ROOT.reset(token)


def root_of(table: Path) -> Path:
    """The folder in which the media of a table, or of a folder of samples, have to lie.

    >>> root_of(Path("lists/pairs.csv")).as_posix()
    'lists'
    """
    return _ROOT.get() or (table if table.is_dir() else table.parent)


def lies_in(path: Path, root: Path) -> bool:
    """Whether a file, links followed, is below a folder; a name that no file can have is not.

    >>> lies_in(Path("a/../b.png"), Path("a")), lies_in(Path("a/b.png"), Path("a"))
    (False, True)
    """
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):
        return False


def outside(path: Path, root: Path) -> str:
    """What is said of a file that does not lie in the root; it is not opened."""
    return (
        f"'{path}' lies outside '{root}' and is not opened; name a folder that holds both as the root (--root), if "
        "you trust this file"
    )
