"""What a pipeline returned, in the units of its medium; every class names and shapes its output its own way."""

from typing import Any

from torch import Tensor

from mmalign.errors import UnsupportedPipelineError
from mmalign.media import Modality

_MODALITIES: dict[int, Modality] = {3: "audio", 4: "image", 5: "video"}
"""By the number of axes of a batch of media."""


def media_of(output: Any) -> Tensor:
    """Media of a pipeline's output for ``output_type="pt"``, fp32.

    Returns:
        Pictures [B, 3, H, W] or videos [B, T, 3, H, W] in [0, 1], or sound [B, C, N] in [-1, 1].

    Raises:
        UnsupportedPipelineError: it is none of these.
    """
    if not isinstance(output, Tensor) or not 2 <= output.ndim <= 5:
        what = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UnsupportedPipelineError(
            f"the pipeline returned {what}: neither pictures [B, 3, H, W], videos [B, T, 3, H, W] nor sound [B, N]"
        )
    if output.ndim >= 4:
        return output.float()
    sound = output if output.ndim == 3 else output.unsqueeze(1)
    return sound.float().clamp(-1, 1)


def modality_of(media: Tensor) -> Modality:
    """What a batch of ``media_of`` shows.

    >>> import torch
    >>> modality_of(torch.zeros(1, 2, 16000))
    'audio'
    """
    return _MODALITIES[media.ndim]
