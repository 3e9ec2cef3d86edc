"""``mmalign align`` as a shell sees it: what it refuses, in which words, and that nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml

from mmalign.cli import align
from mmalign.cli.main import main
from mmalign.media import Image

NAME = "image/flow_dpo"
_OPTIONS = (
    "--train.steps 2 --train.batch-size 2 --train.micro-batch-size 2 --train.checkpoint-every 1 --evaluation.n 4",
    "--evaluation.every 0 --sampling.steps 1 --method.own.prompts 2 --method.own.group-size 2",
    "--method.own.pairs-per-prompt 1",
)
SMALL = " ".join(_OPTIONS).split()


def small(options: Sequence[str]) -> list[str]:
    """A small run with these options, each of them once, and none that they leave without effect."""
    given = {item for item in options if item.startswith("--")}
    left: list[str] = []
    for name, value in zip(SMALL[::2], SMALL[1::2], strict=True):
        if name not in given and not ("--preferences" in given and name.startswith("--method.own")):
            left += [name, value]
    return [*left, *options]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of wrong usage, a single line, with exit status 2."""
    assert main(["align", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    said = [line for line in captured.err.splitlines() if line.startswith("mmalign: ")]
    assert len(said) == 1
    return said[0]


def test_an_unknown_recipe_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'image/flow_dpo'" in refused(["image/flow_dop"], capsys)


def test_an_unknown_field_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        align.main([NAME, "--train.step", "3"])
    assert caught.value.code == 2
    assert "--train.steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--reward embedded/shapes-clp", "Did you mean 'embedded/shapes-clip'"),
        ("--reward shapes-truth", "heldout_reward 'shapes-truth' is also trained on"),
        ("--model embedded/shapes-flw", "Did you mean 'embedded/shapes-flow'"),
        ("--model {here}", "not a diffusers pipeline that can be loaded here"),
        ("--prompts {here}/nothing.txt", "nothing.txt: cannot be read (No such file or directory)"),
        ("--prompts {here}/latin.txt", "latin.txt, row 2: not UTF-8"),
        ("--heldout-prompts embedded/shapes-helout", "Did you mean 'embedded/shapes-heldout'"),
        ("--preferences {here}/nothing.jsonl", "nothing.jsonl: cannot be read"),
        ("--preferences {here}/no-picture.jsonl", "no-picture.jsonl, row 2, column 'rejected'"),
        ("--preferences {here}/torn.jsonl", "not a readable picture"),
        ("--train.batch-size 4 --train.micro-batch-size 8", "micro_batch_size = 8 is more than"),
        ("--method.beta 0", "method.beta = 0.0: expected a positive number"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, run = tmp_path / "input", tmp_path / "run"
    here.mkdir()
    for name in ("a.png", "b.png"):
        Image(torch.full((3, 64, 64), 0.5)).save(here / name)
    (here / "half.png").write_bytes((here / "a.png").read_bytes()[:60])
    (here / "latin.txt").write_bytes("a circle\nein Stück\n".encode("latin-1"))
    good = {"prompt": "a", "chosen": "a.png", "rejected": "b.png"}
    for name, other in (("no-picture", "c.png"), ("torn", "half.png")):
        rows = [good, {**good, "rejected": other}]
        (here / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [NAME, "--out", str(run), *small(options.format(here=here).split())]
    assert message in refused(arguments, capsys)
    assert not run.exists()


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert f"continue it with --resume {tmp_path}" in refused([NAME, "--out", str(tmp_path)], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_only_a_run_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no recipe.yaml here" in refused(["--resume", str(tmp_path)], capsys)
    assert "a run keeps its own recipe" in refused(["--resume", str(tmp_path), "--train.steps", "9"], capsys)


def test_a_dry_run_says_what_it_would_cost_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert align.main([NAME, "--dry-run", "--train.steps", "3", "--out", str(run)]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert values["train"]["steps"] == 3
    passes, batch = values["estimate"]["denoiser_passes"], values["train"]["batch_size"]
    assert passes["training, forward and backward"] == passes["training, forward only"] == 3 * 2 * batch
    assert all(megabytes > 0 for megabytes in values["estimate"]["memory_mb"].values())
    assert not run.exists()


def test_the_users_own_pairs_need_no_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recipe of one's own in YAML, with one's own pairs, and nothing to judge it by."""
    random = torch.Generator().manual_seed(0)
    rows = []
    for i in range(3):
        for side in ("chosen", "rejected"):
            Image(torch.rand(3, 64, 64, generator=random)).save(tmp_path / f"{i}-{side}.png")
        rows.append({"prompt": f"picture {i}", "chosen": f"{i}-chosen.png", "rejected": f"{i}-rejected.png"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": "image/mine",
        "model": "embedded/shapes-flow",
        "preferences": str(tmp_path / "pairs.jsonl"),
        "method": {"name": "flow_dpo"},
        "train": {"steps": 2, "batch_size": 2, "micro_batch_size": 2},
        "sampling": {"steps": 1, "guidance": 1.0, "max_sequence_length": 24},
        "evaluation": {"n": 2},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    assert main(["align", str(tmp_path / "mine.yaml"), "--out", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(run)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["heldout_reward"] is None
    assert summary["train_reward"] is None
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "mmalign", "align", NAME, "--out", str(run), *SMALL]
    command[command.index("--train.steps") + 1] = "500"
    metrics = run / "metrics.jsonl"
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (metrics.exists() and metrics.read_text().count("\n") > 2):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert f"go on with: mmalign align --resume {run}" in err
    steps = metrics.read_text().count("\n")
    assert (run / "checkpoints" / f"step-{steps:06d}").is_dir()


def test_help_answers_before_anything_heavy_is_imported() -> None:
    script = """
import sys
from mmalign.cli.main import main
try:
    main(["align", "image/flow_dpo", "--help"])
finally:
    heavy = {"torch", "numpy", "transformers", "diffusers"} & set(sys.modules)
    assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    assert "--method.beta" in done.stdout
