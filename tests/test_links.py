"""Relative links of the pages that people read without a build lead somewhere; those of the site are checked by it."""

import re
from pathlib import Path

import pytest

from documentation import methods, reference, rewards

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
MADE = {
    "command-line.md",
    *(path for section in (methods, reference, rewards) for path, _, _ in section.pages()),
}
"""Pages that exist in a build alone, below docs."""


def anchors(path: Path) -> set[str]:
    """Of the headings of a page, as the site and code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_there_are_links_of_every_kind() -> None:
    links = [link for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))]
    relative = [link for link in links if ":" not in link.partition("#")[0]]
    assert len(PAGES) >= 25
    assert len(relative) >= 100
    assert sum("#" in link for link in relative) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if ":" in target:
            continue  # of other hosts, which the suite does not ask
        path = (page.parent / target).resolve() if target else page
        made = path.is_relative_to(ROOT / "docs") and path.relative_to(ROOT / "docs").as_posix() in MADE
        assert path.exists() or made, f"{page.name}: {link} leads nowhere"
        if anchor and path.suffix == ".md" and not made:
            assert anchor in anchors(path), f"{page.name}: {link} has no such heading"
