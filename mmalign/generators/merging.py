"""Combines LoRAs in weight space: spherical interpolation of what they changed, and a step back to the start.

Every result is a linear combination of the LoRAs' updates layer by layer, so it is written exactly as one LoRA whose
rank is the sum of theirs; nothing is approximated.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmalign.errors import ConfigError

Update = Mapping[str, tuple[Tensor, Tensor]]
"""By layer: down [r, in] and up [out, r]; the layer changes by up @ down (its scale alpha / rank inside ``up``)."""


def read_update(state: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, tuple[Tensor, Tensor]]:
    """A LoRA file's tensors as updates by layer.

    Args:
        state: PEFT's or diffusers' names, ``<layer>.lora_A.weight`` and ``<layer>.lora_B.weight``.
        scales: by layer, what its update is multiplied with.

    Raises:
        ConfigError: a layer has one half only, or something beside a LoRA (DoRA, biases, whole modules).
    """
    downs = {n.removesuffix(".lora_A.weight"): t for n, t in state.items() if n.endswith(".lora_A.weight")}
    ups = {n.removesuffix(".lora_B.weight"): t for n, t in state.items() if n.endswith(".lora_B.weight")}
    if not downs or downs.keys() != ups.keys() or len(downs) + len(ups) != len(state):
        raise ConfigError("not a plain LoRA: expected lora_A and lora_B of every layer and nothing else")
    return {name: (downs[name].float(), scales[name] * ups[name].float()) for name in downs}


def change(down: Tensor, up: Tensor) -> Tensor:
    """What a layer's weights change by, [out, in]; of a convolution with its window flattened."""
    return up.flatten(1) @ down.flatten(1)


def slerp_weights(first: Tensor, second: Tensor, share: float) -> tuple[float, float]:
    """How much of two updates a spherical interpolation takes.

        sin((1 - share) * omega) / sin(omega),  sin(share * omega) / sin(omega),   omega the angle between them

    Args:
        first: any shape, flattened for the angle.
        second: as ``first``.
        share: 0 is the first, 1 the second.

    Returns:
        Two numbers; the linear 1 - share and share where the two are parallel.

    Source: Rame et al. 2024, WARP, section 3.2 (arXiv:2406.16768), from Shoemake 1985.

    >>> slerp_weights(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)  # sin 45 over sin 90 degrees
    (0.7071067811865475, 0.7071067811865475)
    """
    norms = first.double().norm() * second.double().norm()
    cosine = float((first.double() * second.double()).sum() / norms) if norms > 0 else 1.0
    omega = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(omega) < 1e-6:
        return 1 - share, share
    return math.sin((1 - share) * omega) / math.sin(omega), math.sin(share * omega) / math.sin(omega)


def slerp(updates: Sequence[Update], *, share: float = 0.5) -> dict[str, tuple[Tensor, Tensor]]:
    """Merge LoRAs of one model layer by layer, each after the first into what the ones before it gave.

    For M updates the k-th enters at ``share`` = 1 / k if ``share`` is 0.5, so that all count alike.

    Raises:
        ConfigError: fewer than two, or of different layers.

    Source: Rame et al. 2024, WARP, section 3.2 and appendix B.1 (arXiv:2406.16768), where the angles are per layer.
    """
    if len(updates) < 2:
        raise ConfigError("slerp: expected at least two LoRAs")
    if any(update.keys() != updates[0].keys() for update in updates):
        raise ConfigError(
            "slerp: the LoRAs change different layers, so they are of different models or targets"
        )
    merged = dict(updates[0])
    for k, update in enumerate(updates[1:], start=2):
        part = share if len(updates) == 2 else 1 / k
        for name, (down, up) in update.items():
            a, b = slerp_weights(change(*merged[name]), change(down, up), part)
            merged[name] = stack([merged[name], (down, up)], [a, b])
    return merged


def linear(updates: Sequence[Update], weights: Sequence[float]) -> dict[str, tuple[Tensor, Tensor]]:
    """The weighted sum of LoRAs of one model.

    Raises:
        ConfigError: another number of weights, or different layers.
    """
    if len(weights) != len(updates) or any(update.keys() != updates[0].keys() for update in updates):
        raise ConfigError("linear: expected LoRAs of the same layers and one weight for each")
    return {name: stack([update[name] for update in updates], weights) for name in updates[0]}


def stack(parts: Sequence[tuple[Tensor, Tensor]], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Several updates of a layer as one whose rank is the sum of theirs: sum_k weight_k * up_k @ down_k."""
    downs = torch.cat([down for down, _ in parts])
    ups = torch.cat([weight * up for (_, up), weight in zip(parts, weights, strict=True)], 1)
    return downs, ups


def towards_start(update: Update, *, share: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Take only a share of an update: WARP's interpolation to the start, where 0 is the start and 1 the update.

    Source: Rame et al. 2024, WARP, section 3.3 (arXiv:2406.16768).
    """
    return {name: (down, share * up) for name, (down, up) in update.items()}
