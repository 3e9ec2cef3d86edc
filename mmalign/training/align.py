"""A whole alignment run: judge the base, make pairs, train, judge again, write it down; every stage resumes."""

import math
import resource as process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mmalign.adapters.image import ImageAdapter
from mmalign.adapters.loading import load_adapter
from mmalign.data.pairs import Pair, best_against_worst, read_pairs, write_pairs
from mmalign.data.prompts import read_prompts
from mmalign.data.writers import format_rows
from mmalign.errors import ConfigError
from mmalign.evaluation.grid import save_grid
from mmalign.evaluation.image_statistics import picture_guards
from mmalign.evaluation.model_card import write_model_card
from mmalign.evaluation.report import write_report
from mmalign.evaluation.statistics import paired_bootstrap
from mmalign.files import whole_file
from mmalign.generators.conditioning import concatenate
from mmalign.media import Image, Sample
from mmalign.methods import load_method
from mmalign.methods.flow_dpo import LatentPairs
from mmalign.rewards.base import Reward
from mmalign.rewards.cards import load_reward
from mmalign.training.folder import RunFolder, write_json
from mmalign.training.loop import train
from mmalign.training.progress import console, stage
from mmalign.training.recipe import Recipe, save_recipe
from mmalign.training.rewarding import Mixture, load_mixture, score_all, score_in_batches
from mmalign.training.samples import draw_samples, scored_rows
from mmalign.training.versions import versions

HELDOUT_SEED, TRAINING_SEED = 1_000_000, 2_000_000
"""First seed of held-out and of training samples, far apart so that no noise is shared."""
SAMPLES_PER_HELDOUT_PROMPT = 2
"""Two, so that diversity inside a prompt can be measured."""
GRID = 24


@dataclass(frozen=True, eq=False)
class Side:
    """The held-out samples of one side, and what was measured on them."""

    samples: list[Sample]
    heldout: Tensor | None
    aspects: dict[str, float]
    train_reward: float | None
    guards: dict[str, float]


def align(recipe: Recipe, folder: Path) -> Path:
    """Run a recipe in a folder, going on wherever an earlier run in the same folder was stopped.

    Returns:
        The folder, with everything ARCHITECTURE section 4 names.
    """
    run = RunFolder(folder)
    save_recipe(recipe, run.recipe)
    with console.status(f"loading {recipe.model}"):
        adapter: ImageAdapter = load_adapter(recipe.model)
        mixture = load_mixture(recipe.reward) if recipe.reward else None
        heldout = load_reward(recipe.heldout_reward) if recipe.heldout_reward else None
        adapter.generator.attach_lora(rank=recipe.train.lora_rank, seed=recipe.train.seed)
        if recipe.train.gradient_checkpointing:
            adapter.generator.policy.enable_gradient_checkpointing()  # type: ignore[operator]
    run.forget(adapter.generator.denoiser_passes)
    judge = Judge(recipe, run, adapter, mixture, heldout)
    # What a user brings is read before anything long is begun.
    prompts = read_prompts(recipe.prompts) if recipe.prompts else []
    given = None if recipe.preferences is None else encode_pairs(adapter, read_pairs(recipe.preferences))
    before = judge.side("before")
    pairs = given or encode_pairs(adapter, _own_pairs(recipe, prompts, run, adapter, mixture))
    method = load_method(recipe.method.name)(recipe.method, adapter.generator, pairs)
    train(
        method,
        adapter.generator,
        recipe.train,
        run,
        glance=judge.glance if heldout is not None else None,
        glance_every=recipe.evaluation.every,
    )
    adapter.save_lora(run.lora)
    after = judge.side("after")
    summary = summarise(recipe, run, adapter, before, after)
    write_json(run.summary, summary)
    with console.status("writing the report"):
        write_report(run.path)
        write_model_card(run.path)
    return run.path


class Judge:
    """Draws and scores held-out samples, the same prompts and seeds on both sides."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        adapter: ImageAdapter,
        mixture: Mixture | None,
        heldout: Reward | None,
    ) -> None:
        self.recipe, self.run, self.adapter, self.mixture, self.heldout = (
            recipe,
            run,
            adapter,
            mixture,
            heldout,
        )
        source = recipe.heldout_prompts or recipe.prompts
        prompts = read_prompts(source) if source else sorted({p.prompt for p in read_pairs(_given(recipe))})
        repeats = SAMPLES_PER_HELDOUT_PROMPT
        count = min(-(-recipe.evaluation.n // repeats), len(prompts))
        chosen = prompts[:count]
        rounds = -(-recipe.evaluation.n // count)
        self.prompts = [prompt for prompt in chosen for _ in range(rounds)][: recipe.evaluation.n]
        self.seeds = [HELDOUT_SEED + i for i in range(len(self.prompts))]

    def side(self, side: Literal["before", "after"]) -> Side:
        """Draw and measure one side."""
        samples = draw_samples(
            self.adapter,
            self.run,
            side,
            self.prompts,
            self.seeds,
            self.recipe.sampling,
            weights="reference" if side == "before" else "policy",
            title=f"held-out samples, {side}",
        )
        folder = self.run.samples / side
        score = None if self.heldout is None else score_in_batches(self.heldout, samples)
        if score is not None and self.heldout is not None:
            values = [None if v != v else v for v in score.value.tolist()]
            with whole_file(folder / "scores.jsonl") as unfinished:
                unfinished.write_text(
                    format_rows(scored_rows(samples, self.heldout.card.name, values), "jsonl")
                )
        pictures = torch.stack([_picture(sample).pixels for sample in samples])
        spread = range(0, len(samples), max(1, len(samples) // GRID))
        shown = [samples[i] for i in spread][:GRID]
        save_grid(
            [_picture(s) for s in shown],
            [s.prompt for s in shown],
            self.run.samples / f"{side}.png",
            columns=6,
        )
        return Side(
            samples,
            None if score is None else score.value,
            {} if score is None else {name: float(value.nanmean()) for name, value in score.aspects.items()},
            None if self.mixture is None else float(self.mixture.score(samples).nanmean()),
            picture_guards(pictures, self.prompts),
        )

    def glance(self) -> dict[str, float]:
        """The held-out reward of a few samples of the policy as it is."""
        assert self.heldout is not None
        rows = slice(0, self.recipe.evaluation.glance)
        pictures = self.adapter.generate(
            self.prompts[rows],
            seeds=self.seeds[rows],
            batch_size=self.recipe.sampling.batch_size,
            **self.recipe.sampling.options(),
        )
        samples = [
            Sample(prompt, picture) for prompt, picture in zip(self.prompts[rows], pictures, strict=True)
        ]
        return {"heldout_reward": float(self.heldout.score(samples).value.nanmean())}


def _given(recipe: Recipe) -> Path:
    assert recipe.preferences is not None  # a recipe without prompts has them, see Recipe
    return recipe.preferences


def _picture(sample: Sample) -> Image:
    assert isinstance(sample.media, Image)
    return sample.media


def _own_pairs(
    recipe: Recipe, prompts: list[str], run: RunFolder, adapter: ImageAdapter, mixture: Mixture | None
) -> list[Pair]:
    """Pairs of the generator's own samples, from the run folder where they are there already."""
    if not run.pairs.exists():
        assert mixture is not None
        write_pairs(run.pairs, own_pairs(recipe, prompts, run, adapter, mixture))
    return read_pairs(run.pairs)


def own_pairs(
    recipe: Recipe, prompts: Sequence[str], run: RunFolder, adapter: ImageAdapter, mixture: Mixture
) -> list[Pair]:
    """Draw groups of samples for training prompts, score them, and pair the best with the worst of each.

    Raises:
        ConfigError: no group has two different scores.
    """
    source = recipe.method.pairs  # type: ignore[attr-defined]
    prompts = prompts[: source.prompts]
    repeated = [prompt for prompt in prompts for _ in range(source.group_size)]
    first = TRAINING_SEED + recipe.train.seed * 100_000
    seeds = [first + i for i in range(len(repeated))]
    samples = draw_samples(
        adapter,
        run,
        "pairs",
        repeated,
        seeds,
        recipe.sampling,
        weights="reference",
        title="training samples",
    )
    scores = score_all(mixture, samples, title="scoring").unflatten(0, (len(prompts), source.group_size))
    found = best_against_worst(scores, pairs_per_group=source.pairs_per_prompt)
    missing = int(torch.isnan(scores).sum())
    console.print(
        f"{len(found)} pairs from {len(prompts)} prompts x {source.group_size} samples"
        + (f"; {missing} samples have no score and take no part" if missing else "")
    )
    if not found:
        raise ConfigError(
            f"reward {mixture.name} gave no two different scores in any group; there is nothing to learn"
        )
    return [
        Pair(
            prompts[p],
            samples[p * source.group_size + c].meta["path"],
            samples[p * source.group_size + r].meta["path"],
            round(float(scores[p, c] - scores[p, r]), 6),
        )
        for p, c, r in found
    ]


def encode_pairs(adapter: ImageAdapter, pairs: Sequence[Pair], *, batch_size: int = 32) -> LatentPairs:
    """Latents of both sides and conditioning of the distinct prompts, each encoded once."""
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    parts: dict[str, list[Tensor]] = {"chosen": [], "rejected": []}
    with stage("encoding pairs", len(pairs)) as bar:
        for start in range(0, len(pairs), batch_size):
            some = pairs[start : start + batch_size]
            for side, latents in parts.items():
                latents.append(adapter.encode([Image.load(getattr(pair, side)) for pair in some]).cpu())
            bar.advance(len(some))
    conditioning = concatenate(
        [adapter.generator.condition(prompts[i : i + batch_size]) for i in range(0, len(prompts), batch_size)]
    )
    index = {prompt: i for i, prompt in enumerate(prompts)}
    return LatentPairs(
        torch.cat(parts["chosen"]),
        torch.cat(parts["rejected"]),
        conditioning,
        torch.tensor([index[pair.prompt] for pair in pairs]),
    )


def summarise(
    recipe: Recipe, run: RunFolder, adapter: ImageAdapter, before: Side, after: Side
) -> dict[str, Any]:
    """What ``summary.json`` holds."""
    heldout = None
    if before.heldout is not None and after.heldout is not None:
        prompts = [sample.prompt for sample in before.samples]
        gain = paired_bootstrap(before.heldout.numpy(), after.heldout.numpy(), groups=prompts)
        heldout = {
            "name": recipe.heldout_reward,
            "before": gain.before,
            "after": gain.after,
            "gain": gain.gain,
            "ci95": [
                bound if math.isfinite(bound) else None for bound in gain.ci95
            ],  # one prompt has no interval
            "n": gain.n,
            "prompts": gain.prompts,
            "excluded": gain.excluded,
            "aspects": {
                name: {"before": before.aspects[name], "after": after.aspects[name]}
                for name in before.aspects
            },
        }
    train_reward = None
    if before.train_reward is not None and after.train_reward is not None:
        train_reward = {
            "name": " + ".join(recipe.reward),
            "before": before.train_reward,
            "after": after.train_reward,
        }
    sampler = {
        "sampler": type(adapter.generator.pipeline.scheduler).__name__,
        "steps": recipe.sampling.steps,
        "guidance": recipe.sampling.guidance,
    }
    run.keep(adapter.generator.denoiser_passes)
    return {
        "recipe": recipe.name,
        "modality": recipe.modality,
        "method": recipe.method.name,
        "model": recipe.model,
        "seed": recipe.train.seed,
        "steps": recipe.train.steps,
        "train_reward": train_reward,
        "heldout_reward": heldout,
        "sampling": {"before": sampler, "after": sampler},
        "guards": {
            name: {"before": value, "after": after.guards[name]}
            for name, value in before.guards.items()
            if name in after.guards
        },
        "denoiser_passes": run.denoiser_passes,
        "wall_s": round(run.wall_s, 1),
        "peak_rss_mb": round(process.getrusage(process.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": versions(),
    }
