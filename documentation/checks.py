"""What must hold of the built site: every public name has its place, and no page asks another host for anything."""

import re
from pathlib import Path

from documentation import reference

OUTSIDE = re.compile(
    r"<(?:script|img|iframe|source|audio|video)\b[^>]*\bsrc=[\"'](?:https?:)?//[^\"']*"
    r"|<link\b(?![^>]*\brel=[\"']?canonical)[^>]*\bhref=[\"'](?:https?:)?//[^\"']*"
    r"|@import\s+(?:url\()?[\"']?(?:https?:)?//[^\"')]*",
    flags=re.IGNORECASE,
)


def missing_names(site: Path) -> list[str]:
    """Public names that no reference page has a place for."""
    shown: set[str] = set()
    for path in (site / "reference").rglob("*.html"):
        shown.update(re.findall(r'\bid="(mmalign[\w.]*)"', path.read_text(encoding="utf-8")))
    names = [
        name
        for group in reference.modules().values()
        for module in group
        for name in reference.public_names(module)
    ]
    return [name for name in names if name not in shown]


def outside_requests(site: Path) -> list[str]:
    """What pages would fetch from other hosts: page and address."""
    found = []
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        found += [
            f"{path.relative_to(site)}: {tag}" for tag in OUTSIDE.findall(path.read_text(encoding="utf-8"))
        ]
    return found
