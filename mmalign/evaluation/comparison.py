"""Runs side by side: each against its own base, and against the first of them, on the same prompts and seeds."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmalign.data.writers import format_rows
from mmalign.errors import ConfigError, DataError
from mmalign.evaluation.page import Html, escaped, page, paragraph, section, table
from mmalign.evaluation.pairs import spread
from mmalign.evaluation.players import player
from mmalign.evaluation.report import interval_bar
from mmalign.evaluation.run_folder import Run, SamplePair, read_run
from mmalign.evaluation.statistics import Gain, paired_bootstrap
from mmalign.evaluation.verdict import MISSING, duration, number, sign_of, signed
from mmalign.files import whole_file

SHOWN = 12
"""Prompts whose samples the page shows."""


@dataclass(frozen=True)
class Compared:
    """One run among several.

    Args:
        run: its folder.
        recipe: its recipe's name.
        seed: of its training.
        steps: optimiser steps.
        gain: of its held-out reward over its own base.
        difference: of its result to that of the first run, on the samples that both have; None for the first.
        wall_s: how long it took.
        denoiser_passes: what it cost.
    """

    run: str
    recipe: str | None
    seed: int | None
    steps: int | None
    gain: Gain
    difference: Gain | None
    wall_s: float | None
    denoiser_passes: int | None


@dataclass(frozen=True)
class Comparison:
    """Several runs on one held-out reward.

    Args:
        reward: its name.
        higher_is_better: of it.
        runs: in the order given; the first is what the others are compared with.
        samples: of each run the samples that all runs have, in one order.
    """

    reward: str
    higher_is_better: bool
    runs: list[Compared]
    samples: list[list[SamplePair]]


def compare(folders: Sequence[Path]) -> Comparison:
    """Read finished runs and compare them by paired bootstrap over prompts.

    Args:
        folders: of two runs or more.

    Raises:
        ConfigError: fewer than two runs, or runs that were not judged by one held-out reward on common samples.
        DataError: a folder holds no finished run, or one of its files is broken.
    """
    if len(folders) < 2:
        raise ConfigError("expected two runs or more; one alone has its report.html")
    runs = [read_run(folder) for folder in folders]
    rewards = [_reward(run) for run in runs]
    if len(set(rewards)) > 1:
        raise ConfigError(
            f"the runs were judged by {', '.join(sorted(set(rewards)))}; what was measured by one reward is compared"
        )
    scored = [{(pair.prompt, pair.seed): pair for pair in run.pairs if pair.gain is not None} for run in runs]
    common = [key for key in scored[0] if all(key in found for found in scored)]
    if not common:
        raise ConfigError("the runs have no held-out prompt and seed in common; judge them on the same ones")
    samples = [[found[key] for key in common] for found in scored]
    compared = [
        Compared(
            str(run.folder),
            run.summary.get("recipe"),
            run.summary.get("seed"),
            run.summary.get("steps"),
            _gain([pair.before_score for pair in mine], mine),
            None if number == 0 else _gain([pair.after_score for pair in samples[0]], mine),
            run.summary.get("wall_s"),
            run.summary.get("denoiser_passes"),
        )
        for number, (run, mine) in enumerate(zip(runs, samples, strict=True))
    ]
    better = sign_of(runs[0].summary["heldout_reward"]) > 0
    return Comparison(rewards[0], better, compared, samples)


def _reward(run: Run) -> str:
    name = (run.summary.get("heldout_reward") or {}).get("name")
    if name is None:
        raise DataError(
            "no finished run with a held-out reward, so there is nothing to compare", file=run.folder
        )
    return str(name)


def _gain(before: Sequence[float | None], mine: Sequence[SamplePair]) -> Gain:
    first = [float("nan") if value is None else value for value in before]
    after = [float("nan") if pair.after_score is None else pair.after_score for pair in mine]
    return paired_bootstrap(first, after, groups=[pair.prompt for pair in mine])


# --- what is shown ----------------------------------------------------------------------------------------------------


def comparison_values(comparison: Comparison) -> dict[str, Any]:
    """Plain values, for JSON; an interval of one prompt is null."""
    return {
        "reward": comparison.reward,
        "higher_is_better": comparison.higher_is_better,
        "runs": [
            {
                **asdict(run),
                "gain": _plain(run.gain),
                "difference": None if run.difference is None else _plain(run.difference),
            }
            for run in comparison.runs
        ],
    }


def _plain(gain: Gain) -> dict[str, Any]:
    values = asdict(gain)
    values["ci95"] = [bound if bound == bound else None for bound in gain.ci95]
    del values["level"]
    return values


def comparison_table(comparison: Comparison) -> str:
    """Aligned text, one row a run."""
    rows = [
        {
            "run": run.run,
            "seed": run.seed,
            "before": run.gain.before,
            "after": run.gain.after,
            "gain": _interval(run.gain),
            "against the first": None if run.difference is None else _interval(run.difference),
            "n": run.gain.n,
            "minutes": None if run.wall_s is None else f"{run.wall_s / 60:.1f}",
        }
        for run in comparison.runs
    ]
    return format_rows(rows, "table")


def _interval(gain: Gain) -> str:
    low, high = gain.ci95
    return f"{gain.gain:+.3f} [{low:+.3f}, {high:+.3f}]"


def comparison_page(comparison: Comparison) -> str:
    """A self-contained page: numbers, intervals, and the same prompts and seeds of every run beside each other."""
    first = comparison.runs[0].run
    rows = [
        [
            run.run,
            number(run.seed),
            number(run.steps),
            number(run.gain.before),
            number(run.gain.after),
            _said(run.gain),
            MISSING if run.difference is None else _said(run.difference),
            number(run.gain.n),
            duration(run.wall_s),
            number(run.denoiser_passes),
        ]
        for run in comparison.runs
    ]
    head = [
        "run",
        "seed",
        "steps",
        "before",
        "after",
        "gain",
        "against the first",
        "n",
        "wall clock",
        "passes",
    ]
    bars = [
        Html(f"{paragraph(f'{run.run} less {first}')}{_bar(run.difference)}")
        for run in comparison.runs
        if run.difference is not None
    ]
    better = "" if comparison.higher_is_better else " Less is better."
    return page(
        "Runs side by side – mmalign",
        [
            Html("<header>\n<h1>Runs side by side</h1>\n</header>"),
            section(
                f"Held-out {comparison.reward}",
                paragraph(
                    "All on the same prompts and seeds. In brackets the 95% interval of a paired bootstrap over "
                    f"prompts: where it leaves out zero, the difference is no accident of the draw.{better}",
                    "soft",
                ),
                table(head, rows),
            ),
            section(f"Against {first}", *bars),
            section("Samples", *_samples(comparison)),
        ],
    )


def _said(gain: Gain) -> str:
    return f"{signed(gain.gain)} [{signed(gain.ci95[0])}, {signed(gain.ci95[1])}]"


def _bar(gain: Gain) -> Html:
    low, high = gain.ci95
    shown = interval_bar(low, gain.gain, high) if low == low else Html()
    return Html(f'<div class="verdict">{shown}</div>')


def _samples(comparison: Comparison) -> list[Html]:
    names = ["base", *(run.run for run in comparison.runs)]
    shown = []
    for pair in spread(comparison.samples[0], SHOWN):
        place = comparison.samples[0].index(pair)
        sides = [(pair.before, pair.before_score)]
        sides += [(mine[place].after, mine[place].after_score) for mine in comparison.samples]
        media = "".join(
            f"<span>{player(path, f'{name}: {pair.prompt}')}<span>{escaped(name)} {number(score)}</span></span>"
            for name, (path, score) in zip(names, sides, strict=True)
        )
        text = f"{escaped(pair.prompt)} <small>seed {pair.seed}</small>"
        columns = f"grid-template-columns: repeat({len(sides)}, minmax(0, 10rem))"
        shown.append(
            Html(
                f'<figure class="pair" style="max-width: none"><div style="{html.escape(columns)}">{media}</div>'
                f"<figcaption>{text}</figcaption></figure>"
            )
        )
    return shown


def write_comparison(comparison: Comparison, folder: Path) -> Mapping[str, Path]:
    """Write ``comparison.html`` and ``comparison.json``, each whole or not at all."""
    import json

    files = {
        "html": (folder / "comparison.html", comparison_page(comparison)),
        "json": (folder / "comparison.json", json.dumps(comparison_values(comparison), indent=2) + "\n"),
    }
    for path, text in files.values():
        with whole_file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    return {name: path for name, (path, _) in files.items()}
