"""Pages of every public name, one page a package."""

from collections.abc import Iterator
from typing import Any

from documentation.docstrings import ROOT, markdown, module

PACKAGE = ROOT / "mmalign"
TOP = "mmalign"


def modules() -> dict[str, list[str]]:
    """Public modules that define something, by package, in alphabetical order; those of mmalign itself come first."""
    found: dict[str, list[str]] = {TOP: []}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if any(part.startswith("_") for part in parts):
            continue
        package = ".".join(parts[:2]) if PACKAGE.joinpath(*parts[1:2]).is_dir() else TOP
        if path.stat().st_size:
            found.setdefault(package, []).append(".".join(parts))
    return found


def public_names(name: str) -> list[str]:
    """Full names of what a module defines for others: classes, functions and constants, and members of classes."""

    def below(owner: Any, prefix: str) -> Iterator[str]:
        for key, member in owner.members.items():
            if key.startswith("_") or member.is_alias or member.is_module:
                continue
            yield f"{prefix}.{key}"
            if member.is_class:
                yield from below(member, f"{prefix}.{key}")

    return list(below(module(name), name))


def pages() -> Iterator[tuple[str, str, str]]:
    """Path, title and text of each page."""
    for package, names in modules().items():
        blocks = "\n".join(block(name) for name in names)
        yield f"reference/{package.rpartition('.')[2]}.md", package, f"# {package}\n\n{blocks}"


def block(name: str) -> str:
    """What mkdocstrings makes a module of; what it only hands on is shown at its home, and linked here."""
    text = f"::: {name}\n    options:\n      heading_level: 2\n"
    exported = set(module(name).exports or ())
    handed_on = [key for key, member in module(name).members.items() if member.is_alias and key in exported]
    if not handed_on:
        return text
    own = [full.rpartition(".")[2] for full in public_names(name) if full.count(".") == name.count(".") + 1]
    links = "\n".join(f"- [`{key}`][{home(f'{name}.{key}')}]" for key in sorted(handed_on))
    return f"{text}      members: {own or 'false'}\n\n{links}\n"


def home(name: str) -> str:
    """Where a name that modules hand on is defined.

    >>> home("mmalign.Audio")
    'mmalign.media.audio.Audio'
    """
    owner, _, key = name.rpartition(".")
    member = module(owner).members[key]
    target = getattr(member, "target_path", None)  # of an alias
    return name if target is None else home(target)


def listing() -> str:
    """The packages, with what their first module file says of them."""
    lines = []
    for package, names in modules().items():
        said = markdown(docstring_of_module(package)).partition("\n")[0]
        page = package.rpartition(".")[2]
        lines.append(f"- [`{package}`]({page}.md), {len(names)} modules" + (f": {said}" if said else ""))
    return "\n".join(lines)


def docstring_of_module(name: str) -> str:
    """What a module says first; empty where it says nothing."""
    found = module(name).docstring
    return "" if found is None else found.value
