"""What mkdocs calls while it builds: adds the made pages and their places in the menu, and checks what came out."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from documentation import checks, command_line, measured, methods, reference, rewards
from documentation.docstrings import ROOT

log = logging.getLogger("mkdocs.hooks.mmalign")
SECTIONS = {"methods": methods, "reference": reference, "rewards": rewards}
CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def worked_example() -> str:
    """The last section of CONTRIBUTING, without its title."""
    return CONTRIBUTING.read_text(encoding="utf-8").partition("## A worked example")[2].partition("\n")[2]


INSERTS: dict[str, Callable[[], str]] = {
    "measured: by method": measured.by_method,
    "methods": methods.listing,
    "packages": reference.listing,
    "rewards": rewards.listing,
    "worked example": worked_example,
}
"""What a page gets in the place of ``<!-- insert: NAME -->``."""
INSERT = re.compile(r"<!-- insert: (.+?) -->")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the made pages, and to each section of the menu those that belong to it."""
    files.append(File.generated(config, "command-line.md", content=command_line.page()))
    entries: dict[str, list[dict[str, str]]] = {}
    for name, section in SECTIONS.items():
        for path, title, text in section.pages():
            files.append(File.generated(config, path, content=text))
            entries.setdefault(name, []).append({title: path})
    for item in config.nav:
        for title, target in item.items():
            if isinstance(target, str) and target.endswith("/index.md"):
                item[title] = [target, *entries[target.removesuffix("/index.md")]]
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in tables that are made from other files."""
    return INSERT.sub(lambda found: INSERTS[found[1]](), markdown)


def on_post_build(config: Any) -> None:
    """Say what is wrong with the site; a strict build then fails."""
    site = Path(config.site_dir)
    for name in checks.missing_names(site):
        log.warning("no page shows the public name %s", name)
    for request in checks.outside_requests(site):
        log.warning("a page asks another host: %s", request)
