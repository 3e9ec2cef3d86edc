"""Which numbers a setting may have: said once beside its field, checked by one function, shown by ``--help``.

steps: Annotated[int, Range(least=1)] = 200
"""

import math
import numbers
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from mmalign.errors import ConfigError

MOST_WHOLE = 2**31 - 1
"""Of a count or a size whose range names no highest value: no run has more, and every library takes it."""
MOST_SEED = 2**53 - 1
"""The largest whole number that JSON keeps exactly everywhere, so that a seed is read back as it was written."""


@dataclass(frozen=True, slots=True)
class Range:
    """What a number, or each of several, may be: always finite, and within these limits, ``least`` and ``most`` too.

    >>> str(Range(above=0)), str(Range(least=0, below=1)), str(Range(least=1, most=5)), str(Range())
    ('a positive number', 'at least 0 and below 1', '1 to 5', 'a finite number')
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    why: str = ""
    """What the message says behind the range: why so, or what to do instead."""

    def __str__(self) -> str:
        if (self.above, self.least, self.most, self.below) == (0, None, None, None):
            return "a positive number"
        if self.least is not None and self.most is not None:
            return f"{self.least} to {self.most}"
        low = f"at least {self.least}" if self.least is not None else ""
        low = f"above {self.above}" if self.above is not None else low
        high = f"at most {self.most}" if self.most is not None else ""
        high = f"below {self.below}" if self.below is not None else high
        return " and ".join(part for part in (low, high) if part) or "a finite number"

    def holds(self, value: float, *, whole: bool) -> bool:
        """Whether it may be this number; a whole one without a highest value is at most ``MOST_WHOLE``."""
        if not math.isfinite(value):
            return False
        most = MOST_WHOLE if self.most is None and whole else self.most
        return not (
            (self.least is not None and value < self.least)
            or (most is not None and value > most)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        )


SEED = Range(least=0, most=MOST_SEED)
PORT = Range(least=0, most=65_535)
GUIDANCE = Range(least=1, why="1 is none")
"""Of guidance by two branches, which pipelines turn off for anything below 1 without a word."""
SHARE = Range(least=0, most=1)
COUNT = Range(least=1)
"""Of what there has to be one of."""
NOT_NEGATIVE = Range(least=0)
POSITIVE = Range(above=0)
FINITE = Range()


@dataclass(frozen=True, slots=True)
class NumberField:
    """A field of a settings class that holds a number or several."""

    name: str
    whole: bool
    """Whether it takes whole numbers alone."""
    several: bool
    """Whether it is a tuple of them."""
    optional: bool
    range: Range | None


@cache
def number_fields(cls: type) -> tuple[NumberField, ...]:
    """The fields of a dataclass that hold numbers, in order, with their ranges."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found = (_number_field(field.name, hints[field.name]) for field in fields(cls))
    return tuple(field for field in found if field is not None)


def _number_field(name: str, hint: Any) -> NumberField | None:
    kinds = set(_leaves(hint))
    if not kinds & {int, float}:
        return None
    ranges = [item for item in _metadata(hint) if isinstance(item, Range)]
    several = any(typing.get_origin(part) is tuple for part in _parts(hint))
    return NumberField(name, float not in kinds, several, type(None) in kinds, ranges[0] if ranges else None)


def _parts(hint: Any) -> Iterator[Any]:
    """A type and all that it is made of, such as the two sides of a union."""
    yield hint
    for part in typing.get_args(hint):
        yield from _parts(part)


def _leaves(hint: Any) -> Iterator[Any]:
    return (part for part in _parts(hint) if not typing.get_args(part))


def _metadata(hint: Any) -> Iterator[Any]:
    for part in _parts(hint):
        yield from getattr(part, "__metadata__", ())


def check_ranges(settings: Any, *, place: str) -> None:
    """Refuse numbers that are not finite or outside the range of their field.

    Args:
        settings: a dataclass.
        place: what stands before a field's name, such as ``train.``; with ``--`` the name is written as an option.

    Raises:
        ConfigError: with the field, its value and its range.
    """
    cls: type = type(settings)
    for field in number_fields(cls):
        value = getattr(settings, field.name)
        if value is None and field.optional:
            continue
        name = place + (field.name.replace("_", "-") if place == "--" else field.name)
        for number in value if field.several else (value,):
            _check(number, field, name)


def _check(value: Any, field: NumberField, name: str) -> None:
    kind = numbers.Integral if field.whole else numbers.Real
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{name} = {value!r}: expected a {'whole ' if field.whole else ''}number")
    allowed = Range() if field.range is None else field.range
    if allowed.holds(_float(value), whole=field.whole):
        return
    shown = f"{value}" if abs(_float(value)) < 1e21 else f"{_float(value):g}"
    if not math.isfinite(_float(value)) and not field.whole:
        also = "" if allowed == FINITE else f", {allowed}"
        raise ConfigError(f"{name} = {shown}: expected a finite number{also}")
    limit = f" and at most {MOST_WHOLE}" if field.whole and allowed.most is None and _float(value) > 0 else ""
    why = f"; {allowed.why}" if allowed.why else ""
    raise ConfigError(f"{name} = {shown}: expected {allowed}{limit}{why}")


def _float(value: Any) -> float:
    """A number as a float; a whole one that is too large for that is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
