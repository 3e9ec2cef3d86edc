"""Reads docstrings from source without importing it, as Markdown."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parents[1]
ROLE = re.compile(r":(?:func|class|meth|mod):`~?([^`]+)`")
SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Yields")
NAMED = ("Args", "Attributes", "Raises")
"""Sections whose items begin with a name."""


def markdown(text: str) -> str:
    r"""A docstring as Markdown: examples with a prompt, which Markdown takes for quotations, in a fence, names plain.

    >>> markdown("A sum, see :func:`plus`.\n\n>>> 1 + 1\n2").splitlines()
    ['A sum, see `plus`.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    lines: list[str] = []
    inside = False
    for line in ROLE.sub(r"`\1`", text).splitlines():
        if line.startswith(">>>") and not inside:
            lines.append("```pycon")
            inside = True
        elif inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line)
    return "\n".join([*lines, "```"] if inside else lines)


def with_lists(text: str) -> str:
    r"""The same with the sections of Google's style (Args, Raises, ...) as lists under a bold word.

    >>> print(with_lists("Does it.\n\nArgs:\n    size: of it, in\n        pixels."))
    Does it.
    <BLANKLINE>
    **Args**
    <BLANKLINE>
    - `size`: of it, in pixels.
    """
    lines: list[str] = []
    section = ""
    for line in markdown(text).splitlines():
        name = line.removesuffix(":")
        if line.endswith(":") and name in SECTIONS:
            section = name
            lines += [f"**{name}**", ""]
        elif section and line.startswith("    "):
            begins = line[4] != " " and (section in NAMED or not lines[-1])
            item, colon, said = line.strip().partition(": ")
            if not begins:
                lines[-1] += f" {line.strip()}"
            else:
                lines.append(f"- `{item}`: {said}" if colon and section in NAMED else f"- {line.strip()}")
        else:
            section = "" if line.strip() else section
            lines.append(line)
    return "\n".join(lines)


@cache
def module(name: str) -> griffe.Module:
    """A module's source, read and not imported."""
    path = ROOT.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return griffe.visit(name, filepath=path, code=path.read_text(encoding="utf-8"))


def docstring(target: str) -> str:
    """The docstring of ``module:name``, also where the module only imports that name; empty where there is none."""
    home, _, name = target.partition(":")
    found: Any = module(home)
    for part in name.split("."):
        if part not in found.members:
            return ""
        found = found.members[part]
    if found.is_alias:
        home, _, name = found.target_path.rpartition(".")
        return docstring(f"{home}:{name}")
    return "" if found.docstring is None else found.docstring.value


def mentioned(target: str) -> list[str]:
    """``module:name`` of the functions and classes that a docstring sends its reader to."""
    home = target.partition(":")[0]
    found = []
    for role in dict.fromkeys(re.findall(r":(?:func|class):`~?([^`]+)`", docstring(target))):
        away, _, name = role.rpartition(".")
        found.append(f"{away or home}:{name}")
    return [name for name in found if docstring(name)]


class MarkdownDocstrings(griffe.Extension):
    """Gives mkdocstrings every docstring as Markdown."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called once an object is read."""
        if obj.docstring is not None:
            obj.docstring.value = with_lists(obj.docstring.value)
