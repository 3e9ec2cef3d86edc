"""Turns whatever goes wrong with a media file into one sentence that names the file and the reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image

from mmalign.errors import ConfigError, DataError, MmalignError


@contextmanager
def reading(path: Path | str, what: str) -> Iterator[None]:
    """Read inside this: whatever goes wrong becomes one sentence that names the file.

    Args:
        path: a file, checked to be one: a pipe or a device could be read for ever.
        what: the kind of thing that is expected, "picture".

    Raises:
        DataError: the file is missing, empty or no file, or reading it failed.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise DataError("not a file" if path.exists() else "no such file", file=path)
        if path.stat().st_size == 0:
            raise DataError(f"not a readable {what} (the file is empty)", file=path)
        yield
    except DataError:
        raise
    except MmalignError as error:
        raise DataError(str(error), file=path) from None
    except PIL.Image.DecompressionBombError as error:
        raise DataError(
            f"is too large a {what}, make it smaller ({' '.join(str(error).split())})", file=path
        ) from None
    except Exception as error:  # a decoder that is fed damaged bytes raises anything at all
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(said.split()) or type(error).__name__
        raise DataError(f"not a readable {what} ({reason[:200]})", file=path) from error


def check_suffix(path: Path | str, known: tuple[str, ...], what: str) -> str:
    """The suffix of a file to be written, in lower case.

    Raises:
        ConfigError: no format has it.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise ConfigError(f"{path}: a {what} is saved as {', '.join(known)}")
    return suffix
