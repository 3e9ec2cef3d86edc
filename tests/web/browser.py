"""A real Chromium at the labelling page, by its keyboard; skipped with the reason where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_MS = 60_000
"""For a page on a machine that does other work too; what is there sooner is taken sooner."""


def chromium() -> str:
    """Where it is; skips the test that asks where it is nowhere."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed (apt-get install chromium)")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """A headless browser."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=path, args=options)
        try:
            yield found
        finally:
            found.close()


class Person:
    """Somebody at the page.

    Args:
        page: of the browser.
        url: of the server.
        name: of the annotator.
    """

    def __init__(self, page: Any, url: str, name: str) -> None:
        self.page, self.url, self.name = page, url, name
        self.asked: list[str] = []
        """Every address that the page asked for."""
        self.errors: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self) -> None:
        """Open the page and give the name."""
        self.page.goto(self.url, timeout=WAIT_MS)
        self.page.wait_for_selector("#name textarea, #name input", timeout=WAIT_MS)
        self.page.fill("#name textarea, #name input", self.name)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#stage", timeout=WAIT_MS)

    def reload(self) -> None:
        """Open it again, where the address holds the name by now."""
        before = self.turn
        self.page.goto(self.page.url, timeout=WAIT_MS)
        self.page.wait_for_selector(f'#stage:not([data-turn="{before}"])', timeout=WAIT_MS)

    @property
    def turn(self) -> str:
        """Which answer of the server the page shows."""
        return str(self.page.get_attribute("#stage", "data-turn"))

    @property
    def shown(self) -> str:
        """The key of the showing on the page; empty at the end."""
        return str(self.page.get_attribute("#stage", "data-shown"))

    @property
    def progress(self) -> str:
        """What the line above says."""
        return str(self.page.inner_text("#progress"))

    def press(self, *keys: str) -> None:
        """Keys that say nothing to the server."""
        for key in keys:
            self.page.keyboard.press(key)

    def say(self, *keys: str) -> None:
        """Keys of which the last one does, and the wait for its answer."""
        before = self.turn
        self.press(*keys)
        self.page.wait_for_selector(f'#stage:not([data-turn="{before}"])', timeout=WAIT_MS)

    def picture(self, path: Path) -> None:
        """What the page looks like."""
        os.makedirs(path.parent, exist_ok=True)
        self.page.screenshot(path=str(path))
