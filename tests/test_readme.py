"""The README's commands and code, run as they stand, the long one at a few steps."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = shlex.split(
    "--train.steps 2 --train.batch-size 2 --train.micro-batch-size 2 --evaluation.n 4 --evaluation.every 0 "
    "--sampling.steps 2 --method.own.prompts 2"
)


def commands() -> list[str]:
    """Each ``uv run mmalign`` of the README on one line."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    return re.findall(r"uv run (mmalign [^\n&|]+)", text)


def run(command: str, folder: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    assert program == "mmalign"
    return subprocess.run(
        [sys.executable, "-m", "mmalign", *arguments, *extra],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_are_commands_to_test() -> None:
    names = [command.split()[1] for command in commands()]
    assert names == ["align", "align", "generate", "score"]
    assert "uv run pytest" in README


def test_the_first_command_aligns(tmp_path: Path) -> None:
    done = run(commands()[0], tmp_path, *QUICK)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / done.stdout.splitlines()[-1] / "report.html").is_file()


def test_pictures_are_drawn_and_scored(tmp_path: Path) -> None:
    drawn = run(commands()[2].replace("--steps 16", "--steps 2"), tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    scored = run(commands()[3], tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert len(scored.stdout.splitlines()) == 1 + 4 * 2


def test_ones_own_model_and_pairs(tmp_path: Path) -> None:
    """The command with a model folder and pairs that this test makes: another pipeline than the recipe's."""
    import json

    import torch

    from mmalign.media import Image
    from tests.generators.small_pipelines import stable_diffusion_3

    stable_diffusion_3().save_pretrained(tmp_path / "model")
    rows = []
    for i in range(2):
        for side in ("chosen", "rejected"):
            Image(torch.rand(3, 16, 16)).save(tmp_path / f"{i}-{side}.png")
        rows.append({"prompt": f"picture {i}", "chosen": f"{i}-chosen.png", "rejected": f"{i}-rejected.png"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = commands()[1].replace("pairs.parquet", "pairs.jsonl")
    command = re.sub(r"--model \S+", "--model model", command)
    done = run(command, tmp_path, *QUICK[:-2], "--sampling.height", "16", "--sampling.width", "16")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / done.stdout.splitlines()[-1] / "lora" / "pytorch_lora_weights.safetensors").is_file()


def test_the_python_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "tensor(" in done.stdout


@pytest.mark.slow
def test_the_first_command_as_it_stands(tmp_path: Path) -> None:
    import json

    done = run(commands()[0], tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / done.stdout.splitlines()[-1] / "summary.json").read_text())
    assert summary["heldout_reward"]["ci95"][0] > 0.02
    assert summary["heldout_reward"]["n"] >= 512
