"""Rewards of video from a few frames: which frames, what each counts, and the chain that edits a real clip."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


def segment_frames(frames: int, segments: int, *, count: int, generator: torch.Generator) -> Tensor:
    """One random frame of each segment, so that few frames span the whole clip.

        uniform from floor(s * frames / segments) up to, and without, floor((s + 1) * frames / segments)

    Args:
        frames: F, of the clip.
        segments: S, 4 of 16 in the published run.
        count: B, clips.
        generator: of any device.

    Returns:
        [B, S], frame indices, rising.

    Raises:
        ConfigError: ``segments`` is not from 1 to F.

    Source: Yuan et al. 2023, InstructVideo, section 4.2, as Segmental Video Reward (arXiv:2312.12490), from Wang et
    al. 2016, Temporal Segment Networks.

    >>> segment_frames(4, 4, count=1, generator=torch.Generator())
    tensor([[0, 1, 2, 3]])
    """
    if not 1 <= segments <= frames:
        raise ConfigError(f"segments = {segments}, but it is from 1 to the {frames} frames of the clip")
    edges = torch.arange(segments + 1, device=generator.device) * frames // segments
    share = torch.rand(count, segments, generator=generator, device=generator.device, dtype=torch.float64)
    return edges[:-1] + (share * edges.diff()).long()


def attenuation_weights(frame: Tensor, *, frames: int, decay: float = 1.0) -> Tensor:
    """What a frame's reward counts: the middle one fully, those around it less, so that motion is not flattened.

        exp(-decay * |frame - floor(frames / 2)|)

    Args:
        frame: any shape, frame indices in the clip.
        frames: F, of the clip.
        decay: per frame; 0 counts all alike.

    Returns:
        As ``frame``, in (0, 1], float32; they do not add up to 1.

    Raises:
        ConfigError: ``decay`` is negative, or an index is outside the clip.

    Source: Yuan et al. 2023, InstructVideo, section 4.2, as Temporally Attenuated Reward (arXiv:2312.12490).

    >>> attenuation_weights(torch.tensor([7, 8, 10]), frames=16)
    tensor([0.3679, 1.0000, 0.1353])
    """
    if decay < 0:
        raise ConfigError(f"decay = {decay}, but it is at least 0")
    if (frame < 0).any() or (frame >= frames).any():
        raise ConfigError(f"frame: expected 0 to {frames - 1}, got {int(frame.min())} to {int(frame.max())}")
    return (-decay * (frame - frames // 2).abs().float()).exp()


def instruct_video_loss(reward: Tensor, weight: Tensor) -> Tensor:
    """Raise the attenuated reward of a clip's frames.

        1 - mean_b mean_s weight[b, s] * reward[b, s]

    Args:
        reward: [B, S], of single frames, in [0, 1] for HPS, with gradient to the frames.
        weight: [B, S], of ``attenuation_weights``; detached.

    Returns:
        Scalar, in the unit of ``reward``.

    Raises:
        ShapeError: not twice the same [B, S].

    Source: Yuan et al. 2023, InstructVideo, section 4.2 (arXiv:2312.12490), whose code leaves the weights as they are.

    >>> instruct_video_loss(torch.tensor([[0.5, 1.0]]), torch.tensor([[1.0, 0.5]]))  # 1 - (0.5 + 0.5) / 2
    tensor(0.5000)
    """
    if reward.ndim != 2:
        raise ShapeError(f"reward: expected [B, S], got {list(reward.shape)}")
    check_shape(weight, reward.shape, name="weight", letters="[B, S]")
    return 1 - (weight.detach() * reward).mean()


def partial_chain_start(steps: int, *, share: float = 0.6) -> int:
    """Where to enter the sampler with a noised real clip, so that only the last share of its steps runs.

        steps - floor(share * steps)

    Args:
        steps: T, of the sampler; 20 in the published run, of which the last 12 run and the last 1 keeps its graph.
        share: of the steps; less leaves nothing to learn, more loses the clip.

    Returns:
        Step index.

    Raises:
        ConfigError: ``share`` is outside (0, 1], or so small that no step runs.

    Source: Yuan et al. 2023, InstructVideo, section 4.1 (arXiv:2312.12490), reward fine-tuning as editing.

    >>> partial_chain_start(20)
    8
    """
    # The product may fall short of a whole number by rounding: 0.29 * 100 is 28.999999999999996.
    run = int(share * steps + 1e-9)
    if not 0 < share <= 1 or run < 1:
        raise ConfigError(f"share = {share}, but of {steps} steps it has to run at least one and at most all")
    return steps - run


def offset_noise(noise: Tensor, offset: Tensor, *, strength: float = 0.1) -> Tensor:
    """Noise with a part that all pixels of a frame share, so that brightness is noised too.

        noise[b, c, f, y, x] + strength * offset[b, c, f]

    Args:
        noise: [B, C, F, H, W], standard normal.
        offset: [B, C, F], standard normal.
        strength: of the shared part.

    Returns:
        As ``noise``.

    Raises:
        ShapeError: not [B, C, F, H, W] and [B, C, F].

    Source: the code of Yuan et al. 2023, InstructVideo (arXiv:2312.12490).

    >>> offset_noise(torch.zeros(1, 1, 2, 1, 1), torch.tensor([[[1.0, -2.0]]])).flatten()
    tensor([ 0.1000, -0.2000])
    """
    if noise.ndim != 5:
        raise ShapeError(f"noise: expected [B, C, F, H, W], got {list(noise.shape)}")
    check_shape(offset, noise.shape[:3], name="offset", letters="[B, C, F]")
    return noise + strength * offset[..., None, None]
