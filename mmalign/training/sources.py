"""What a method learns from: the user's file, or the generator's own samples scored by the reward, encoded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign.data.aspects import of_aspect, one_of_each
from mmalign.data.pairs import Pair, best_against_worst, read_pairs, read_preferences, write_pairs
from mmalign.data.ratings import Rating, best_of_each, read_demonstrations, read_ratings, write_ratings
from mmalign.errors import ConfigError
from mmalign.generators.conditioning import Conditioning, concatenate
from mmalign.generators.token_layouts import stack_tokens
from mmalign.generators.tokens import TokenGenerator
from mmalign.media import MEDIA
from mmalign.methods import load_method
from mmalign.methods.base import mixed_seeds
from mmalign.methods.configs import OwnDemonstrations, OwnPairs, OwnSamples, Source
from mmalign.methods.latents import LatentPairs, LatentSamples
from mmalign.methods.pair_columns import columns_of, unused_columns
from mmalign.processes import Processes
from mmalign.rewards.base import Reward
from mmalign.rewards.direction import turned
from mmalign.rewards.groups import score_in_batches
from mmalign.roots import rooted
from mmalign.training.drawn import read_drawn
from mmalign.training.folder import RunFolder
from mmalign.training.progress import console, stage
from mmalign.training.recipe import Recipe
from mmalign.training.samples import draw_samples

Data = LatentPairs | LatentSamples
OWN = 20
"""What the seeds of own training samples are mixed with, so that no noise is shared with another stage."""


def given_data(recipe: Recipe, adapter: Any) -> Data | None:
    """The user's file as latents; None where the recipe names none.

    Raises:
        DataError: the file or a medium of it cannot be read.
    """
    if recipe.preferences is not None:
        return encode_pairs(adapter, given_pairs(recipe, recipe.preferences), recipe)
    if recipe.ratings is not None:
        return encode_samples(adapter, given_ratings(recipe, recipe.ratings), recipe)
    if recipe.demonstrations is not None:
        shown = of_aspect(read_demonstrations(recipe.demonstrations), recipe.aspect, recipe.demonstrations)
        return encode_samples(adapter, shown, recipe)
    return None


def given_pairs(recipe: Recipe, path: Path) -> list[Pair]:
    """The pairs of the user's file that are of the wanted aspect, with a word on rows and columns that are not used.

    Raises:
        DataError: the file cannot be read, or has no such aspect.
        ConfigError: it has several aspects and none was named, or no margins, which were asked for.
    """
    found = read_preferences(path)
    pairs = of_aspect(found.pairs, recipe.aspect, path)
    left = found.rows - len(pairs)
    if left:
        why = f"first: {found.rejected[0]}" if found.rejected else "of other aspects"
        console.print(f"{path}: {found.rows} rows: {len(pairs)} used, {left} rejected; {why}", markup=False)
    method: Any = recipe.method
    columns = columns_of(pairs)
    if method.margin_scale and columns.margin is None:
        raise ConfigError(f"method.margin_scale = {method.margin_scale}, but {path} has no column margin")
    loss = load_method(recipe.method.name).pair_loss
    for line in unused_columns(loss, columns, margin_scale=method.margin_scale):
        console.print(f"{path}: {line}", markup=False)
    return pairs


def given_ratings(recipe: Recipe, path: Path) -> list[Rating]:
    """The ratings of the user's file that are of the wanted aspect, each sample once.

    Raises:
        DataError: the file cannot be read, or has no such aspect.
        ConfigError: it has several aspects, and none was named.
    """
    ratings = of_aspect(read_ratings(path), recipe.aspect, path)
    once = one_of_each(ratings)
    if len(once) < len(ratings):
        console.print(
            f"{path}: {len(ratings)} ratings of {len(once)} samples; of each the mean counts", markup=False
        )
    return once


def own_data(recipe: Recipe, prompts: Sequence[str], run: RunFolder, adapter: Any, reward: Reward) -> Data:
    """Data of the generator's own samples, as a file of the run folder and as latents.

    Raises:
        ConfigError: the reward gave nothing to learn from.
    """
    source: Source = recipe.method.source
    path = run.path / f"{source}.parquet"
    processes = Processes()
    there = run.whole(path)
    if not there and path.exists():
        console.print(f"{path}: not as it was written; made again", markup=False)
    processes.wait()  # until all have looked
    if not there:
        own: OwnSamples = recipe.method.own  # type: ignore[attr-defined]
        media, scores = scored_groups(recipe, own, prompts, run, adapter, reward)
        if processes.main and isinstance(own, OwnPairs):
            write_pairs(path, make_pairs(own, prompts, media, scores, reward=reward))
        elif processes.main:
            write_ratings(path, make_ratings(own, prompts, media, scores, reward=reward))
        if processes.main:
            run.seal(path)
    processes.wait()
    with rooted(run.path):
        if source == "pairs":
            return encode_pairs(adapter, read_pairs(path), recipe)
        return encode_samples(adapter, read_demonstrations(path), recipe)


def scored_groups(
    recipe: Recipe,
    own: OwnSamples,
    prompts: Sequence[str],
    run: RunFolder,
    adapter: Any,
    reward: Reward,
) -> tuple[list[list[Path]], Tensor]:
    """Files and scores [P, G] of G samples for each of the first P prompts, turned so that higher is better."""
    prompts, G = prompts[: own.prompts], own.group_size
    samples = draw_samples(
        adapter,
        run,
        "training",
        [prompt for prompt in prompts for _ in range(G)],
        mixed_seeds(len(prompts) * G, recipe.train.seed, OWN),
        recipe.sampling,
        weights="reference",
        title="training samples",
        keep_latents=True,
    )
    with console.status("scoring"):
        scores = turned(score_in_batches(reward, samples), reward).unflatten(0, (len(prompts), G))
    missing = int(torch.isnan(scores).sum())
    if missing:
        console.print(f"{missing} of {len(samples)} training samples have no score and take no part")
    files: list[Path] = [sample.meta["path"] for sample in samples]
    return [files[p * G : (p + 1) * G] for p in range(len(prompts))], scores


def make_pairs(
    own: OwnPairs, prompts: Sequence[str], media: Sequence[Sequence[Path]], scores: Tensor, *, reward: Reward
) -> list[Pair]:
    """The best against the worst of each group.

    Raises:
        ConfigError: no group has two different scores.
    """
    found = best_against_worst(scores, pairs_per_group=own.pairs_per_prompt)
    if not found:
        raise ConfigError(
            f"reward {reward.card.name} gave no two different scores in any group; there is nothing to learn"
        )
    console.print(f"{len(found)} pairs from {len(scores)} prompts x {own.group_size} samples")
    return [
        Pair(prompts[p], media[p][c], media[p][r], round(float(scores[p, c] - scores[p, r]), 6))
        for p, c, r in found
    ]


def make_ratings(
    own: OwnSamples,
    prompts: Sequence[str],
    media: Sequence[Sequence[Path]],
    scores: Tensor,
    *,
    reward: Reward,
) -> list[Rating]:
    """All scored samples, or the best of each group.

    Raises:
        ConfigError: no sample has a score.
    """
    kept = own.kept_per_prompt if isinstance(own, OwnDemonstrations) else own.group_size
    found = best_of_each(scores, kept=kept)
    if not found:
        raise ConfigError(f"reward {reward.card.name} scored no sample; there is nothing to learn")
    console.print(f"{len(found)} samples of {len(scores)} prompts x {own.group_size}")
    return [Rating(prompts[p], media[p][i], round(float(scores[p, i]), 6)) for p, i in found]


# --- latents ----------------------------------------------------------------------------------------------------------


def encode_pairs(adapter: Any, pairs: Sequence[Pair], recipe: Recipe) -> LatentPairs:
    """Latents of both sides and conditioning of the distinct prompts, each encoded once."""
    media = [path for pair in pairs for path in (pair.chosen, pair.rejected)]
    latents = encode_files(adapter, media)
    texts, index = distinct([pair.prompt for pair in pairs])
    return LatentPairs(
        latents[::2],
        latents[1::2],
        encode_prompts(adapter, texts, recipe),
        index,
        texts,
        columns_of(pairs),
    )


def encode_samples(adapter: Any, ratings: Sequence[Rating], recipe: Recipe) -> LatentSamples:
    """Latents and scores of samples and conditioning of the distinct prompts, each encoded once."""
    texts, index = distinct([rating.prompt for rating in ratings])
    scores = [rating.score for rating in ratings]
    return LatentSamples(
        encode_files(adapter, [rating.sample for rating in ratings]),
        encode_prompts(adapter, texts, recipe),
        index,
        texts,
        None if None in scores else torch.tensor(scores),
    )


def encode_files(adapter: Any, files: Sequence[Path], *, batch_size: int = 32) -> Tensor:
    """Latents [N, ...] or tokens [N, T, K] of media files, a file that occurs twice encoded once.

    Those of the generator's own samples are what they were made of: encoding a sample again gives others.
    """
    drawn = read_drawn(adapter, files)
    known, load = [path for path in dict.fromkeys(files) if path not in drawn], MEDIA[adapter.modality].load
    parts = [made_of[None] for made_of in drawn.values()]
    with stage("encoding samples", len(known)) as bar:
        for start in range(0, len(known), batch_size):
            some = known[start : start + batch_size]
            parts.append(adapter.encode([load(path) for path in some]).cpu())
            bar.advance(len(some))
    index = {path: i for i, path in enumerate((*drawn, *known))}
    encoded = stack_tokens(parts) if isinstance(adapter.generator, TokenGenerator) else torch.cat(parts)
    return encoded[torch.tensor([index[path] for path in files])]


def encode_prompts(adapter: Any, texts: Sequence[str], recipe: Recipe) -> Conditioning:
    """Conditioning of prompts without guidance, under the same options as samples are drawn with."""
    size, options = recipe.sampling.batch_size, recipe.sampling.pipeline_options()
    if isinstance(adapter.generator, TokenGenerator):
        return adapter.condition(texts)  # ids alone, whose padding depends on what stands together
    return concatenate(
        [adapter.condition(texts[i : i + size], **options) for i in range(0, len(texts), size)]
    )


def distinct(prompts: Sequence[str]) -> tuple[list[str], Tensor]:
    """Each prompt once, in order, and the index [N] of every one among them."""
    texts = list(dict.fromkeys(prompts))
    index = {text: i for i, text in enumerate(texts)}
    return texts, torch.tensor([index[prompt] for prompt in prompts])
