"""Two processes on the CPU (gloo) against one: the same global batch gives the same run, and either resumes it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

OPTIONS = " ".join(
    (
        "--train.steps 2 --train.batch-size 4 --train.micro-batch-size 2 --train.checkpoint-every 1 --evaluation.n 6",
        "--evaluation.every 2 --evaluation.glance 4 --sampling.steps 2 --sampling.batch-size 2",
    )
).split()
OWN = ["--method.own.prompts", "3", "--method.own.group-size", "2", "--method.own.pairs-per-prompt", "1"]
ONLINE = ["--method.rollout-steps", "3", "--method.group-size", "2", "--method.updates-per-rollout", "1"]


def align(recipe: str, out: Path, *options: str, processes: int) -> dict[str, Any]:
    """Run a recipe; its rows, samples and summary."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m"]
    arguments = [recipe, "--out", str(out), *OPTIONS, *options] if recipe else ["--resume", str(out)]
    done = subprocess.run(
        [*command, "mmalign", "align", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == str(out)
    summary = json.loads((out / "summary.json").read_text())
    return {
        "rows": [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()],
        "files": sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")),
        "metadata": (out / "samples/after/metadata.jsonl").read_text(),
        "checkpoints": sorted(path.name for path in (out / "checkpoints").iterdir()),
        "summary": {name: summary[name] for name in ("heldout_reward", "train_reward", "denoiser_passes")},
    }


def assert_alike(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Equal but for rounding: pictures are of 8 bits, so a reward may move by a little where a pixel rounds over."""
    assert len(one["rows"]) == len(two["rows"]) == 2
    for mine, theirs in zip(one["rows"], two["rows"], strict=True):
        assert mine.keys() == theirs.keys()
        for name in ("loss", "grad_norm"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-6), name
    for name in ("files", "metadata", "checkpoints"):
        assert one[name] == two[name]
    assert one["summary"]["denoiser_passes"] == two["summary"]["denoiser_passes"]
    for name in ("before", "after", "gain"):
        mine, theirs = (run["summary"]["heldout_reward"][name] for run in (one, two))
        assert mine == pytest.approx(theirs, abs=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "options"), [("image/flow_dpo", OWN), ("image/flow_grpo", ONLINE)])
def test_two_processes_are_one(recipe: str, options: list[str], tmp_path: Path) -> None:
    one = align(recipe, tmp_path / "one", *options, processes=1)
    two = align(recipe, tmp_path / "two", *options, processes=2)
    assert_alike(one, two)


@pytest.mark.slow
def test_a_run_of_two_goes_on_in_one(tmp_path: Path) -> None:
    whole = align("image/flow_dpo", tmp_path / "whole", *OWN, processes=1)
    out = tmp_path / "resumed"
    align("image/flow_dpo", out, *OWN, processes=2)
    # As if it had been killed after its first checkpoint.
    (out / "summary.json").unlink()
    for path in (out / "samples" / "after").iterdir():
        path.unlink()
    import shutil

    shutil.rmtree(out / "checkpoints" / "step-000002")
    assert_alike(whole, align("", out, processes=1))
