"""The few exceptions a caller may want to catch; each message names the thing, the want, the got and the way out."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class MmalignError(Exception):
    """A mistake that a person can mend; its message is one sentence with the way out."""


class ConfigError(MmalignError):
    """A setting that cannot work, or would be ignored."""


class TrustError(ConfigError):
    """Something that data ask for and only the user's own ``--trust`` opens: it was not done."""


class MissingExtraError(ConfigError):
    """A package that an extra of this one brings, and that is not installed.

    >>> print(MissingExtraError("rapidocr", "ocr"))
    rapidocr is not installed; it comes with an extra: pip install 'mmalign[ocr]'
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed; it comes with an extra: pip install 'mmalign[{extra}]'"
        )


class ShapeError(MmalignError):
    """A tensor of another shape, kind of number or unit than the function is defined for."""


class UnsupportedPipelineError(MmalignError):
    """A pipeline whose behaviour could not be verified; training it would go wrong in silence."""


class NonFiniteError(MmalignError):
    """A loss, gradient or medium that is NaN or infinite; nothing was applied or kept."""


class DataError(MmalignError):
    """Something wrong in a user's file, with the place.

    >>> print(DataError("no column 'prompt'", file="pairs.csv", row=3))
    pairs.csv, row 3: no column 'prompt'
    """

    def __init__(
        self, message: str, *, file: Path | str, row: int | None = None, column: str | None = None
    ) -> None:
        self.file, self.row, self.column = Path(file), row, column
        place = [str(file)]
        if row is not None:
            place.append(f"row {row}")
        if column is not None:
            place.append(f"column {column!r}")
        super().__init__(f"{', '.join(place)}: {message}")


SHORT_LIST = 16
"""Names that an error lists beside the nearest one."""


class UnknownNameError(MmalignError):
    """A name that is not known, with the nearest one, and with all that are known where that is a short list.

    >>> print(UnknownNameError("reward", "placbo", ["placebo", "shapes-truth"]))
    no reward is called 'placbo'. Did you mean 'placebo'? Known: placebo, shapes-truth.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        listing = f" Known: {', '.join(names) or 'none'}." if len(names) <= SHORT_LIST or not near else ""
        said = name if name.isprintable() else repr(name)[1:-1]  # one line, whatever the name
        said = said if len(said) <= 200 else f"{said[:200]}..."
        super().__init__(f"no {what} is called '{said}'.{hint}{listing}")
