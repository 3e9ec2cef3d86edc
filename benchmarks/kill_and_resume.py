"""Kills a run with SIGKILL in each of its stages, goes on each time, and compares the end with an unbroken run.

A child runs the recipe; as soon as a stage has begun (its first samples or rows are on disk), it is killed after a
random delay and started again with ``--resume``. At the end, ``metrics.jsonl`` and the rewards of ``summary.json``
must be those of a run that was never touched, bit for bit.

    uv run python benchmarks/kill_and_resume.py                            # the default recipe, about 15 minutes
    uv run python benchmarks/kill_and_resume.py -- --train.steps 8 ...     # with options of the recipe
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tyro.conf import Positional

COMPARED = ("train_reward", "heldout_reward", "guards")
console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured."""

    options: Positional[tuple[str, ...]] = ()
    """Options of the recipe, after ``--``."""
    recipe: str = "image/flow_dpo"
    longest_delay_s: float = 12.0
    seed: int = 0
    work: Path | None = None
    """Keep the two runs here."""


def lines(path: Path) -> int:
    """Rows of a jsonl file, 0 where it is missing."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


STAGES: dict[str, Callable[[Path], bool]] = {
    "held-out samples, before": lambda run: lines(run / "samples/before/metadata.jsonl") > 0,
    "training samples": lambda run: lines(run / "samples/training/metadata.jsonl") > 0,
    "training": lambda run: lines(run / "metrics.jsonl") > 0,
    "training, later": lambda run: lines(run / "metrics.jsonl") > 40,
    "held-out samples, after": lambda run: lines(run / "samples/after/metadata.jsonl") > 0,
}
"""By name: whether the stage has begun."""


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """``mmalign align`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mmalign", "align", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for success."""
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"align failed with {process.returncode}:\n{said}")


def kill_in_every_stage(settings: Settings, run: Path) -> list[str]:
    """Run, kill and resume until the run is whole; what was killed, in order."""
    draw = random.Random(settings.seed)
    arguments = [settings.recipe, "--out", str(run), *settings.options]
    killed: list[str] = []
    for name, begun in STAGES.items():
        process = start(arguments)
        while process.poll() is None and not begun(run):
            time.sleep(0.1)
        time.sleep(draw.uniform(0, settings.longest_delay_s))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed.append(name)
            console.print(f"killed in '{name}', {lines(run / 'metrics.jsonl')} steps done")
        process.communicate()
        arguments = ["--resume", str(run)]
    finish(start(arguments))
    return killed


def results(run: Path) -> dict[str, Any]:
    """What must be equal."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return {
        "metrics.jsonl": (run / "metrics.jsonl").read_bytes(),
        **{name: summary[name] for name in COMPARED},
    }


def main(settings: Settings) -> int:
    """Kill, resume, compare, print; fail on a difference."""
    work = settings.work or Path(tempfile.mkdtemp())
    killed = kill_in_every_stage(settings, work / "killed")
    finish(start([settings.recipe, "--out", str(work / "whole"), *settings.options]))
    first, second = results(work / "killed"), results(work / "whole")
    different = [name for name, value in first.items() if value != second[name]]
    if settings.work is None:
        shutil.rmtree(work)
    print(
        f"{settings.recipe}: killed {len(killed)} times ({'; '.join(killed)}); "
        + (f"different: {', '.join(different)}" if different else "metrics.jsonl and summary.json are equal")
    )
    return 1 if different or len(killed) < len(STAGES) else 0


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Settings)))
