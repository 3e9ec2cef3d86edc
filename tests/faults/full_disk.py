"""Runs commands on a small disk of their own that fills up, makes room, and goes on.

``unshare --mount python -m tests.faults.full_disk --count 20 --log full.jsonl --place FOLDER`` goes on after the rows
of the log; who is not root adds ``--map-root-user``.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults import rows
from tests.faults.commands import COMMANDS
from tests.faults.contents import contents, differences
from tests.faults.place import Place
from tests.faults.sentences import one_sentence

NAMES = ("image/flow_dpo", "generate", "score", "reward train", "export")
ROOM = "256m"


@dataclass(frozen=True)
class Full:
    """One full disk, and what came of it.

    Args:
        command: by name.
        room: bytes that the disk took, beside what the command reads.
        of: bytes that the command needs.
        said: its sentence.
        result: "equal", or what is wrong.
        seconds: it took.
    """

    command: str
    room: int
    of: int
    said: str
    result: str
    seconds: float


def fill_once(place: Place, number: int) -> Full:
    """Give a command less room than it needs, look what it says, make room, go on, and compare."""
    name, chance, begun = NAMES[number % len(NAMES)], random.Random(number), time.monotonic()
    command, wanted = COMMANDS[name], place.wanted(name)
    with disk(place.work, ROOM):
        place.begin(command)
        before = used(place.work)
        needed = _needs(place, name) - (_needs(place, "image/flow_dpo") if command.reads_run else 0)
        room = chance.randrange(needed // 10, needed // 2)
        resize(place.work, str(before + room))
        ended = place.run(command.arguments)
        said = one_sentence(ended)
        if said is None:
            result = f"status {ended.status}: {ended.words}"
        elif hidden := [p.relative_to(place.work).as_posix() for p in place.work.rglob(".*") if _left(p)]:
            result = f"left behind: {', '.join(hidden)}"
        else:
            resize(place.work, ROOM)
            again = place.run(command.again(place.work))
            found = differences(contents(place.work), wanted) if again.status == 0 else [again.words]
            result = "; ".join(found) or rows.GOOD
    return Full(name, room, needed, said or "", result, round(time.monotonic() - begun, 1))


def _left(path: Path) -> bool:
    """Whether a hidden file holds something: a lock may stay, what is half written may not."""
    return path.is_dir() or path.stat().st_size > 0


def _needs(place: Place, name: str) -> int:
    """Bytes on a disk of what a command leaves, in whole pages."""
    sizes = [path.stat().st_size for path in place.reference(name).rglob("*") if path.is_file()]
    return sum(-(-size // 4096) * 4096 for size in sizes)


def used(folder: Path) -> int:
    """Bytes that are taken on the disk of a folder."""
    return shutil.disk_usage(folder).used


def apart() -> list[str]:
    """What runs a command so that it may make disks, which nobody else sees and which go with it."""
    return ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


def why_not() -> str | None:
    """Why no disk can be made here; None where one can."""
    try:
        done = subprocess.run(
            [*apart(), "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as missing:
        return str(missing)
    return None if done.returncode == 0 else done.stderr.strip() or "not permitted"


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own at a folder, which is empty again afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    _mount("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        _mount("umount", str(folder))


def resize(folder: Path, size: str) -> None:
    """Give the disk another size."""
    _mount("mount", "-o", f"remount,size={size}", str(folder))


def _mount(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(rows.main(sys.argv[1:], fill_once, NAMES, about=__doc__ or ""))
