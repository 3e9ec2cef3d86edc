"""The head of ImageReward and of LAION's aesthetic predictor: linear layers with nothing between them."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mmalign.errors import ConfigError


def affine_mlp_head(h: Tensor, weights: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """What linear layers, one after another, make of vectors.

        W_n (... (W_2 (W_1 h + b_1) + b_2) ...) + b_n

    Both predictors train with dropout between the layers and no other non-linearity, so in use they are one affine map:
    the mean of two embeddings has the mean of their scores.

    Args:
        h: [B, D].
        weights: W_i [D_i, D_(i-1)] and b_i [D_i] of each layer.

    Returns:
        [B, D_n].
    """
    for weight, bias in weights:
        h = linear(h, weight, bias)
    return h


class LinearHead(nn.Module):
    """``affine_mlp_head`` as a module, from a checkpoint's ``layers.{0,2,4,6,7}.{weight,bias}``.

    Args:
        state: the checkpoint's tensors; those under ``prefix`` are taken.
        prefix: before "layers.".
        origin: of the checkpoint, for messages.

    Raises:
        ConfigError: no such layers, or layers that do not fit one another or do not end in one number.
    """

    def __init__(self, state: Mapping[str, Tensor], *, prefix: str = "", origin: object) -> None:
        super().__init__()
        pattern = re.compile(re.escape(prefix) + r"layers\.(\d+)\.weight")
        places = sorted(int(match[1]) for name in state if (match := pattern.fullmatch(name)))
        self.weights = nn.ParameterList(state[f"{prefix}layers.{i}.weight"].float() for i in places)
        self.biases = nn.ParameterList(
            state.get(f"{prefix}layers.{i}.bias", torch.zeros(0)).float() for i in places
        )
        sizes = [tuple(weight.shape) for weight in self.weights]
        fits = all(after[1] == before[0] for before, after in pairwise(sizes))
        biases = all(bias.shape == (size[0],) for bias, size in zip(self.biases, sizes, strict=True))
        if not sizes or not fits or not biases or sizes[-1][0] != 1:
            raise ConfigError(
                f"'{origin}' has no linear layers that end in one number: found {sizes} under '{prefix}layers.'"
            )

    @property
    def width(self) -> int:
        """D, the length of what it takes."""
        return int(self.weights[0].shape[1])

    def forward(self, h: Tensor) -> Tensor:
        """[B, D] to [B]."""
        return affine_mlp_head(h, list(zip(self.weights, self.biases, strict=True))).squeeze(-1)
