"""A run folder full of markup makes pages that show it as text: no element, address or line of code of its own."""

import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mmalign.evaluation.comparison import compare, comparison_page
from mmalign.evaluation.live import live_page
from mmalign.evaluation.model_card import write_model_card
from mmalign.evaluation.report import write_report
from mmalign.media import Image
from tests.evaluation.conftest import SUMMARY, MakeRun, lines

EVIL = (
    "</script><script>evil()</script><img src=x onerror=evil()> [x](javascript:evil()) "
    "\" ' --> $\\evil$ | `\n```\nevil()"
)
FILE = "<img src=x onerror=evil()>.png"


class Found(HTMLParser):
    """The elements of a page, and every attribute that a browser would follow or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.followed: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name.startswith("on"):
                self.handlers.append(name)
            if name in ("href", "src", "xlink:href", "action", "formaction", "srcdoc", "poster"):
                self.followed.append(value or "")


@pytest.fixture
def evil_run(make_run: MakeRun) -> Path:
    """A run in which everything that can be a text is EVIL."""
    heldout = {**SUMMARY["heldout_reward"], "name": EVIL, "aspects": {EVIL: {"before": 0.1, "after": 0.2}}}
    folder = make_run(
        recipe=EVIL,
        model=f"embedded/{EVIL}",
        method=EVIL,
        pipeline=EVIL,
        train_reward={"name": EVIL, "before": 1.0, "after": 2.0},
        heldout_reward=heldout,
        stopped_early=EVIL,
        sampling={side: {"sampler": EVIL, EVIL: EVIL} for side in ("before", "after")},
        guards={EVIL: {"before": 0.1, "after": 0.2}},
        denoiser_passes={EVIL: 3},
        versions={EVIL: EVIL},
    )
    (folder / "recipe.yaml").write_text(f"name: {json.dumps(EVIL)}\n# {EVIL.splitlines()[0]}\n")
    steps = [{"step": step, "loss": 1.0, EVIL: float(step), "drift": 0.5} for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text(lines(steps))
    (folder / "rounds.jsonl").write_text(
        lines([{"round": 1, "choices": 3, "fraction": 0.5, "labels": EVIL, EVIL: EVIL}])
    )
    for side in ("before", "after"):
        samples = folder / "samples" / side
        (samples / "00000.png").rename(samples / FILE)
        rows = [
            {"file_name": FILE, "prompt": EVIL, "seed": 1, EVIL: EVIL},
            {"file_name": "gone.png", "prompt": EVIL, "seed": 2},
        ]
        (samples / "metadata.jsonl").write_text(lines(rows))
        (samples / "scores.jsonl").write_text(lines([{"file_name": FILE, "reward": EVIL, "score": 0.5}]))
    (folder / "progress.json").write_text(
        json.dumps({"stage": EVIL, "done": 1, "total": 2, "per_s": 1.0, "at": 0.0})
    )
    return folder


def pages(folder: Path) -> dict[str, str]:
    report = write_report(folder).read_text(encoding="utf-8")
    finished = live_page(folder, now=1.0)
    comparison = comparison_page(compare([folder, folder]))
    (folder / "summary.json").unlink()
    return {
        "report": report,
        "live, finished": finished,
        "comparison": comparison,
        "live": live_page(folder, now=1.0),
    }


def test_no_page_has_an_element_or_an_address_of_a_runs_texts(evil_run: Path) -> None:
    for name, text in pages(evil_run).items():
        found = Found(text)
        assert "evil()" in text, f"{name}: the texts are not on it, so this shows nothing"
        assert not found.tags & {"script", "iframe", "object", "embed", "base", "form", "a"}, name
        assert not found.handlers, name
        assert all(address.startswith(("data:", "#")) for address in found.followed), name


def test_a_model_card_is_markdown_without_html_links_or_code_of_a_runs_texts(evil_run: Path) -> None:
    text = write_model_card(evil_run).read_text(encoding="utf-8")
    rest = text.split("---\n", 2)[2]
    assert "evil" in rest
    fences = [line for line in rest.splitlines() if line.startswith("```")]
    assert fences == ["```python", "```"]
    before, code, after = re.split(r"^```(?:python)?\n", rest, flags=re.MULTILINE)
    prose = before + after
    assert not Found(prose).tags
    assert "](javascript:" not in prose.replace("\\](", "")
    calls = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert calls
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "evil"]


def test_a_sample_that_a_link_leads_to_elsewhere_is_not_shown(make_run: MakeRun, tmp_path: Path) -> None:
    from mmalign.errors import DataError

    folder = make_run()
    secret = tmp_path / "secret.png"
    Image.load(folder / "samples" / "after" / "00000.png").save(secret)
    (folder / "samples" / "after" / "00000.png").unlink()
    (folder / "samples" / "after" / "00000.png").symlink_to(secret)
    with pytest.raises(DataError, match="lies outside this folder"):
        write_report(folder)
