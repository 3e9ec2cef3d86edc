"""What a denoiser is given beside latents and time, for B samples, and which axis of each tensor is the batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ShapeError, UnsupportedPipelineError
from mmalign.generators.capture import Path, map_tensors, tensors

Arguments = dict[str, Any]
"""A denoiser's arguments by name, possibly nested."""


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What the denoiser is given beside latents and time, for B samples.

    Args:
        conditional: arguments by name, as the pipeline passes them.
        unconditional: the guidance branch's, None where conditioning was captured without guidance.
        axes: where the batch lies in each tensor; None where it has none (rotary tables, some sizes).
        size: B.
        latent_shape: of one sample's latents, without the batch.
    """

    conditional: Arguments
    unconditional: Arguments | None
    axes: Mapping[Path, int | None]
    size: int
    latent_shape: tuple[int, ...]

    def rows(self, index: Tensor) -> "Conditioning":
        """The samples at ``index`` [N], in that order; indices may repeat."""

        def select(path: Path, tensor: Tensor) -> Tensor:
            axis = self.axes.get(path)
            return tensor if axis is None else tensor.index_select(axis, index.to(tensor.device))

        unconditional = None if self.unconditional is None else map_tensors(self.unconditional, select)
        conditional = map_tensors(self.conditional, select)
        return Conditioning(conditional, unconditional, self.axes, len(index), self.latent_shape)


def concatenate(parts: Sequence[Conditioning]) -> Conditioning:
    """Several conditionings of one pipeline and the same options as one.

    Raises:
        ShapeError: prompts were padded to different lengths; capture them together.
    """
    first = parts[0]

    def join(branches: list[Arguments]) -> Arguments:
        found = [tensors(branch) for branch in branches]

        def cat(path: Path, tensor: Tensor) -> Tensor:
            axis = first.axes.get(path)
            if axis is None:
                return tensor
            try:
                return torch.cat([f[path] for f in found], axis)
            except RuntimeError:
                shapes = [list(f[path].shape) for f in found]
                raise ShapeError(
                    f"{path}: parts of different shapes {shapes}; condition them in one call"
                ) from None

        joined: Arguments = map_tensors(branches[0], cat)
        return joined

    unconditional = [part.unconditional for part in parts if part.unconditional is not None]
    return Conditioning(
        join([part.conditional for part in parts]),
        join(unconditional) if len(unconditional) == len(parts) else None,
        first.axes,
        sum(part.size for part in parts),
        first.latent_shape,
    )


def batch_axes(once: Arguments, twice: Arguments) -> dict[Path, int | None]:
    """The batch axis of every argument: the one that doubles when every prompt is given twice.

    Prompts of different lengths, so that what is only given with padding (masks) is among them.

    Raises:
        UnsupportedPipelineError: an argument grows in another way.
    """
    single, double = tensors(once), tensors(twice)
    axes: dict[Path, int | None] = {}
    for path, tensor in single.items():
        other = double.get(path)
        if other is None or other.ndim != tensor.ndim:
            raise UnsupportedPipelineError(f"the denoiser's argument {path} changes its form with the batch")
        grown = [i for i, (a, b) in enumerate(zip(tensor.shape, other.shape, strict=True)) if a != b]
        if len(grown) > 1 or any(other.shape[i] != 2 * tensor.shape[i] for i in grown):
            shapes = list(tensor.shape), list(other.shape)
            raise UnsupportedPipelineError(
                f"the denoiser's argument {path} has no batch axis: {shapes[0]}, {shapes[1]}"
            )
        axes[path] = grown[0] if grown else None
    return axes
