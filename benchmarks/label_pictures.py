"""Takes the pictures of docs/label.md: every mode and medium of `mmalign label` in a real headless Chromium.

uv run python -m benchmarks.label_pictures [NAME ...]
"""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from mmalign.data.label_items import Mode, list_samples
from mmalign.data.label_store import LabelSettings
from mmalign.web.label_server import LabelServer
from tests.web.browser import Person, browser
from tests.web.label_samples import write_samples

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SIZE = {"width": 1200, "height": 800}


def pairs(person: Person) -> None:
    """Three choices, so that there is a rate."""
    person.say("ArrowLeft")
    person.say("ArrowRight")
    person.say("ArrowLeft")


def sounds(person: Person) -> None:
    """While the first one plays."""
    pairs(person)
    person.press(" ")
    person.page.wait_for_selector(".sample.playing")


def objects(person: Person) -> None:
    """Turned a little."""
    pairs(person)
    person.page.wait_for_selector("canvas[data-turned]")
    person.press("d", "d", "e")


def ranking(person: Person) -> None:
    """A best one, and two that tie."""
    person.press("3", "1", "t", "4")


def rating(person: Person) -> None:
    """One aspect, and a reason."""
    person.press("4", "r")
    person.page.keyboard.type("Orange, not blue, and on the wrong side.")


def binary(person: Person) -> None:
    """As it opens."""


def marks(person: Person) -> None:
    """A box by the mouse, and a word."""
    box = person.page.locator(".board").bounding_box()
    person.page.mouse.move(box["x"] + 0.53 * box["width"], box["y"] + 0.56 * box["height"])
    person.page.mouse.down()
    person.page.mouse.move(box["x"] + 0.86 * box["width"], box["y"] + 0.88 * box["height"], steps=3)
    person.page.mouse.up()
    person.press("w", "ArrowRight", "ArrowRight", "x")


SHOWN: dict[str, tuple[str, Mode, Callable[[Person], None]]] = {
    "pairs-image": ("image", "pairs", pairs),
    "pairs-video": ("video", "pairs", pairs),
    "pairs-scene3d": ("scene3d", "pairs", objects),
    "pairs-audio": ("audio", "pairs", sounds),
    "pairs-speech": ("speech", "pairs", sounds),
    "ranking": ("image", "ranking", ranking),
    "rating": ("image", "rating", rating),
    "binary": ("image", "binary", binary),
    "marks": ("image", "marks", marks),
}


def main() -> None:
    """Write docs/pictures/label-*.png."""
    with browser() as chrome:
        for name in sys.argv[1:] or SHOWN:
            medium, mode, act = SHOWN[name]
            with TemporaryDirectory() as folder:
                side = {"side_px": 256} if medium in ("image", "video") else {}
                each = 4 if mode == "ranking" else 2
                samples = write_samples(Path(folder) / "samples", medium, prompts=12, each=each, **side)
                settings = LabelSettings(
                    mode=mode,
                    group_size=each,
                    aspects=("looks good", "fits the prompt") if mode == "rating" else (),
                )
                out = Path(folder) / "labels.jsonl"
                server = LabelServer(samples, list_samples(samples), out, settings)
                thread = server.start()
                person = Person(chrome.new_page(viewport=SIZE), server.url, "Ann")
                person.open()
                act(person)
                person.page.wait_for_timeout(700)
                person.page.screenshot(path=str(PICTURES / f"label-{name}.png"))
                person.page.close()
                server.stop()
                thread.join()
                server.close()


if __name__ == "__main__":
    main()
