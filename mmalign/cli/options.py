"""Reads the options of every command: the ranges of numbers are shown, and no option is given twice in silence."""

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, cast

import tyro
from tyro.conf import UseAppendAction, arg

from mmalign.errors import ConfigError
from mmalign.ranges import Range, number_fields

T = TypeVar("T")
Kind = Literal["single", "several", "appended"]
"""An option with one value; with several behind it; with one, that may be repeated."""


@dataclass(frozen=True, slots=True)
class _Option:
    name: str
    """As ``--help`` shows it, with ``--``."""
    kind: Kind


def parse(cls: type[T], arguments: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """The settings that a command line says.

    ``--data A --data B`` and ``--data A B`` mean the same. Where a command also takes names without an option, those
    stand first: in ``score FILE --reward A B`` both A and B are rewards, in ``score --reward A FILE`` only A is.

    Args:
        cls: a dataclass, whose fields are the options.
        arguments: of the command.
        prog: what the command is called in its help.
        default: where the values of options that are not given come from.

    Raises:
        ConfigError: an option with one value is given twice.
        SystemExit: an unknown option or an unreadable value (2), or help was asked for (0).
    """
    show_ranges(cls)
    if default is not None:
        for inner in _nested(default):
            show_ranges(type(inner))
    known = {_plain(option.name): option for option in _options(cls, default)}
    tidy = _joined(list(arguments), known)
    if default is None:
        return tyro.cli(cls, prog=prog, args=tidy)
    return tyro.cli(cls, prog=prog, args=tidy, default=default)


def given(arguments: Sequence[str]) -> list[str]:
    """The fields that a command line names, such as ``train.steps``, in order.

    >>> given(["--train.batch-size=3", "--reward", "a"])
    ['train.batch_size', 'reward']
    """
    return [_plain(token)[2:].replace("-", "_") for token in arguments if token.startswith("--")]


def _joined(arguments: list[str], known: dict[str, _Option]) -> list[str]:
    """The arguments with the values of each option in one place."""
    tidy: list[str] = []
    values: dict[str, list[str]] = {}
    seen: set[str] = set()
    named_first = bool(arguments) and not arguments[0].startswith("-")
    i = 0
    while i < len(arguments):
        token = arguments[i]
        i += 1
        option = known.get(_plain(token)) if token.startswith("--") else None
        if option is None:
            tidy.append(token)
        elif option.kind == "single":
            if option.name in seen:
                raise ConfigError(f"{option.name} is given twice; leave one of them out")
            seen.add(option.name)
            tidy.append(token)
        else:
            _, inline, value = token.partition("=")
            found = [value] if inline else []
            greedy = option.kind == "several" or named_first
            while i < len(arguments) and not _is_option(arguments[i]) and (greedy or not found):
                found.append(arguments[i])
                i += 1
            if not found and option.kind == "appended":
                tidy.append(token)  # without a value, which is said by whoever reads it
            values.setdefault(option.name, []).extend(found)
    kinds = {option.name: option.kind for option in known.values()}
    for name, found in values.items():
        if kinds[name] == "several":
            tidy += [name, *found]
        else:
            tidy += [part for value in found for part in (name, value)]
    return tidy


def _is_option(token: str) -> bool:
    """Whether a token is no value: ``-1`` is one, ``-h`` is none."""
    return token.startswith("-") and len(token) > 1 and not (token[1].isdigit() or token[1] == ".")


def _plain(token: str) -> str:
    """An option's name without its value, in the spelling of ``--help``; ``--no-x`` is the option ``--x``.

    >>> _plain("--train.batch_size=3"), _plain("--no-resume"), _plain("--train.no-park-encoders")
    ('--train.batch-size', '--resume', '--train.park-encoders')
    """
    parts = token.partition("=")[0].removeprefix("--").replace("_", "-").split(".")
    parts[-1] = parts[-1].removeprefix("no-")
    return "--" + ".".join(parts)


def _options(cls: type, default: Any, prefix: str = "--") -> Iterator[_Option]:
    """The options of a settings class and of those inside it."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint, value = hints[field.name], getattr(default, field.name, None)
        extras = getattr(hint, "__metadata__", ())
        if tyro.conf.Positional in extras:
            continue
        renamed = next((extra.name for extra in extras if getattr(extra, "name", None)), None)
        name = prefix + (renamed or field.name).replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from _options(type(value), value, f"{name}.")
        else:
            yield _Option(name, _kind(hint))


def _kind(hint: Any) -> Kind:
    extras = getattr(hint, "__metadata__", ())
    if UseAppendAction in extras:
        return "appended"
    inner = typing.get_args(hint)[0] if extras else hint
    return "several" if typing.get_origin(inner) is tuple else "single"


def _nested(settings: Any) -> Iterator[Any]:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield value
            yield from _nested(value)


def show_ranges(cls: type) -> None:
    """Let ``--help`` say behind an option which numbers it takes, as its field does."""
    ranges = {field.name: field for field in number_fields(cls) if field.range is not None}
    for owner in cls.__mro__:
        for name, hint in inspect.get_annotations(owner).items():
            extras: tuple[Any, ...] = getattr(hint, "__metadata__", ())
            if name in ranges and len(extras) == 1 and isinstance(extras[0], Range):
                field = ranges[name]
                metavar = "INT" if field.whole else "FLOAT"
                metavar = f"[{metavar} [{metavar} ...]]" if field.several else metavar
                metavar = f"{{None}}|{metavar}" if field.optional else metavar
                shown = arg(metavar=f"{metavar} ({field.range})")
                owner.__annotations__[name] = Annotated[cast(Any, hint), shown]
