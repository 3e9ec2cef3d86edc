"""Single samples with noise and noise level, as forward-process methods train on them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.generators.denoising import DenoisingGenerator
from mmalign.generators.timesteps import NoiseLevel
from mmalign.sampling.schedules import logit_normal


@dataclass(frozen=True, eq=False)
class NoisedBatch:
    """Rows of some samples with their noise.

    Args:
        rows: [B], which samples.
        noise: [B, ...].
        level: B noise levels.
        weight: [B], of each row, or a number per row of another meaning (an advantage).
    """

    rows: Tensor
    noise: Tensor
    level: NoiseLevel
    weight: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> "NoisedBatch":
        """Its rows from ``start`` to ``stop``."""
        rows = slice(start, stop)
        level = self.level.rows(torch.arange(start, stop))
        return NoisedBatch(self.rows[rows], self.noise[rows], level, self.weight[rows])


def training_level(generator: DenoisingGenerator, size: int, *, random: torch.Generator) -> NoiseLevel:
    """Random training levels: logit-normal for a flow, as SD3 was trained; even for a diffusion, as DDPM was."""
    count = len(generator.timesteps)
    if generator.timesteps.kind == "flow_prediction":
        share = logit_normal(size, generator=random)
        row = ((1 - share) * count).long().clamp(0, count - 1)  # the table begins with the most noise
    else:
        row = torch.randint(count, (size,), generator=random)
    return generator.timesteps.at(row)
