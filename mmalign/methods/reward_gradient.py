"""What methods on the reward's gradient share: chains whose last steps carry it, and one unit for any reward."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.rollout import Sampler, Start, begin
from mmalign.methods.base import Method, Task, epoch_rows, mixed_seeds
from mmalign.methods.configs.gradient import RewardGradientConfig
from mmalign.methods.online import NOISE, scale_of
from mmalign.sampling.parametrisation import Prediction

CALIBRATION_SEED = 7


@dataclass(frozen=True, eq=False)
class PromptBatch:
    """Prompts to draw with gradient.

    Args:
        prompts: B texts.
        seeds: B, of their initial noise.
        number: B numbers of the method's own meaning: a step, or how many steps carry gradient.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    number: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompts)

    def part(self, start: int, stop: int) -> "PromptBatch":
        """Its rows from ``start`` to ``stop``."""
        rows = slice(start, stop)
        return PromptBatch(self.prompts[rows], self.seeds[rows], self.number[rows])


class RewardGradientMethod(Method):
    """A method that follows the reward's gradient into a chain of denoising steps."""

    def __init__(self, config: RewardGradientConfig, task: Task) -> None:
        self.gradient, self.task, self.generator = config, task, task.generator
        self.prompts = task.prompts or (task.data.texts if task.data is not None else ())
        self._unit: tuple[float, float] | None = None
        if not self.prompts:
            raise ConfigError(f"{config.name} draws samples while it learns: give --prompts FILE")

    def draw_prompts(self, step: int, *, size: int, seed: int) -> tuple[list[str], list[int]]:
        """The prompts of a step and the seeds of their noise."""
        rows = epoch_rows(step, size=size, count=len(self.prompts), seed=seed)
        return [self.prompts[int(row)] for row in rows], mixed_seeds(size, seed, NOISE, step)

    def start(self, prompts: Sequence[str], seeds: Sequence[int]) -> Start:
        """What the pipeline makes before its first step."""
        options = {k: v for k, v in self.task.sampling.items() if k not in ("steps", "guidance")}
        return begin(
            self.generator,
            prompts,
            seeds=seeds,
            steps=self.gradient.rollout_steps,
            guidance=scale_of(self.gradient.guidance),
            **options,
        )

    def predict(self, start: Start, noisy: Tensor, step: int) -> Prediction:
        """The guided prediction at a step of the chain."""
        here = start.levels.rows(torch.full((len(noisy),), step))
        return self.generator.predict(
            noisy, here, start.conditioning, guidance=scale_of(self.gradient.guidance)
        )

    def walk(self, start: Start, noisy: Tensor, first: int, last: int) -> Tensor:
        """Latents after the deterministic steps from ``first`` up to ``last``; gradient flows where it is enabled."""
        sampler = Sampler(noise_level=0.0)
        for step in range(first, last):
            to = start.levels.rows(torch.full((len(noisy),), step + 1))
            noisy = sampler.step(self.predict(start, noisy, step), to).sample
        return noisy

    def standardised(self, latents: Tensor, prompts: Sequence[str]) -> Tensor:
        """The reward [B] of clean latents with gradient, in standard deviations above the reference's mean."""
        mean, std = self.unit()
        return (self.task.score_with_grad(latents, prompts) - mean) / std

    @torch.no_grad()
    def unit(self) -> tuple[float, float]:
        """Mean and std of the reference's rewards, measured once on its samples of the first prompts."""
        if self._unit is None:
            count, every = self.gradient.calibration, len(self.prompts)
            prompts = [self.prompts[i % every] for i in range(count)]
            seeds = mixed_seeds(count, CALIBRATION_SEED)
            scores = []
            with self.generator.weights("reference"):
                for begin_ in range(0, count, self.task.draw_batch):
                    rows = slice(begin_, begin_ + self.task.draw_batch)
                    start = self.start(prompts[rows], seeds[rows])
                    noise = start.noise.to(self.generator.device)
                    clean = self.walk(start, noise, 0, len(start.levels) - 1)
                    scores.append(self.task.score_with_grad(clean, prompts[rows]).float().cpu())
            found = torch.cat(scores)
            self._unit = float(found.mean()), max(float(found.std()), 1e-6)
        return self._unit

    def state(self) -> dict[str, Tensor]:
        """The unit of the reward."""
        return {"unit": torch.tensor(self.unit(), dtype=torch.float64)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The unit of the reward, as it was."""
        mean, std = state["unit"].tolist()
        self._unit = mean, std
