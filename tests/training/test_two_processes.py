"""Two processes on the CPU (gloo) against one: the same global batch gives the same run, and either resumes it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

OPTIONS = " ".join(
    (
        "--train.steps 2 --train.batch-size 4 --train.micro-batch-size 2 --train.checkpoint-every 1 --evaluation.n 6",
        "--evaluation.every 2 --evaluation.glance 4 --sampling.steps 2 --sampling.batch-size 2",
    )
).split()
OWN = ["--method.own.prompts", "3", "--method.own.group-size", "2", "--method.own.pairs-per-prompt", "1"]
ONLINE = ["--method.rollout-steps", "3", "--method.group-size", "2", "--method.updates-per-rollout", "1"]


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node"]
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
ACCELERATE += ["--dynamo_backend", "no", "--main_process_port", "0", "--num_processes"]


def launch(arguments: list[str], *, processes: int, launcher: list[str] | None = None) -> list[str]:
    """A command line of ``mmalign`` for one process or several."""
    several = [] if processes == 1 else [*(launcher or TORCHRUN), str(processes), "-m"]
    return [sys.executable, "-m", *several, "mmalign", *arguments]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def align(
    recipe: str, out: Path, *options: str, processes: int, launcher: list[str] | None = None
) -> dict[str, Any]:
    """Run a recipe; its rows, samples and summary."""
    arguments = [recipe, "--out", str(out), *OPTIONS, *options] if recipe else ["--resume", str(out)]
    done = subprocess.run(
        launch(["align", *arguments], processes=processes, launcher=launcher),
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == str(out)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["processes"] == processes, "the processes did not meet"  # each counted itself
    return {
        "rows": [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()],
        "files": sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")),
        "metadata": (out / "samples/after/metadata.jsonl").read_text(),
        "checkpoints": sorted(path.name for path in (out / "checkpoints").iterdir()),
        "weights": load_file(out / "lora" / "pytorch_lora_weights.safetensors"),
        "summary": {name: summary[name] for name in ("heldout_reward", "train_reward", "denoiser_passes")},
    }


def assert_alike(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Equal but for rounding: pictures are of 8 bits, so a reward may move by a little where a pixel rounds over."""
    assert len(one["rows"]) == len(two["rows"]) == 2
    for mine, theirs in zip(one["rows"], two["rows"], strict=True):
        assert mine.keys() == theirs.keys()
        for name in ("loss", "grad_norm"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-6), name
    assert one["weights"].keys() == two["weights"].keys()
    for name, mine in one["weights"].items():
        torch.testing.assert_close(mine, two["weights"][name], rtol=1e-5, atol=1e-5)
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


def back_to_the_first_checkpoint(out: Path) -> None:
    """As if the run had been killed after it."""
    (out / "summary.json").unlink()
    shutil.rmtree(out / "samples" / "after")
    shutil.rmtree(out / "checkpoints" / "step-000002")


@pytest.mark.slow
def test_a_run_of_two_goes_on_in_one_and_again_in_two(tmp_path: Path) -> None:
    whole = align("image/flow_dpo", tmp_path / "whole", *OWN, processes=1)
    out = tmp_path / "resumed"
    align("image/flow_dpo", out, *OWN, processes=2)
    for processes in (1, 2):
        back_to_the_first_checkpoint(out)
        assert_alike(whole, align("", out, processes=processes))


@pytest.mark.slow
def test_accelerate_starts_two_as_torchrun_does(tmp_path: Path) -> None:
    one = align("image/flow_dpo", tmp_path / "one", *OWN, processes=1)
    assert_alike(one, align("image/flow_dpo", tmp_path / "two", *OWN, processes=2, launcher=ACCELERATE))


@pytest.mark.slow
def test_a_launcher_that_starts_one_for_two_is_refused(tmp_path: Path) -> None:
    """On the CPU, without MPI, accelerate launch starts one process whatever --num_processes says."""
    launcher = ["accelerate.commands.launch", "--cpu", "--num_machines", "1", "--mixed_precision", "no"]
    launcher += ["--dynamo_backend", "no", "--num_processes"]
    command = launch(
        ["align", "image/flow_dpo", "--out", str(tmp_path / "run")], processes=2, launcher=launcher
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode != 0
    assert "accelerate launch was asked for several processes and started one alone" in done.stderr
    assert not (tmp_path / "run").exists()


def child_of_rank(rank: int, parent: int) -> int:
    """The number of a launcher's process."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ppid = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            environ = (path / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if ppid == parent and f"RANK={rank}".encode() in environ:
            return int(path.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_other_within_a_minute_and_the_run_goes_on(
    killed: int, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = [*OPTIONS, *OWN, "--train.checkpoint-every", "2"]
    options[options.index("--train.steps") + 1] = "500"
    options[options.index("--evaluation.every") + 1] = "0"
    command = launch(["align", "image/flow_dpo", "--out", str(out), *options], processes=2)
    metrics = out / "metrics.jsonl"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as job:
        deadline = time.monotonic() + 300
        while not (metrics.exists() and metrics.read_text().count("\n") > 3):
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(child_of_rank(killed, job.pid), signal.SIGKILL)
        begun = time.monotonic()
        _, complaint = job.communicate(timeout=120)
        assert time.monotonic() - begun < 60
    assert job.returncode != 0
    assert f"process {killed} of 2 processes is gone; process {1 - killed} ends too" in complaint
    assert list((out / "checkpoints").glob("step-*")), "the last checkpoint is gone"
