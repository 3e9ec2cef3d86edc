"""``mmalign reward overoptimise``: how far a proxy reward can be pushed before the true one falls."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional, UseAppendAction

from mmalign.errors import ConfigError
from mmalign.ranges import COUNT, SEED, check_ranges

if TYPE_CHECKING:
    from mmalign.evaluation.proxy_report import ScoredSamples
    from mmalign.media import SampleFile
    from mmalign.rewards.base import Reward

PICTURES = (".pdf", ".png", ".svg")


@dataclass(frozen=True, kw_only=True, slots=True)
class OveroptimiseCommand:
    """A proxy reward against a true one as the proxy is optimised, and what the proxy goes by.

    Of several samples of each prompt: the best of 1, 2, 4, ... by the proxy, scored by both, with the published law and
    its bootstrap band; the accuracy of the proxy inside prompts; how far it tells samples of a prompt apart; how it
    follows size, length and looks; whether it tells prompts apart that nearly say the same. With --run, the same curves
    along training. All intervals are 95 % over prompts, or over runs.
    """

    samples: Positional[Path]
    """A folder with metadata.jsonl, or a table (media, prompt): several samples of each prompt, such as
    `mmalign generate --n 16` writes."""
    proxy: str
    """The reward that is optimised: a name or a folder."""
    true: str
    """The reward that counts."""
    out: Path
    """The JSON file."""
    picture: Path | None = None
    """The curves with their laws and bands, as png, svg or pdf; by default OUT with .png."""
    run: Annotated[UseAppendAction[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")] = ()
    """A run folder, once or more (then with intervals over runs): of one recipe that trained on the proxy, was judged
    by the true reward, and glanced at both (`--evaluation.every`)."""
    implicit: bool = False
    """Score the samples with the first run's LoRA too, by how much likelier it made them, and compare."""
    shifted: Path | None = None
    """Samples of other prompts or of another generator, as SAMPLES: how far the proxy's accuracy falls there."""
    root: Path | None = None
    """Where relative paths of media start; by default the table's folder."""
    batch_size: Annotated[int, COUNT] = 32
    resamples: Annotated[int, COUNT] = 1_000
    """Of the intervals."""
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_ranges(self, place="--")
        if self.out.suffix.lower() != ".json":
            raise ConfigError(f"--out {self.out}: the report is JSON; name it {self.out.stem}.json")
        if self.drawn.suffix.lower() not in PICTURES:
            raise ConfigError(f"--picture {self.picture}: expected {', '.join(PICTURES)}")
        if self.proxy == self.true:
            raise ConfigError(f"--proxy and --true are both {self.proxy}; they have to differ")
        if self.implicit and not self.run:
            raise ConfigError("--implicit scores with a run's LoRA: add --run RUN")

    @property
    def drawn(self) -> Path:
        """Where the picture goes."""
        return self.out.with_suffix(".png") if self.picture is None else self.picture


def overoptimise(command: OveroptimiseCommand) -> int:
    """Score, fit, write, draw.

    Raises:
        MmalignError: wrong usage, or samples that say nothing; nothing was written.
    """
    import torch
    from rich.console import Console

    from mmalign.evaluation.overoptimisation_picture import draw_curves
    from mmalign.evaluation.proxy_report import (
        accuracy_drop,
        best_of_n_curves,
        biases,
        contrasts,
        curve_values,
        plain,
        variances,
        within_prompt_accuracy,
    )
    from mmalign.files import whole_file
    from mmalign.rewards.cards import load_reward

    device = "cuda" if torch.cuda.is_available() else "cpu"
    proxy, gold = (load_reward(name, device=device) for name in (command.proxy, command.true))
    scored = _scored(command, command.samples, proxy, gold)
    options: dict[str, Any] = {"resamples": command.resamples, "seed": command.seed}
    counts, proxy_curve, true_curve = best_of_n_curves(scored, **options)
    panels = [
        (
            "best of n by the proxy",
            "distance, sqrt(KL in nats)",
            proxy_curve,
            true_curve,
            [f"n = {n}" for n in counts],
        )
    ]
    report: dict[str, Any] = {
        "proxy": command.proxy,
        "true": command.true,
        "samples": sum(map(len, scored.media)),
        "failed": len(scored.failed),
        "prompts": len(scored.prompts),
        "best_of_n": {
            "n": counts,
            "proxy": curve_values(proxy_curve),
            "true": curve_values(true_curve),
            "gap_in_stds": [plain(v) for v in (proxy_curve.reward - true_curve.reward).tolist()],
        },
        "training": None,
        "accuracy": within_prompt_accuracy(scored, **options),
        "reward_variance": variances(scored),
        "bias": biases(scored, **options),
        "contrast": contrasts(scored, proxy, gold, batch_size=command.batch_size, **options),
        "shift": None,
        "implicit": None,
    }
    if command.shifted is not None:
        far = _scored(command, command.shifted, proxy, gold)
        report["shift"] = accuracy_drop(scored, far, **options)
    if command.run:
        report["training"], panel = _training(command, proxy, gold)
        panels.append(panel)
    if command.implicit:
        report["implicit"] = _implicit(command, scored)
    with whole_file(command.out) as unfinished:
        unfinished.write_text(json.dumps(report, allow_nan=False, indent=1) + "\n", encoding="utf-8")
    draw_curves(command.drawn, panels, names=(command.proxy, command.true))
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    for reason in scored.failed[:5]:
        say(reason, style="yellow", markup=False)
    for line in summary_lines(report):
        say(line, markup=False)
    print(command.out)
    print(command.drawn)
    return 1 if scored.failed else 0


def _scored(command: OveroptimiseCommand, path: Path, proxy: "Reward", gold: "Reward") -> "ScoredSamples":
    from mmalign.data.unlabelled import read_pool
    from mmalign.evaluation.proxy_report import score_pool

    pool = read_pool(path, root=command.root)
    return score_pool(pool.prompts, pool.media, proxy, gold, batch_size=command.batch_size)


def _training(
    command: OveroptimiseCommand, proxy: "Reward", gold: "Reward"
) -> tuple[dict[str, Any], tuple[Any, ...]]:
    from mmalign.evaluation.overoptimisation_curves import fit_curve
    from mmalign.evaluation.proxy_report import curve_values, training_path

    for folder in command.run:
        _check_rewards(folder, command)
    path = training_path(command.run, _scores_of(command, proxy, gold))
    curves = [
        fit_curve(path.d, values, law=path.law, resamples=command.resamples, seed=command.seed)
        for values in (path.proxy, path.gold)
    ]
    words = [f"step {step:.0f}" if i in (0, len(path.step) - 1) else "" for i, step in enumerate(path.step)]
    panel = (
        f"along training, {len(path.runs)} run{'s' if len(path.runs) > 1 else ''}",
        "distance, sqrt(drift)",
        *curves,
        words,
    )
    values = {
        "runs": list(path.runs),
        "steps": path.step.tolist(),
        "proxy": curve_values(curves[0]),
        "true": curve_values(curves[1]),
    }
    return values, panel


def _check_rewards(folder: Path, command: OveroptimiseCommand) -> None:
    """Refuse a run of other rewards, whose glances would be fitted as if they were these."""
    import yaml

    from mmalign.evaluation.run_folder import read_run

    recipe = yaml.safe_load(read_run(folder).recipe) or {}
    trained, judged = recipe.get("reward") or [], recipe.get("heldout_reward")
    if list(trained) != [command.proxy] or judged != command.true:
        raise ConfigError(
            f"{folder} trained on {' + '.join(trained) or 'no reward'} and was judged by {judged}; give these as "
            "--proxy and --true"
        )


def _scores_of(
    command: OveroptimiseCommand, proxy: "Reward", gold: "Reward"
) -> Callable[[Sequence["SampleFile"]], tuple[Any, Any]]:
    import numpy as np

    from mmalign.rewards.scoring import score_files

    def scores(files: Sequence["SampleFile"]) -> tuple[Any, Any]:
        rows = list(score_files(files, [proxy, gold], batch_size=command.batch_size))
        values = [np.nan if row.score is None else row.score for row in rows]
        return np.array(values[::2]), np.array(values[1::2])

    return scores


def _implicit(command: OveroptimiseCommand, scored: "ScoredSamples") -> dict[str, Any]:
    """Accuracy inside prompts of the LoRA's own reward, beside that of the proxy on the same samples."""
    from dataclasses import replace

    from mmalign.evaluation.proxy_report import within_prompt_accuracy
    from mmalign.media import Sample, load_media
    from mmalign.training.implicit_reward import implicit_rewards_of_run

    samples = [
        Sample(prompt, load_media(path))
        for prompt, group in zip(scored.prompts, scored.media, strict=True)
        for path in group
    ]
    flat = iter(implicit_rewards_of_run(command.run[0], samples).tolist())
    mine = tuple(tuple(next(flat) for _ in group) for group in scored.media)
    options: dict[str, Any] = {"resamples": command.resamples, "seed": command.seed}
    return {
        "run": str(command.run[0]),
        "implicit": within_prompt_accuracy(replace(scored, proxy=mine), **options),
        "explicit": within_prompt_accuracy(scored, **options),
    }


def summary_lines(report: dict[str, Any]) -> list[str]:
    """The report in a few sentences."""

    def number(entry: dict[str, Any]) -> str:
        if entry["value"] is None:
            return "none"
        low, high = entry["ci95"]
        return f"{entry['value']:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")

    lines = [
        f"{report['samples']} samples of {report['prompts']} prompts, {report['failed']} without a score; accuracy "
        f"inside prompts {number(report['accuracy'])}"
    ]
    parts = [("best of n", report["best_of_n"])]
    parts += [("training", report["training"])] if report["training"] else []
    for name, part in parts:
        gains = [part[side]["gain_in_stds"][-1] for side in ("proxy", "true")]
        peak, share = part["true"]["peak_distance"], part["true"]["share_of_resamples_past_the_peak"]
        where = "never falls" if peak["value"] is None else f"peaks at a distance of {peak['value']:.2f}"
        sure = "" if share is None else f", in {share:.0%} of the resamples before the end"
        lines.append(
            f"{name}: at the end the proxy is {gains[0]:+.2f} and the truth {gains[1]:+.2f} stds; the fitted truth "
            f"{where}{sure}"
        )
    if report["contrast"]:
        said = report["contrast"]["proxy"]
        lines.append(
            f"similar prompts: response consistency {number(said['response'])}, instruction consistency "
            f"{number(said['instruction'])}"
        )
    if report["shift"]:
        lines.append(f"accuracy falls by {number(report['shift']['drop'])} on the shifted samples")
    if report["implicit"]:
        lines.append(
            f"implicit reward {number(report['implicit']['implicit'])}, explicit "
            f"{number(report['implicit']['explicit'])}"
        )
    return lines
