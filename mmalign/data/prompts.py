"""Lists of prompts: a text file with one a line, or a list that ships with the package."""

from pathlib import Path

from mmalign.errors import DataError, UnknownNameError
from mmalign.resources import resource


def read_prompts(name: str) -> list[str]:
    """The prompts of a file or of ``embedded/<list>``; blank lines are skipped.

    >>> len(read_prompts("embedded/shapes-heldout"))
    540

    Raises:
        UnknownNameError: no embedded list has this name.
        DataError: the file is missing, empty or not UTF-8.
    """
    if name.startswith("embedded/"):
        folder = resource("assets") / "prompts"
        path = folder / f"{name.removeprefix('embedded/')}.txt"
        if not path.is_file():
            raise UnknownNameError("prompt list", name, (f"embedded/{p.stem}" for p in folder.glob("*.txt")))
    else:
        path = Path(name)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=path) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError("not UTF-8; save it as UTF-8 and try again", file=path, row=line) from None
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise DataError("no prompts in it; write one a line", file=path)
    return prompts
