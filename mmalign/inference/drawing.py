"""Guided drawing by name, as the command line asks for it: media, and what each one's row of metadata says of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from mmalign.errors import ConfigError
from mmalign.inference.best_of_n import best_of_n
from mmalign.inference.dream_fl import DreamSettings, as_scene, dream
from mmalign.inference.dynamic_guidance import sample_with_dynamic_guidance
from mmalign.inference.reward_guidance import NoisyReward, reward_of_estimate, sample_with_reward
from mmalign.media import Media
from mmalign.rewards.base import DifferentiableReward
from mmalign.rewards.cards import load_reward, parse_weighted
from mmalign.rewards.compose import load_weighted

Guide = Literal["best_of_n", "reward", "dynamic", "dream_fl"]
Drawing = Callable[[Sequence[str], Sequence[int]], tuple[list[Media], list[dict[str, Any]]]]


def guided_drawing(
    adapter: Any,
    guide: Guide,
    *,
    rewards: Sequence[str],
    sampling: Mapping[str, Any],
    n: int,
    scales: Sequence[float],
    batch_size: int,
) -> Drawing:
    """A function of prompts and seeds that draws media with a guide.

    Args:
        adapter: draws.
        guide: which.
        rewards: NAME or NAME:WEIGHT.
        sampling: ``steps``, ``guidance`` and the pipeline's own options.
        n: candidates of best_of_n.
        scales: candidates of dynamic.
        batch_size: media drawn at once.

    Raises:
        ConfigError: guide "reward" with a reward that has no gradient.
    """
    options = dict(sampling)
    if guide == "best_of_n":
        mixture = load_weighted(rewards)

        def best(prompts: Sequence[str], seeds: Sequence[int]) -> tuple[list[Media], list[dict[str, Any]]]:
            found = best_of_n(adapter, mixture, prompts, seeds=seeds, n=n, batch_size=batch_size, **options)
            # With this seed plain sampling draws the winner again.
            return found.media, [{"seed": seed} for seed in found.seeds]

        return best
    if guide == "dream_fl":
        return dreaming(adapter, rewards=rewards, **options)
    scale = options.pop("guidance", None)
    scale = None if scale == 1 else scale
    loaded = [(load_reward(name), weight) for name, weight in map(parse_weighted, rewards)]
    if guide == "dynamic":

        def dynamic(prompts: Sequence[str], seeds: Sequence[int]) -> tuple[list[Media], list[dict[str, Any]]]:
            latents, taken = sample_with_dynamic_guidance(
                adapter, loaded, prompts, seeds=seeds, scales=scales, **options
            )
            return adapter.decode(latents), [{"scales": row} for row in taken.tolist()]

        return dynamic
    noisy: list[tuple[NoisyReward, float]] = []
    for reward, weight in loaded:
        if not isinstance(reward, DifferentiableReward) or not reward.card.differentiable:
            raise ConfigError(
                f"--guide reward follows gradients, and '{reward.card.name}' has none; use --guide best_of_n"
            )
        noisy.append((reward_of_estimate(adapter, reward), reward.card.sign * weight))

    def steered(prompts: Sequence[str], seeds: Sequence[int]) -> tuple[list[Media], list[dict[str, Any]]]:
        latents = sample_with_reward(adapter, noisy, prompts, seeds=seeds, guidance=scale, **options)
        return adapter.decode(latents), [{"rewards": list(rewards)}] * len(prompts)

    return steered


def dreaming(adapter: Any, *, rewards: Sequence[str], steps: int, guidance: float, **options: Any) -> Drawing:
    """A function of prompts and seeds that distils one scene after the other: its views, and its mesh.

    Args:
        adapter: of views.
        rewards: NAME or NAME:WEIGHT, all with a gradient.
        steps: of the distillation.
        guidance: scale.
        options: the pipeline's own.

    Raises:
        ConfigError: the generator makes no views, or a reward has no gradient.
    """
    if adapter.modality != "scene3d":
        raise ConfigError(f"--guide dream_fl makes 3D scenes, and this generator makes {adapter.modality}")
    mixture = load_weighted(rewards)
    if not isinstance(mixture, DifferentiableReward) or not mixture.card.differentiable:
        raise ConfigError(f"--guide dream_fl follows gradients, and '{mixture.card.name}' has none")
    settings = DreamSettings(steps=steps, guidance=guidance)

    def dreamed(prompts: Sequence[str], seeds: Sequence[int]) -> tuple[list[Media], list[dict[str, Any]]]:
        scenes: list[Media] = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            field = dream(adapter, prompt, seed=seed, reward=mixture, settings=settings, **options)
            scenes.append(as_scene(field, adapter))
        return scenes, [{"rewards": list(rewards)}] * len(scenes)

    return dreamed
