"""From the vectors of a video's frames to the vector of the video: CLIP4Clip's sequential transformer."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class TemporalHead(nn.Module):
    """What the frames show, and in which order.

        h = transformer(frames + W (frames_t - frames_{t-1}) + position), the first difference being 0
        video = mean_t (frames_t + h_t) / |frames_t + h_t|

    Source: Luo et al. 2021, CLIP4Clip, section 3.3, "sequential type" with its transformer (arXiv:2104.08860); the
    residual and the lengths are those of its code. Differences of neighbours are CLIP2Video's (Fang et al. 2021,
    section 3.2, arXiv:2106.11097), as a term of their frame instead of a token of their own: without them a small head
    learned along which line something moves, and not which way.

    Args:
        frames: T, how many it takes.
        width: D, of a frame's vector.
        heads: of attention.
        layers: of the transformer.
    """

    def __init__(self, *, frames: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.difference = nn.Linear(width, width, bias=False)
        # Not CLIP's 0.01: beside vectors ten times as long as 1, frames would never get an order.
        self.position = nn.Parameter(torch.randn(frames, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor], *, heads: int) -> "TemporalHead":
        """An untrained head of the sizes that a checkpoint has, to be filled with it.

        Args:
            state: tensors by name; one without ``position`` makes a head that they do not fit.
            heads: of attention, which no tensor's shape says.
        """
        frames, width = state.get("position", torch.zeros(1, heads)).shape
        layers = {name.split(".")[2] for name in state if name.startswith("transformer.layers.")}
        return cls(frames=frames, width=width, heads=heads, layers=len(layers))

    def forward(self, frames: Tensor) -> Tensor:
        """[B, T, D] to [B, D], not of length 1."""
        steps = torch.diff(frames, dim=1, prepend=frames[:, :1])
        ordered = frames + self.transformer(frames + self.difference(steps) + self.position)
        return normalize(ordered, dim=-1).mean(1)
