"""The page of a running alignment: how far, how fast, how long, and the same prompt over the steps."""

import json
import shutil
from pathlib import Path

import pytest

from mmalign.evaluation.live import QUIET_S, live_page, progress_box
from tests.evaluation.conftest import MakeRun


@pytest.fixture
def running(make_run: MakeRun) -> Path:
    """A run that is not finished, with glances after steps 20 and 40, and one of a step that was cut off again."""
    folder = make_run()
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "samples" / "after")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows[19] |= {"drift": 0.5, "sharpness": 0.25}
    rows[39] |= {"drift": 1.5, "sharpness": 0.125}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (20, 40, 60):
        shutil.copytree(folder / "samples" / "before", folder / "samples" / "glances" / f"step-{step:06d}")
    tell(folder, done=30, total=40, per_s=0.5, at=1_000.0)
    return folder


def tell(folder: Path, **said: float) -> None:
    (folder / "progress.json").write_text(json.dumps({"stage": "training", **said}))


def test_how_far_how_fast_and_how_long(running: Path) -> None:
    text = progress_box(running, now=1_001.0)
    assert "Training: 30 of 40, 0.500 a second, about 20.0 s left of this stage." in text
    assert "Nothing was heard" not in text
    assert 'width="360.0"' in text  # three quarters of the bar
    assert "Nothing was heard of it for 2 min 10 s" in progress_box(running, now=1_000.0 + QUIET_S + 10)


def test_guards_and_samples_follow_the_glances(running: Path) -> None:
    page = live_page(running, now=1_001.0)
    assert '<meta http-equiv="refresh" content="5">' in page
    assert "<td>0.250</td><td>0.125</td>" in page
    assert page.count("<img") == 3 * 3  # three prompts: the base, and two glances that the metrics know
    assert "step 60" not in page
    assert "<script" not in page


def test_a_finished_run_is_shown_and_asked_for_no_more(make_run: MakeRun) -> None:
    page = live_page(make_run())
    assert 'http-equiv="refresh"' not in page
    assert "Better:" in page


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: image/d3po\n")
    assert "has not said yet" in live_page(tmp_path)
