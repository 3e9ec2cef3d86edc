"""DreamFL: one 3D object per prompt, by score distillation of a generator of views, with a reward beside it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.adapters.scene3d import Scene3DAdapter, join_views
from mmalign.errors import ConfigError
from mmalign.generators.conditioning import Conditioning
from mmalign.losses.score_distillation import dream_fl_loss, matched_weight, sds_loss
from mmalign.media import Camera, Sample, Scene3D
from mmalign.rewards.base import DifferentiableReward
from mmalign.scenes.field import VoxelField
from mmalign.scenes.fitting import FitSettings, variation


@dataclass(frozen=True, kw_only=True, slots=True)
class DreamSettings(FitSettings):
    """How a field is distilled."""

    steps: int = 150
    learning_rate: float = 0.2
    voxels: int = 24
    guidance: float = 3.0
    """Of the generator. DreamReward takes 50 for Stable Diffusion; a generator of clean views needs far less."""
    most_noise: float = 0.98
    """Place among the training noise levels, 1 the noisiest, at the first step; DreamReward's too."""
    least_noise: float = 0.1
    """At the last step; between, the place falls evenly."""
    reward_from: float = 0.4
    """Share of the steps after which the reward pulls; DreamReward's first variant: 0.6, its second 0.1."""
    reward_share: float = 0.3
    """Of the distillation's force on the renderings; DreamReward: 0.3 to 0.6."""
    reward_target: float = 100.0
    """From which on a scene is good enough, in the reward's unit; by default a cosine's most."""
    opacity_weight: float = 0.2
    smoothness_weight: float = 0.2

    def __post_init__(self) -> None:
        FitSettings.__post_init__(self)
        if not 0 <= self.least_noise <= self.most_noise <= 1:
            raise ConfigError(
                f"noise falls from {self.most_noise} to {self.least_noise}: expected places from 1 to 0"
            )


def dream(
    adapter: Scene3DAdapter,
    prompt: str,
    *,
    seed: int,
    reward: DifferentiableReward | None = None,
    settings: DreamSettings | None = None,
    **options: object,
) -> VoxelField:
    """Find a field whose views the generator takes for the prompt's, and the reward likes.

        distillation = |latents - clean|^2 / 2 per element, clean the guided estimate at noisy latents, constant
        loss = distillation + weight * max(0, target - reward) + opacity and smoothness, as ``fit_field`` has them

    Args:
        adapter: of views whose cameras are known; its denoiser is not differentiated, its VAE's encoder is.
        prompt: what to make.
        seed: of the noise.
        reward: of scenes, with gradient; higher is better.
        settings: how long, and how strong each part is.
        options: the pipeline's own.

    Returns:
        The field, its parameters without gradient.

    Raises:
        ConfigError: the cameras are not known, the views are not square, or the reward has no gradient.

    Source: Ye et al. 2024, DreamReward, section 4.2 (arXiv:2403.14613); the noise level falls evenly, as in its code.
    """
    chosen = settings or DreamSettings()
    side_px, cameras = _cameras(adapter)
    if reward is not None and not (
        isinstance(reward, DifferentiableReward) and reward.card.differentiable and reward.card.sign > 0
    ):
        raise ConfigError(
            f"dream_fl follows the reward's gradient upward; '{reward.card.name}' is not made so"
        )
    generator = adapter.generator
    conditioning: Conditioning = generator.condition([prompt], guidance=chosen.guidance, **options)
    random = torch.Generator().manual_seed(seed)
    field = VoxelField(chosen.voxels, half_extent=chosen.half_extent).to(generator.device)
    optimizer = torch.optim.Adam(field.parameters(), lr=chosen.learning_rate)
    with torch.enable_grad():
        for step in range(chosen.steps):
            done = step / max(1, chosen.steps - 1)
            place = chosen.most_noise + done * (chosen.least_noise - chosen.most_noise)
            seen = field.render(cameras, side_px=side_px)
            latents = generator.codec.encode(
                join_views(seen.views, rows=adapter.rows, columns=adapter.columns)[None]
            )
            noise = torch.randn(latents.shape, generator=random).to(latents)
            clean = estimate(adapter, latents, noise, conditioning, place=place, guidance=chosen.guidance)
            loss = sds_loss(latents, latents.detach() - clean) / latents[0].numel()
            if reward is not None and done >= chosen.reward_from:
                scores = reward.score_with_grad(seen.views[None], [Sample(prompt)])
                pull = [
                    torch.autograd.grad(part, seen.views, retain_graph=True)[0]
                    for part in (loss, scores.sum())
                ]
                weight = matched_weight(*pull, share=chosen.reward_share)
                loss = dream_fl_loss(loss, scores, weight=weight, target=chosen.reward_target)
            loss = loss + chosen.opacity_weight * (seen.opacity * (1 - seen.opacity)).mean()
            loss = loss + chosen.smoothness_weight * variation(field)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return field.requires_grad_(False)


@torch.no_grad()
def estimate(
    adapter: Scene3DAdapter,
    latents: Tensor,
    noise: Tensor,
    conditioning: Conditioning,
    *,
    place: float,
    guidance: float,
) -> Tensor:
    """The generator's guided estimate of the clean latents, as ``latents``, at noise added to these.

    Args:
        adapter: whose generator is asked.
        latents: [B, ...].
        noise: as ``latents``.
        conditioning: of B samples.
        place: among the training noise levels, 1 the noisiest, 0 the least noisy.
        guidance: scale.
    """
    table = adapter.generator.timesteps
    level = table.at(torch.full((len(latents),), round((1 - place) * (len(table) - 1)))).to(latents.device)
    alpha, sigma = (
        share.reshape(-1, *[1] * (latents.ndim - 1)).to(latents) for share in (level.alpha, level.sigma)
    )
    noisy = alpha * latents + sigma * noise
    found: Tensor = adapter.generator.predict(noisy, level, conditioning, guidance=guidance).clean
    return found


@torch.no_grad()
def as_scene(field: VoxelField, adapter: Scene3DAdapter) -> Scene3D:
    """A field as the adapter's cameras see it, and its mesh where it has a surface.

    Raises:
        ConfigError: the extra ``mesh`` is missing.
    """
    side_px, cameras = _cameras(adapter)
    views = field.render(cameras, side_px=side_px).views.clamp(0, 1).cpu()
    found = bool((field.density > field.half_level).any())
    return Scene3D(views, cameras, field.to_mesh() if found else None)


def _cameras(adapter: Scene3DAdapter) -> tuple[int, tuple[Camera, ...]]:
    """Side of a view in pixels, and the cameras.

    Raises:
        ConfigError: they are not known, or the views are not square.
    """
    height, width = adapter.generator.media_shape[-2:]
    height, width = height // adapter.rows, width // adapter.columns
    if not adapter.cameras or height != width:
        raise ConfigError(
            f"a field needs square views from known places; this generator's are {width}x{height} pixels, of "
            f"{len(adapter.cameras)} known cameras"
        )
    return height, adapter.cameras
