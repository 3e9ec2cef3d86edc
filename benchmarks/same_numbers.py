"""Runs every recipe of an embedded model, shortened, and compares each number with those of another checkout.

A change that is meant to move no number is shown to move none: ``metrics.jsonl`` and the rewards and guards of
``summary.json`` are equal to the last bit, on the same machine with the same number of threads.

    uv run python benchmarks/same_numbers.py before/        # in a checkout of the commit before
    uv run python benchmarks/same_numbers.py after/ --against before/
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tyro.conf import Positional

from mmalign.training.recipe import Recipe, load_recipe, recipe_files

COMPARED = ("train_reward", "heldout_reward", "guards", "denoiser_passes")
"""Fields of ``summary.json``."""
ROWS, GROUP = 8, 4
console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run and compared."""

    out: Positional[Path]
    """Run folders, <modality>-<method> each; one that is finished is not run again."""
    against: Path | None = None
    """Where another checkout's runs are."""
    recipes: tuple[str, ...] = ()
    """By default all whose model is embedded."""
    steps: int = 20


def options(recipe: Recipe, *, steps: int) -> list[str]:
    """Options that make a recipe short, of those that it has."""
    values: dict[str, object] = {
        "train.steps": steps,
        "train.batch-size": ROWS,
        "train.micro-batch-size": GROUP,
        "train.checkpoint-every": steps,
        "evaluation.n": ROWS,
        "evaluation.every": steps // 2,
        "evaluation.glance": GROUP,
    }
    if recipe.sampling.steps is not None:
        values["sampling.steps"] = 4
    smaller = {"rollout_steps": 4, "calibration": GROUP, "last_steps": 1, "teacher_steps": steps // 2}
    for name, value in smaller.items():
        if hasattr(recipe.method, name):
            values[f"method.{name.replace('_', '-')}"] = value
    if getattr(recipe.method, "group_size", 1) > GROUP:
        values["method.group-size"] = GROUP
    if hasattr(recipe.method, "own"):
        values |= {"method.own.prompts": ROWS, "method.own.group-size": GROUP}
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def numbers(run: Path) -> dict[str, Any]:
    """What is compared of a run: every row of metrics, and the measured part of the summary."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    rows = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").split("\n") if line
    ]
    return {"metrics": rows, **{name: summary[name] for name in COMPARED}}


def differences(mine: Any, theirs: Any, place: str = "") -> list[str]:
    """Where two values differ, with both."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        keys = sorted(mine.keys() | theirs.keys())
        return [
            line for key in keys for line in differences(mine.get(key), theirs.get(key), f"{place}/{key}")
        ]
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        pairs = enumerate(zip(mine, theirs, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{place}/{i}")]
    return [] if mine == theirs else [f"{place}: {theirs} -> {mine}"]


def main(settings: Settings) -> int:
    """Run and compare; 1 where a run failed or a number differs."""
    names = settings.recipes or tuple(
        name for name in recipe_files() if load_recipe(name).model.startswith("embedded/")
    )
    assert names, "no recipe was found"
    different = 0
    for name in names:
        run = settings.out / name.replace("/", "-")
        if not (run / "summary.json").exists():
            command = ["align", name, "--out", str(run), *options(load_recipe(name), steps=settings.steps)]
            done = subprocess.run(
                [sys.executable, "-m", "mmalign", *command], capture_output=True, text=True, check=False
            )
            if done.returncode:
                different += 1
                console.print(f"{name}: failed\n{done.stderr[-1500:]}", markup=False)
                continue
        if settings.against is None:
            console.print(f"{name}: run", markup=False)
            continue
        found = differences(numbers(run), numbers(settings.against / run.name))
        different += bool(found)
        console.print(
            f"{name}: {'the same' if not found else '; '.join(found[:5])}", markup=False, soft_wrap=True
        )
    console.print(f"{len(names) - different} of {len(names)} recipes")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
