"""Reading a run: what is missing stays missing, and what is broken is named with its place."""

import json
from pathlib import Path

import pytest

from mmalign.errors import DataError
from mmalign.evaluation.run_folder import read_run
from tests.evaluation.conftest import PROMPTS, MakeRun


def test_samples_pair_by_prompt_and_seed_whatever_their_order(make_run: MakeRun) -> None:
    folder = make_run()
    after = folder / "samples" / "after" / "metadata.jsonl"
    after.write_text("".join(reversed(after.read_text("utf-8").splitlines(keepends=True))), encoding="utf-8")
    run = read_run(folder)
    assert [pair.prompt for pair in run.pairs] == list(PROMPTS)
    assert [(pair.before.name, pair.after.name) for pair in run.pairs] == [
        (f"{i:05d}.png",) * 2 for i in range(3)
    ]
    assert [pair.gain for pair in run.pairs] == [0.5, -0.5, None], (
        "a missing score gives no gain, not a gain from 0"
    )
    assert (run.unpaired, run.weights) == (0, "diffusers")


def test_a_sample_without_partner_is_counted(make_run: MakeRun) -> None:
    folder = make_run()
    after = folder / "samples" / "after" / "metadata.jsonl"
    rows = [json.loads(line) for line in after.read_text("utf-8").splitlines()]
    rows[0]["seed"] += 1
    after.write_text("\n".join(map(json.dumps, rows)) + "\n")
    run = read_run(folder)
    assert (len(run.pairs), run.unpaired) == (2, 2)


def test_scores_of_another_reward_are_not_taken_for_the_held_out_one(make_run: MakeRun) -> None:
    folder = make_run()
    scores = folder / "samples" / "after" / "scores.jsonl"
    other = scores.read_text().replace("shapes-truth", "placebo").replace("0.75", "99.0")
    scores.write_text(scores.read_text() + other)
    assert read_run(folder).pairs[0].after_score == 0.75


def test_only_a_last_line_that_was_cut_off_is_passed_over(make_run: MakeRun) -> None:
    folder = make_run()
    metrics = folder / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole + '{"step": 41, "lo')
    assert len(read_run(folder).metrics) == 40
    metrics.write_text('{"step": 0, "lo\n' + whole)
    with pytest.raises(DataError, match=r"metrics\.jsonl, row 1: not JSON"):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("summary.json", "{", r"summary\.json: not JSON"),
        ("summary.json", "[1]", r"summary\.json: expected one JSON object"),
        ("samples/after/metadata.jsonl", '{"file_name": "a.png", "seed": 1}\n', r"row 1: no field 'prompt'"),
        (
            "samples/after/metadata.jsonl",
            '{"file_name": "../../summary.json", "prompt": "a", "seed": 1}\n',
            "outside this folder",
        ),
    ],
)
def test_a_broken_file_is_named(make_run: MakeRun, name: str, text: str, message: str) -> None:
    folder = make_run()
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_run(folder)


def test_a_file_that_is_not_utf8_is_named(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "recipe.yaml").write_bytes(b"prompt: caf\xe9\n")
    with pytest.raises(DataError, match=r"recipe\.yaml: not UTF-8"):
        read_run(folder)


def test_some_other_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"not a run folder: it has none of recipe\.yaml, summary\.json, metrics"
    ):
        read_run(tmp_path)
