"""A CLIP, whoever published it: pictures and prompts to vectors of one space."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from mmalign.errors import UnknownNameError
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.preprocessing import Preprocessing
from mmalign.rewards.prompts import PromptEmbeddings

Model = TypeVar("Model", bound=nn.Module)

LIBRARIES = {
    "open_clip": "mmalign.rewards.clip_open_clip:load",
    "transformers": "mmalign.rewards.clip_transformers:load",
}
"""By the library whose format a checkpoint is in."""


@dataclass(frozen=True, eq=False)
class ClipEncoder:
    """A frozen CLIP.

    Args:
        model: of its own library, in evaluation mode.
        preprocessing: of pictures.
        image: [B, 3, h, w], normalised, to [B, D] in the model's own length; with gradient.
        text: prompts to [B, D] of length 1; without.
        logit_scale: what the model multiplies cosines with.
    """

    model: nn.Module
    preprocessing: Preprocessing
    image: Callable[[Tensor], Tensor]
    text: PromptEmbeddings
    logit_scale: float


def load_encoder(
    card: RewardCard, encoder: ClipEncoder | Mapping[str, Any] | None, *, device: str = "cpu"
) -> ClipEncoder:
    """The CLIP that a card's options describe, or the one that is given.

    Args:
        card: whose weights.
        encoder: ``library``, one of ``LIBRARIES``, and the arguments of its ``load``; None for a folder of open_clip.
        device: where it runs.

    Raises:
        UnknownNameError: no such library.
        ConfigError: the weights are not there or not in this library's format.
    """
    if isinstance(encoder, ClipEncoder):
        return encoder
    options = dict(encoder or {})
    library = options.pop("library", "open_clip")
    if library not in LIBRARIES:
        raise UnknownNameError("library of CLIP models", library, LIBRARIES)
    module, _, function = LIBRARIES[library].partition(":")
    loaded: ClipEncoder = getattr(importlib.import_module(module), function)(card, device=device, **options)
    return loaded


def freeze(model: Model, device: str) -> Model:
    """A model as scorers use it: on its device, in evaluation mode, without gradients of its own."""
    return model.to(device).eval().requires_grad_(False)
