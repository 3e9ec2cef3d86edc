"""A card's options against what its target takes, by name and by type."""

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmalign.errors import DataError, UnknownNameError

PASSED_ON = "takes_options_of"
"""The attribute of a target that names functions, or classes, to which it passes ``**options``."""
GIVEN = ("self", "card", "device")
"""What every target is called with."""
NAMED = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def check_options(options: Mapping[str, Any], target: Callable[..., Any], *, place: str, file: Path) -> None:
    """Refuse what a target does not take.

    Args:
        options: of a card.
        target: what is called with them.
        place: where they stand, for errors: "options".
        file: the card.

    Raises:
        DataError: an option that there is not, of another type, or missing.
    """
    known, needed = settings_of(target)
    for name, value in options.items():
        if name not in known:
            raise DataError(str(UnknownNameError(f"option in {place}", str(name), known)), file=file)
        if not fits(value, known[name]):
            raise DataError(f"{place}: {name} = {value!r}, but it takes {described(known[name])}", file=file)
    for name in needed:
        if name not in options:
            raise DataError(f"{place}: '{name}' is missing", file=file)


def settings_of(target: Callable[..., Any]) -> tuple[dict[str, Any], list[str]]:
    """The types of a target's options that can be written in a file, and the names of those it cannot do without."""
    known: dict[str, Any] = {}
    needed: list[str] = []
    for function in _callables(target):
        hints = _hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if name in known or name in GIVEN or parameter.kind not in NAMED:
                continue
            plain = plain_types(hints[name]) if name in hints else (Any,)
            if set(plain) - {type(None)}:
                known[name] = plain
                # What a class gives to the one that it stands on is not asked of the card.
                if parameter.default is parameter.empty and function is _first(target):
                    needed.append(name)
    return known, needed


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError:  # what a package imports for its type checker alone
        return {}


def _first(target: Callable[..., Any]) -> Callable[..., Any]:
    return target.__init__ if isinstance(target, type) else target  # type: ignore[misc]


def _callables(target: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The function itself, and as long as it takes ``**options``, those that they go on to."""
    found = [_first(target)]
    if isinstance(target, type):
        found = [vars(base)["__init__"] for base in target.__mro__[:-1] if "__init__" in vars(base)]
    for number, function in enumerate(found):
        if not _passes_on(function):
            return found[: number + 1]
    for further in getattr(target, PASSED_ON, ()):
        found += _callables(further)
    return found


def _passes_on(function: Callable[..., Any]) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


WORDS = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    str: "a text",
    type(None): "nothing",
}


def plain_types(hint: Any) -> tuple[Any, ...]:
    """Those of a type's alternatives that YAML can hold: numbers, texts, lists and mappings."""
    alternatives = typing.get_args(hint) if _is_union(hint) else (hint,)
    origins = (collections.abc.Mapping, dict, collections.abc.Sequence, list, tuple, typing.Literal)
    return tuple(a for a in alternatives if a in WORDS or typing.get_origin(a) in origins)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def fits(value: Any, alternatives: tuple[Any, ...]) -> bool:
    """Whether a value from a file is of one of these types.

    >>> fits(2, (float,)), fits(True, (float,)), fits({"a": 1}, (Mapping[str, float],)), fits("2", (int, type(None)))
    (True, False, True, False)
    """
    return any(_fits(value, hint) for hint in alternatives)


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if _is_union(hint):
        return fits(value, arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (collections.abc.Mapping, dict):
        return isinstance(value, Mapping) and all(
            _fits(key, arguments[0]) and _fits(entry, arguments[1]) for key, entry in value.items()
        )
    if origin in (collections.abc.Sequence, list, tuple):
        return isinstance(value, list | tuple) and all(_fits(entry, arguments[0]) for entry in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def described(alternatives: tuple[Any, ...]) -> str:
    """Types as a person says them.

    >>> described((float, type(None))), described((Mapping[str, float],))
    ('a number or nothing', 'a mapping')
    """
    return " or ".join(map(_described, alternatives))


def _described(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if origin is not None:
        return "a mapping" if origin in (collections.abc.Mapping, dict) else "a list"
    return WORDS.get(hint, "something else")
