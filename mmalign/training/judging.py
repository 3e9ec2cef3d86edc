"""Judges a run before and after, on held-out prompts with the same seeds, and now and then while it trains."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmalign.data.pairs import read_pairs
from mmalign.data.prompts import read_prompts
from mmalign.data.ratings import read_demonstrations
from mmalign.data.writers import format_rows
from mmalign.errors import DataError
from mmalign.evaluation.media_guards import media_guards
from mmalign.evaluation.previews import save_previews
from mmalign.evaluation.statistics import paired_bootstrap
from mmalign.files import whole_file
from mmalign.media import WRITTEN_SUFFIX, Media, Sample
from mmalign.processes import Processes
from mmalign.rewards.base import Reward
from mmalign.rewards.cards import find_card
from mmalign.rewards.groups import compares, refuse_comparing, score_in_batches
from mmalign.rewards.learning import learners
from mmalign.training.drift import distances
from mmalign.training.folder import RunFolder
from mmalign.training.identity import of_tensors
from mmalign.training.recipe import Recipe, SamplingConfig
from mmalign.training.samples import draw_samples, scored_rows
from mmalign.training.stage_keys import StageKeys, measured_key

HELDOUT_SEED = 1_000_000
"""First seed of held-out samples."""
SAMPLES_PER_HELDOUT_PROMPT = 2
"""Two, so that diversity inside a prompt can be measured."""
GRID = 24
WATCHED = 6
"""Samples of a glance that are kept."""
DRIFT_SAMPLES = 16
GLANCED = {"heldout": "heldout_reward", "train": "train_reward_heldout_prompts"}
"""What the two rewards of a glance are called in metrics.jsonl."""


@dataclass(frozen=True, eq=False)
class Side:
    """The held-out samples of one side, and what was measured on them."""

    samples: list[Sample]
    heldout: Tensor | None
    aspects: dict[str, float]
    train: Tensor | None
    guards: dict[str, float]


class Judge:
    """Draws and scores held-out samples, the same prompts and seeds on both sides.

    Raises:
        ConfigError: the held-out reward compares the samples of a prompt, so that no side could be above the other.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        adapter: Any,
        reward: Reward | None,
        heldout: Reward | None,
        *,
        keys: StageKeys | None = None,
    ) -> None:
        if heldout is not None:
            refuse_comparing(
                heldout, "its mean over a prompt is the same before and after; judge by what it is made of"
            )
        self.recipe, self.run, self.adapter = recipe, run, adapter
        self.keys = StageKeys(run) if keys is None else keys
        # For the same reason one that is trained on says nothing of the two sides.
        self.reward = None if reward is None or compares(reward) else reward
        self.heldout = heldout
        self._base: dict[str, Tensor] = {}
        self.prompts, self.seeds = judged_samples(recipe)

    def side(self, side: str, sampling: SamplingConfig, *, again: bool = True) -> Side:
        """Draw and measure one side: "before" is the base, every other name the policy as it is.

        For ``again`` see ``write_samples``.

        Raises:
            DataError: the samples that are there are of other prompts or seeds.
        """
        weights = None if side == "before" else of_tensors(trained(self.adapter.generator.policy))
        self.keys.begin_measuring(
            side, measured_key(self.recipe, self.prompts, self.seeds, sampling, weights=weights)
        )
        samples = draw_samples(
            self.adapter,
            self.run,
            side,
            self.prompts,
            self.seeds,
            sampling,
            weights="reference" if side == "before" else "policy",
            title=f"held-out samples, {side}",
            again=again,
        )
        folder = self.run.samples / side
        check_paired(samples, self.prompts, self.seeds, folder / "metadata.jsonl")
        score = None if self.heldout is None else score_in_batches(self.heldout, samples)
        main = Processes().main
        if main and score is not None and self.heldout is not None:
            values = [None if v != v else v for v in score.value.tolist()]
            with whole_file(folder / "scores.jsonl") as unfinished:
                unfinished.write_text(
                    format_rows(scored_rows(samples, self.heldout.card.name, values), "jsonl")
                )
        spread = range(0, len(samples), max(1, len(samples) // GRID))
        shown = [samples[i] for i in spread][:GRID]
        if main:
            captions = [sample.prompt for sample in shown]
            save_previews([_medium(sample) for sample in shown], captions, self.run.samples / f"{side}.png")
        return Side(
            samples,
            None if score is None else score.value,
            {} if score is None else {name: float(value.nanmean()) for name, value in score.aspects.items()},
            None if self.reward is None else score_in_batches(self.reward, samples).value,
            media_guards([_medium(sample) for sample in samples], self.prompts),
        )

    def remember(self, before: Side) -> None:
        """Take the first samples of the base as what later glances are compared with."""
        rows = slice(0, self.recipe.evaluation.glance)
        train = (
            None if any(learners(self.reward)) else before.train
        )  # one that learns is another reward each time
        scores = {"heldout": before.heldout, "train": train}
        self._base = {name: values[rows] for name, values in scores.items() if values is not None}

    def by_the_final_reward(self, before: Side) -> Side:
        """The base as the training reward sees it now, where that has learnt since: both sides by one reward."""
        if self.reward is None or not any(learners(self.reward)):
            return before
        return replace(before, train=score_in_batches(self.reward, before.samples).value)

    def glance(self, step: int) -> tuple[dict[str, float], str | None]:
        """A few held-out samples of the policy as it is: rewards, guards, KL; and a reason to stop, if there is one.

        The first of the samples are kept, so that people can watch one prompt and seed change.
        The reason: the training reward rose and the held-out one fell, on the same prompts and seeds, by more than the
        95% interval of its change; the policy learns to please its scorer.
        """
        rows = slice(0, self.recipe.evaluation.glance)
        prompts = self.prompts[rows]
        sampling = self.recipe.sampling
        media = self.adapter.generate(
            prompts, seeds=self.seeds[rows], batch_size=sampling.batch_size, **sampling.options()
        )
        samples = [Sample(prompt, medium) for prompt, medium in zip(prompts, media, strict=True)]
        if Processes().main:
            keep_glance(self.run.glances(step), samples[:WATCHED], self.seeds, self.adapter.modality)
        rewards = {"heldout": self.heldout, "train": self.reward}
        found = {
            name: score_in_batches(reward, samples).value
            for name, reward in rewards.items()
            if reward is not None
        }
        values = {GLANCED[name]: float(scores.nanmean()) for name, scores in found.items()}
        values |= media_guards(media, prompts)
        values |= distances(self.adapter, prompts[:DRIFT_SAMPLES], sampling)
        return {name: value for name, value in values.items() if math.isfinite(value)}, self._hacked(found)

    def _hacked(self, found: Mapping[str, Tensor]) -> str | None:
        if not {"heldout", "train"} <= self._base.keys() & found.keys():
            return None
        prompts = self.prompts[: len(found["heldout"])]
        sign = 1.0 if self.heldout is None else self.heldout.card.sign
        heldout, train = (
            paired_bootstrap(turn * self._base[name].numpy(), turn * found[name].numpy(), groups=prompts)
            for name, turn in (("heldout", sign), ("train", 1.0))
        )
        if not heldout.ci95[1] < 0 < train.ci95[0]:
            return None
        low, high = heldout.ci95
        return (
            f"the training reward rose by {train.gain:.3g} and the held-out one got worse by {-heldout.gain:.3g} "
            f"(95% interval {low:+.3g} to {high:+.3g}): it learns to please its scorer"
        )


def keep_glance(folder: Path, samples: Sequence[Sample], seeds: Sequence[int], modality: str) -> None:
    """Write a few samples with prompt and seed; the folder is complete once its metadata.jsonl is there."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (sample, seed) in enumerate(zip(samples, seeds, strict=False)):
        name = f"{number:05d}{WRITTEN_SUFFIX[modality]}"
        with whole_file(folder / name) as unfinished:
            _medium(sample).save(unfinished)
        rows.append({"file_name": name, "prompt": sample.prompt, "seed": seed})
    with whole_file(folder / "metadata.jsonl") as unfinished:
        unfinished.write_text(format_rows(rows, "jsonl"), encoding="utf-8")


def judged_samples(recipe: Recipe) -> tuple[list[str], list[int]]:
    """The prompts and seeds of held-out samples, the same on both sides."""
    prompts = heldout_prompts(recipe)
    count = min(-(-recipe.evaluation.n // SAMPLES_PER_HELDOUT_PROMPT), len(prompts))
    rounds = -(-recipe.evaluation.n // count)
    judged = [prompt for prompt in prompts[:count] for _ in range(rounds)][: recipe.evaluation.n]
    return judged, [HELDOUT_SEED + i for i in range(len(judged))]


def check_paired(samples: Sequence[Sample], prompts: Sequence[str], seeds: Sequence[int], file: Path) -> None:
    """Refuse samples that are not of these prompts and seeds, since a gain is of pairs.

    Raises:
        DataError: one of them is another, or there is another number, with the row.
    """
    found = [(sample.prompt, sample.meta["seed"]) for sample in samples]
    for number, (got, wanted) in enumerate(zip_longest(found, zip(prompts, seeds, strict=True)), 1):
        if got != wanted:
            raise DataError(
                f"expected prompt and seed {wanted}, got {got}; before and after have to be of the same ones. "
                "Delete this folder and go on with --resume, which draws it anew",
                file=file,
                row=number,
            )


def trained(policy: nn.Module) -> dict[str, Tensor]:
    """The parameters that training moves, by name."""
    return {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}


def heldout_prompts(recipe: Recipe) -> list[str]:
    """The prompts that judge a run: held-out ones, else those it trains on."""
    source = recipe.heldout_prompts or recipe.prompts
    if source is not None:
        return read_prompts(source)
    if recipe.preferences is not None:
        return sorted({pair.prompt for pair in read_pairs(recipe.preferences)})
    path = recipe.ratings or recipe.demonstrations
    assert path is not None  # a recipe without prompts has a file, see Recipe
    return sorted({rating.prompt for rating in read_demonstrations(path)})


def heldout_result(recipe: Recipe, before: Side, after: Side) -> dict[str, Any] | None:
    """The held-out reward of ``summary.json``, with its gain and interval; None where it was not measured."""
    if before.heldout is None or after.heldout is None:
        return None
    prompts = [sample.prompt for sample in before.samples]
    gain = paired_bootstrap(before.heldout.numpy(), after.heldout.numpy(), groups=prompts)
    return {
        "name": recipe.heldout_reward,
        "before": gain.before,
        "after": gain.after,
        "gain": gain.gain,
        **({} if find_card(str(recipe.heldout_reward)).sign > 0 else {"higher_is_better": False}),
        # One prompt has no interval.
        "ci95": [bound if math.isfinite(bound) else None for bound in gain.ci95],
        "n": gain.n,
        "prompts": gain.prompts,
        "excluded": gain.excluded,
        "aspects": {
            name: {"before": before.aspects[name], "after": after.aspects[name]} for name in before.aspects
        },
    }


def train_result(recipe: Recipe, before: Side, after: Side) -> dict[str, Any] | None:
    """The training reward of ``summary.json``, on the held-out samples; None where there is none."""
    if before.train is None or after.train is None:
        return None
    means = {"before": float(before.train.nanmean()), "after": float(after.train.nanmean())}
    return {"name": " + ".join(recipe.reward), **means}


def guards_result(before: Side, after: Side) -> dict[str, dict[str, float]]:
    """Statistics that both sides have."""
    return {
        name: {"before": value, "after": after.guards[name]}
        for name, value in before.guards.items()
        if name in after.guards
    }


def _medium(sample: Sample) -> Media:
    assert sample.media is not None
    return sample.media
