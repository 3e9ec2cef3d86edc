"""Where results go: a folder that nobody has yet, that can be written, on a disk with room for them."""

import shutil
import tempfile
from pathlib import Path

from mmalign.errors import ConfigError

SPARE = 64 * 2**20
"""Bytes that stay free."""
PROBE = ".mmalign-probe-"
"""How folders begin that are made and taken away to see whether a place can be written; another process of the same run
may be looking just then."""


def check_new_folder(out: Path, *, way_out: str = "give another --out") -> None:
    """Refuse a folder that somebody uses, or that cannot be made.

    Raises:
        ConfigError: it is there and not empty, is a file, or may not be written.
    """
    try:
        taken = out.exists() and (
            not out.is_dir() or any(not p.name.startswith(PROBE) for p in out.iterdir())
        )
    except OSError as error:
        raise ConfigError(f"{out} cannot be read ({error.strerror}); give another --out") from None
    if taken:
        raise ConfigError(f"{out} exists already; {way_out}")
    check_writable(out)


def check_writable(out: Path) -> None:
    """Refuse a folder, there already or not, that cannot be made or written.

    Raises:
        ConfigError: with the reason of the disk.
    """
    try:
        parent = existing(out)
        if not parent.is_dir():
            raise ConfigError(f"{out} cannot be made: {parent} is a file; give another --out")
        # Asked of the disk itself: permissions say nothing to an administrator, or of a disk that is read only.
        Path(tempfile.mkdtemp(prefix=PROBE, dir=parent)).rmdir()
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}); give another --out") from None


def check_space(out: Path, needed: int) -> None:
    """Refuse a disk without room.

    Args:
        out: what will be written.
        needed: bytes, about.

    Raises:
        ConfigError: with what is needed and what is free.
    """
    free = shutil.disk_usage(existing(out)).free
    if free < needed + SPARE:
        raise ConfigError(
            f"{out}: about {_mb(needed + SPARE)} MB are needed and {_mb(free)} are free; make room, or give --out on "
            "another disk"
        )


def existing(path: Path) -> Path:
    """The nearest place above that is there."""
    for place in (path.absolute(), *path.absolute().parents):
        if place.exists():
            return place
    return Path("/")


def _mb(count: int) -> str:
    return f"{count / 2**20:.0f}"
