"""Runs recipes cell by cell and keeps one row per finished cell: gain, interval, cost, commit, machine and date.

A cell is (medium, method, reward, seed); one that has a row is not run again, so a stopped matrix goes on. The table of
docs/results.md is written anew from all rows.

    uv run python benchmarks/matrix.py --media image --methods flow_dpo rwr --seeds 0 1
    uv run python benchmarks/matrix.py --media image --rewards placebo --seeds 0     # the control
    uv run python benchmarks/matrix.py --table-only
"""

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from mmalign.training.recipe import load_recipe, recipe_files

ROOT = Path(__file__).resolve().parents[1]
ROWS, PAGE = ROOT / "benchmarks" / "matrix.jsonl", ROOT / "docs" / "results.md"
BEGIN, END = "<!-- matrix: written by benchmarks/matrix.py -->", "<!-- end of matrix -->"
console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which cells."""

    media: tuple[str, ...] = ("image",)
    methods: tuple[str, ...] = ()
    """By default every recipe of the media that runs on an embedded model."""
    seeds: tuple[int, ...] = (0,)
    rewards: tuple[str, ...] = ()
    """In the place of the recipe's own training reward, one after the other; ``placebo`` is the control."""
    again: bool = False
    """Run cells that have a row already, and keep both."""
    keep: Path | None = None
    """Keep the run folders here."""
    table_only: bool = False


@dataclass(frozen=True)
class Cell:
    """One run."""

    recipe: str
    seed: int
    reward: str | None


def cells(settings: Settings) -> Iterator[Cell]:
    """In order: method by method, so that one method's seeds stand together."""
    for name in recipe_files():
        medium, _, method = name.partition("/")
        recipe = load_recipe(name)
        wanted = not settings.methods or method in settings.methods
        if medium in settings.media and wanted and recipe.model.startswith("embedded/"):
            for reward in settings.rewards or (None,):
                if reward == "placebo" and recipe.method.needs_gradient:
                    continue  # a hash has no gradient
                for seed in settings.seeds:
                    yield Cell(name, seed, reward)


def rows() -> list[dict[str, Any]]:
    """All rows so far."""
    return (
        [json.loads(line) for line in ROWS.read_text(encoding="utf-8").split("\n") if line]
        if ROWS.exists()
        else []
    )


def commit() -> str:
    """The short hash, with a mark where the tree has other changes than rows and pages of results."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    changed = git("status", "--porcelain", "--", "mmalign", "recipes", "assets", "reward_models")
    return git("rev-parse", "--short=10", "HEAD").strip() + ("+" if changed.strip() else "")


def bare_pass_ms(model: str) -> float:
    """Milliseconds of one sample's forward through the bare model in a batch of 32, the best of several.

    Of a denoiser one step; of a token model all tokens of a sample in one call.
    """
    code = (
        "import sys, time, torch; from mmalign.adapters.loading import load_adapter\n"
        "a = load_adapter(sys.argv[1]); g = a.generator; c = g.condition(['a'] * 32); best = 1e9\n"
        "if hasattr(g, 'layout'):\n"
        "    x = torch.zeros(32, a.frames, *c.latent_shape, dtype=torch.long); call = lambda: g.logits(x, c)\n"
        "else:\n"
        "    x = torch.zeros(32, *c.latent_shape); t = g.timesteps.at(torch.full((32,), 500))\n"
        "    call = lambda: g.predict(x, t, c)\n"
        "with torch.no_grad():\n"
        "    for _ in range(12):\n"
        "        s = time.perf_counter(); call(); best = min(best, time.perf_counter() - s)\n"
        "print(1000 * best / 32)"
    )
    done = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def run(cell: Cell, keep: Path | None) -> dict[str, Any]:
    """Run a cell in a process of its own; its row."""
    recipe = load_recipe(cell.recipe)
    calibration = bare_pass_ms(recipe.model)
    out = (
        keep or Path(tempfile.mkdtemp())
    ) / f"{cell.recipe.replace('/', '-')}-{cell.reward or 'own'}-{cell.seed}"
    command = [sys.executable, "-m", "mmalign", "align", cell.recipe, "--train.seed", str(cell.seed)]
    command += ["--reward", cell.reward] if cell.reward else []
    started = time.perf_counter()
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {
        **asdict(cell),
        "reward": cell.reward or summary["train_reward"]["name"],
        "model": summary["model"],
        "heldout_reward": {k: v for k, v in summary["heldout_reward"].items() if k != "aspects"},
        "train_reward": summary["train_reward"],
        "guards": summary["guards"],
        "sampling": summary["sampling"],
        "denoiser_passes": summary["denoiser_passes"],
        "wall_s": round(wall, 1),
        "peak_rss_mb": summary["peak_rss_mb"],
        "bare_pass_ms": round(calibration, 3),
        "stopped_early": summary.get("stopped_early"),
        "commit": commit(),
        "machine": f"{os.environ.get('OMP_NUM_THREADS', os.cpu_count())} of {os.cpu_count()} cores, "
        f"{platform.machine()}, torch {summary['versions']['torch']}",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Newest row of every cell, as Markdown."""
    newest: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in found:
        newest[row["recipe"], row["reward"], row["seed"]] = row
    lines = [
        "| recipe | training reward | seed | held-out before | after | gain [95 % interval] | n | training reward |"
        " wall | bare pass | passes | peak | commit | machine | date |",
        "| --- " * 15 + "|",
    ]
    for key in sorted(newest):
        row = newest[key]
        heldout, train = row["heldout_reward"], row["train_reward"]
        low, high = heldout["ci95"]
        early = ", stopped early" if row.get("stopped_early") else ""
        lines.append(
            f"| {row['recipe']} | {row['reward']} | {row['seed']} | {heldout['before']:.3f} | {heldout['after']:.3f} | "
            f"{heldout['gain']:+.3f} [{low:+.3f}, {high:+.3f}]{early} | {heldout['n']} | "
            f"{train['before']:.2f} → {train['after']:.2f} | {row['wall_s'] / 60:.1f} min | "
            f"{row['bare_pass_ms']:.2f} ms | "
            f"{row['denoiser_passes']:,} | {row['peak_rss_mb'] / 1024:.1f} GB | {row['commit']} | {row['machine']} | "
            f"{row['date']} |"
        )
    return "\n".join(lines)


def write_table() -> None:
    """Put the table into docs/results.md."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(rows())}\n\n{END}{after}", encoding="utf-8")


def main(settings: Settings) -> int:
    """Run what is missing, a row each, then write the table."""
    known = {(row["recipe"], row["seed"], row["reward"]) for row in rows()}
    for cell in () if settings.table_only else cells(settings):
        reward = cell.reward or " + ".join(load_recipe(cell.recipe).reward)
        if (cell.recipe, cell.seed, reward) in known and not settings.again:
            continue
        console.print(f"{cell.recipe}, reward {reward}, seed {cell.seed} …")
        row = run(cell, settings.keep)
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        heldout = row["heldout_reward"]
        console.print(
            f"  {heldout['gain']:+.3f} [{heldout['ci95'][0]:+.3f}, {heldout['ci95'][1]:+.3f}], {row['wall_s']:.0f} s"
        )
        write_table()
    write_table()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Settings)))
