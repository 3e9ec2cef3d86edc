"""Do the published orderings of methods hold here? Runs both sides over several seeds and gives each an interval.

Both sides of a claim draw the same held-out prompts from the same seeds, so samples are compared one by one; the
interval is a bootstrap over prompts, with all seeds of a prompt together. A side whose run folder is there is not run
again; ``benchmarks/matrix.py --keep`` writes folders of the same names.

    uv run python benchmarks/claims.py --keep runs/claims --seeds 0 1 2
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from mmalign.evaluation.statistics import paired_bootstrap

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- claims: written by benchmarks/claims.py -->", "<!-- end of claims -->"
console = Console(stderr=True)


@dataclass(frozen=True)
class Side:
    """One side of a claim: a recipe, with options and what its run folders are called for them."""

    name: str
    recipe: str
    options: tuple[str, ...] = ()
    key: str = "own"
    before: bool = False
    """The base model as that recipe samples it, in the place of what it trained."""

    def folder(self, keep: Path, seed: int) -> Path:
        """Its run of one seed."""
        return keep / f"{self.recipe.replace('/', '-')}-{self.key}-{seed}"


DPO = Side("Flow-DPO", "image/flow_dpo")
RWR = Side("Flow-RWR", "image/rwr")
SUPERVISED = Side("supervised on the best", "image/rwr", ("--method.weighting", "best"), "best")
# The rewards themselves, on the model, samples and steps that D3PO has only their order of.
DDPO = Side(
    "DDPO, given the reward",
    "image/flow_grpo",
    (
        *("--model", "embedded/shapes-diffusion", "--sampling.max-sequence-length", "None"),
        *("--method.group-size", "2", "--train.batch-size", "32", "--train.micro-batch-size", "32"),
        *("--train.learning-rate", "1e-3"),
    ),
    "ddpo",
)
# Of 50 steps each, so fewer samples to learn from.
TWO_STEPS = (
    *("--method.student-steps", "2", "--sampling.steps", "50", "--method.own.prompts", "200"),
    *("--evaluation.every", "0"),
)
CLAIMS = (
    (DPO, RWR, "Liu et al. 2025, Flow-DPO above Flow-RWR"),
    (RWR, SUPERVISED, "Liu et al. 2025, Flow-RWR above supervised fine-tuning on the chosen"),
    (
        Side("Diffusion-DRO", "image/dro"),
        Side("Diffusion-DPO", "image/diffusion_dpo"),
        "Wu et al. 2025, Diffusion-DRO above Diffusion-DPO on unseen prompts",
    ),
    (
        Side("D3PO, from comparisons", "image/d3po"),
        DDPO,
        "Yang et al. 2023, D3PO level with the method that is given the reward",
    ),
    (
        Side("student of 2 steps", "image/reward_distillation", TWO_STEPS, "2-of-50"),
        Side("teacher of 50 steps", "image/reward_distillation", TWO_STEPS, "2-of-50", before=True),
        "Li et al. 2024, a 2-step student above its 50-step teacher",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is compared."""

    keep: Path
    """The run folders."""
    seeds: tuple[int, ...] = (0, 1, 2)
    only: tuple[str, ...] = ()
    """Recipes, such as image/rwr: claims that need no other."""
    run: bool = True
    """Run what is missing; otherwise leave claims out whose runs are not there."""


def ensure(side: Side, keep: Path, seed: int) -> None:
    """Its finished run, made where it is missing and taken up where it was stopped."""
    folder = side.folder(keep, seed)
    if (folder / "summary.json").exists():
        return
    console.print(f"{side.name}, seed {seed} …")
    new = [side.recipe, "--train.seed", str(seed), *side.options, "--out", str(folder)]
    arguments = ["--resume", str(folder)] if folder.exists() else new
    done = subprocess.run([sys.executable, "-m", "mmalign", "align", *arguments], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def scores(side: Side, keep: Path, seeds: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    """Held-out rewards of all seeds, one after the other, and their prompts."""
    values, prompts = [], []
    for seed in seeds:
        path = side.folder(keep, seed) / "samples" / ("before" if side.before else "after") / "scores.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        values += [np.nan if row["score"] is None else row["score"] for row in rows]
        prompts += [row["prompt"] for row in rows]
    return np.array(values), prompts


def compare(first: Side, second: Side, claim: str, settings: Settings) -> str:
    """A row of the table."""
    after, prompts = scores(first, settings.keep, settings.seeds)
    base, base_prompts = scores(second, settings.keep, settings.seeds)
    if prompts != base_prompts:
        raise SystemExit(f"{first.name} and {second.name} were judged on different prompts")
    found = paired_bootstrap(base, after, groups=prompts)
    low, high = found.ci95
    verdict = "first above" if low > 0 else "first below" if high < 0 else "level"
    return (
        f"| {claim} | {first.name} {found.after:.3f} | {second.name} {found.before:.3f} | {found.gain:+.3f} "
        f"[{low:+.3f}, {high:+.3f}] | {len(settings.seeds)} | {found.n} | {verdict} |"
    )


def main(settings: Settings) -> int:
    """Run what is missing and write the table into docs/results.md."""
    lines = ["| claim | first | second | difference [95 %] | seeds | n | here |", "| --- " * 7 + "|"]
    for first, second, claim in CLAIMS:
        if settings.only and not {first.recipe, second.recipe} <= set(settings.only):
            continue
        sides = (first, second)
        if settings.run:
            for seed in settings.seeds:
                for side in sides:
                    ensure(side, settings.keep, seed)
        there = [
            (side.folder(settings.keep, seed) / "summary.json").exists()
            for side in sides
            for seed in settings.seeds
        ]
        if all(there):
            lines.append(compare(first, second, claim, settings))
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")
    sys.stdout.write(table + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
