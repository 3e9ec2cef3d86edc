"""What may run code of its own: nothing that data name, unless whoever runs this names it with ``--trust``.

A card, a model's folder, a recipe.yaml, a table: all of these are data, and may come from anybody. What they name is
looked up in tables of ours and in installed packages, and never imported or fetched to be run. ``--trust NAME`` opens
one thing by the name under which it is asked for, in this command alone, and says on standard error what that opened.
"""

import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from mmalign.errors import TrustError


class _Trust:
    """Names, each with what it opened so far."""

    def __init__(self, names: Iterable[str]) -> None:
        self.opened: dict[str, set[str]] = {name: set() for name in names}


_STANDING: ContextVar[tuple[_Trust, ...]] = ContextVar("_STANDING", default=())
_LOADED: ContextVar[str] = ContextVar("_LOADED", default="")
"""What is being loaded, by the name that it was asked for."""


@contextmanager
def trusting(names: Iterable[str]) -> Iterator[None]:
    """Inside the block, let these run code of their own: folders, hub ids, rewards or addresses, as they are named.

    >>> with trusting(["runs/theirs"]):
    ...     trusted("runs/theirs/"), trusted("runs/others")
    (True, False)
    """
    token = _STANDING.set((*_STANDING.get(), _Trust(names)))
    try:
        yield
    finally:
        _STANDING.reset(token)


def trusted(name: str | Path) -> bool:
    """Whether somebody said ``--trust`` and this name."""
    return bool(_matching(str(name)))


def demand(name: str | Path, what: str) -> None:
    """Let something through that only trust opens, and say so once on standard error; or refuse it.

    Args:
        name: under which the thing was asked for.
        what: it is about to do: "its card names the code x:Y".

    Raises:
        TrustError: nobody trusted this name.
    """
    found = _matching(str(name))
    if not found:
        raise refusal(name, what)
    for trust, said in found:
        if what not in trust.opened[said]:
            trust.opened[said].add(what)
            print(f"mmalign: trusted {said}: {what}", file=sys.stderr, flush=True)
        break


def refusal(name: str | Path, what: str) -> TrustError:
    """What is said where a name is not trusted.

    >>> print(refusal("runs/theirs", "its card names the code x:Y"))
    'runs/theirs': its card names the code x:Y, which is left alone; if you trust its author, add --trust runs/theirs
    """
    return TrustError(
        f"'{name}': {what}, which is left alone; if you trust its author, add --trust {shlex.quote(str(name))}"
    )


def unused() -> list[str]:
    """Names of the innermost block that opened nothing."""
    standing = _STANDING.get()
    return [name for name, opened in standing[-1].opened.items() if not opened] if standing else []


@contextmanager
def loading(name: str | Path) -> Iterator[None]:
    """Load what was asked for under a name: Python that comes with its weights runs only where that is trusted.

    Raises:
        TrustError: it needs such code and is not trusted.
    """
    token = _LOADED.set(str(name))
    try:
        yield
    except TrustError:
        raise
    except Exception as error:
        # Libraries raise a ValueError of their own, which loaders may have put into a sentence.
        chain = (error, error.__cause__, error.__context__)
        if not trusted(name) and any("trust_remote_code" in str(link) for link in chain):
            raise refusal(name, "its weights come with Python code of their own") from None
        raise
    finally:
        _LOADED.reset(token)


def loaded() -> str:
    """The name under which the thing was asked for that is being loaded, or nothing."""
    return _LOADED.get()


def _matching(name: str) -> list[tuple[_Trust, str]]:
    return [
        (trust, said)
        for trust in _STANDING.get()
        for said in trust.opened
        if said.rstrip("/") == name.rstrip("/") or _one_path(said, name)
    ]


def _one_path(first: str, second: str) -> bool:
    """Whether two names are one file or folder that is there."""
    try:
        paths = [Path(name).expanduser() for name in (first, second)]
        return all(path.exists() for path in paths) and paths[0].samefile(paths[1])
    except (OSError, RuntimeError, ValueError):
        return False
