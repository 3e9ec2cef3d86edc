"""Runs side by side: paired on common prompts and seeds, by hand on three samples; refused where nothing is common."""

import json
import shutil
from pathlib import Path

import pytest

from mmalign.cli.main import main
from mmalign.errors import ConfigError, DataError
from mmalign.evaluation.comparison import compare, comparison_page, comparison_table, comparison_values
from tests.evaluation.conftest import SUMMARY, MakeRun, lines


@pytest.fixture
def two(make_run: MakeRun, tmp_path: Path) -> list[Path]:
    """A run, and one whose first sample is 0.1 better and whose second 0.3 better; the third has no score before."""
    first = make_run()
    second = tmp_path / "runs" / "other"
    shutil.copytree(first, second)
    names = [f"{i:05d}.png" for i in range(3)]
    rows = [
        {"file_name": n, "reward": "shapes-truth", "score": s}
        for n, s in zip(names, [0.85, 0.675, 0.1], strict=True)
    ]
    (second / "samples" / "after" / "scores.jsonl").write_text(lines(rows))
    return [first, second]


def test_differences_are_paired_over_common_samples(two: list[Path]) -> None:
    found = compare(two)
    one, other = found.runs
    assert (one.gain.n, one.gain.before, one.gain.after) == (2, 0.5625, 0.5625)
    assert one.difference is None
    assert other.difference is not None
    assert other.difference.gain == pytest.approx(0.2)  # of 0.1 and 0.3
    assert other.difference.ci95 == pytest.approx((0.1, 0.3))  # both prompts the one, or both the other
    assert other.gain.gain == pytest.approx(0.2)  # and the first run's gain is 0
    text = comparison_table(found)
    assert "+0.200 [+0.100, +0.300]" in text.splitlines()[2]
    values = comparison_values(found)
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_the_page_holds_all_that_it_shows(two: list[Path]) -> None:
    text = comparison_page(compare(two))
    assert text.count("<img") == 2 * 3  # two scored prompts; base and both runs
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "<script" not in text
    assert "a small red circle on the left" in text


def test_the_command_prints_and_writes(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, two), "--out", str(tmp_path / "out"), "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (tmp_path / "out" / "comparison.html").is_file()


def test_runs_without_anything_in_common_are_refused(two: list[Path]) -> None:
    with pytest.raises(ConfigError, match="two runs or more"):
        compare(two[:1])
    metadata = two[1] / "samples" / "before" / "metadata.jsonl"
    kept = metadata.read_text()
    metadata.write_text(kept.replace('"seed": 10', '"seed": 20'))
    with pytest.raises(ConfigError, match="no held-out prompt and seed in common"):
        compare(two)
    metadata.write_text(kept)
    summary = two[1] / "summary.json"
    summary.write_text(json.dumps({**SUMMARY, "heldout_reward": {"name": "other-v1"}}))
    with pytest.raises(ConfigError, match="judged by other-v1, shapes-truth"):
        compare(two)
    summary.unlink()
    with pytest.raises(DataError, match="no finished run"):
        compare(two)
