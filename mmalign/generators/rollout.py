"""Denoising trajectories with the log-probability of each random step, in a sampler whose transitions are known.

A pipeline's own solver may keep a history that a random step would corrupt, so training rolls out with DDIM or Euler on
the pipeline's own noise levels. What the pipeline does before its first step (prompts, initial noise, levels) is taken
from the pipeline itself.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.capture import listen
from mmalign.generators.conditioning import Conditioning
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.generators.timesteps import NoiseLevel
from mmalign.sampling.parametrisation import Prediction
from mmalign.sampling.steps import FlowStep, Transition, ddim_step, flow_sde_step

RatioGuidance = Literal["inside", "outside"]
"""Whether a step's log-probability is of the guided prediction that made it, or of the conditional branch alone."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a pipeline has made before its first step.

    Args:
        conditioning: of B samples.
        noise: [B, ...], the initial latents of their seeds.
        levels: T + 1 noise levels, from pure noise to clean data, shared by all samples.
    """

    conditioning: Conditioning
    noise: Tensor
    levels: NoiseLevel

    def rows(self, index: range) -> "Start":
        """Some of the samples."""
        rows = torch.tensor(index, dtype=torch.long)
        return Start(self.conditioning.rows(rows), self.noise[index.start : index.stop], self.levels)


def step_scheduler(scheduler: Any) -> Any:
    """A scheduler of one known transition on the noise levels of ``scheduler``: Euler of a flow, or DDIM.

    Where DDIM's configuration cannot say those levels (CogVideoX shifts them, Stable Audio's have no discrete rows),
    the scheduler itself: only its levels are used, never its step.
    """
    config = scheduler.config
    if (config.get("prediction_type") or "flow_prediction") == "flow_prediction":
        if type(scheduler) is FlowMatchEulerDiscreteScheduler:
            return scheduler
        shift = {"shift": config["flow_shift"]} if config.get("flow_shift") else {}
        return FlowMatchEulerDiscreteScheduler.from_config(config, **shift)
    if type(scheduler) is DDIMScheduler or not hasattr(scheduler, "alphas_cumprod"):
        return scheduler
    known = inspect.signature(DDIMScheduler.__init__).parameters
    ddim = DDIMScheduler.from_config({name: value for name, value in config.items() if name in known})
    own = type(scheduler).from_config(config).alphas_cumprod  # its own may have been moved or written over
    return ddim if torch.allclose(ddim.alphas_cumprod, own.to(ddim.alphas_cumprod)) else scheduler


@torch.no_grad()
def begin(
    generator: DenoisingGenerator,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float | None = None,
    **options: Any,
) -> Start:
    """Let the pipeline prepare a run and leave it at its first denoiser call, which costs no pass.

    Args:
        generator: whose pipeline it is.
        prompts: B texts.
        seeds: B; equal seeds are equal initial noise.
        steps: T.
        guidance: keep both branches at this scale; None keeps the conditional branch alone.
        options: the pipeline's own.
    """
    pipeline = generator.pipeline
    users = pipeline.scheduler
    pipeline.scheduler = step_scheduler(users)
    two_calls = guidance is not None and generator.guidance.layout == "two_calls"
    arguments = generator._arguments(prompts, seeds=seeds, guidance=guidance, steps=steps, **options)
    try:
        with listen(pipeline, generator.policy, stop_at_call=2 if two_calls else 1) as recording:
            pipeline(**arguments)
        conditioning, noise = generator.conditioning_of(recording, batch=len(prompts))
        levels = _levels(generator, pipeline.scheduler)
    finally:
        pipeline.scheduler = users
    return Start(conditioning, noise.float(), levels)


def _levels(generator: DenoisingGenerator, scheduler: Any) -> NoiseLevel:
    """The T times that the scheduler was set to, and the clean end."""
    levels = generator.timesteps.at_time(scheduler.timesteps)
    if generator.timesteps.kind == "flow_prediction":
        sigma = scheduler.sigmas.float().cpu()  # not from the times, whose rounding is coarser
        sigma = 1 - sigma if generator.timesteps.times == "inverted_flow" else sigma
        return NoiseLevel(1 - sigma, sigma, torch.cat([levels.model_time, torch.zeros(1)]))
    abar = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    end = torch.tensor([abar**0.5]), torch.tensor([(1 - abar) ** 0.5]), torch.zeros(1)
    return NoiseLevel(
        *(torch.cat(pair) for pair in zip((levels.alpha, levels.sigma, levels.model_time), end, strict=True))
    )


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How training rolls out.

    Args:
        noise_level: eta of DDIM, or of a flow's step the number that ``flow_sde_step`` takes; 0 is deterministic.
        flow_step: the kind of random step of a flow.
        guidance: scale; None is off.
        ratio_guidance: which prediction the log-probabilities are of.
    """

    noise_level: float
    flow_step: FlowStep = "flow-sde"
    guidance: float | None = None
    ratio_guidance: RatioGuidance = "inside"

    def step(
        self,
        prediction: Prediction,
        to: NoiseLevel,
        *,
        random: bool = True,
        noise: Tensor | None = None,
        sample: Tensor | None = None,
    ) -> Transition:
        """One step to the level ``to`` [B]: take it with ``noise``, or score the recorded ``sample``."""
        to = to.to(prediction.noisy.device)
        level = self.noise_level if random else 0.0
        if prediction.kind == "flow_prediction":
            return flow_sde_step(
                prediction, to.sigma, kind=self.flow_step, noise_level=level, noise=noise, sample=sample
            )
        return ddim_step(prediction, to.alpha, to.sigma, eta=level, noise=noise, sample=sample)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Rollouts of B samples, as their steps were taken.

    Args:
        latents: [B, T + 1, ...], float32; the last is the clean result.
        levels: T + 1.
        conditioning: of B samples.
        sampler: how each step was taken.
        window: the steps that were random; only they have a log-probability.
        log_prob: [B, W], of the steps of ``window``, under the weights that made them.
    """

    latents: Tensor
    levels: NoiseLevel
    conditioning: Conditioning
    sampler: Sampler
    window: range
    log_prob: Tensor

    @property
    def clean(self) -> Tensor:
        """[B, ...], the results."""
        return self.latents[:, -1]

    def __len__(self) -> int:
        return len(self.latents)


@torch.no_grad()
def rollout(
    generator: DenoisingGenerator,
    start: Start,
    sampler: Sampler,
    *,
    step_seeds: Sequence[int],
    window: range | None = None,
) -> Trajectory:
    """Denoise from a start with the generator's active weights.

    Args:
        generator: predicts.
        start: initial noise, conditioning and levels.
        sampler: how steps are taken.
        step_seeds: B, of the noise of each sample's random steps, apart from that of its initial noise.
        window: which steps are random, the others being deterministic; by default all but the last, which the SDE
            leaves with noise in the result and DDIM without a density.

    Raises:
        ConfigError: the window does not lie inside the steps, or holds a step without density.
    """
    count = len(start.levels) - 1
    if window is None:
        window = range(count - 1) if sampler.noise_level > 0 else range(0)
    if len(window) and not (window.start >= 0 and window.stop <= count):
        raise ConfigError(f"window {window.start} to {window.stop}: there are steps 0 to {count - 1}")
    randoms = [torch.Generator("cpu").manual_seed(seed) for seed in step_seeds]
    device = generator.device
    noisy = start.noise.to(device)
    latents, log_probs = [noisy], []
    for t in range(count):
        here, to = (start.levels.rows(torch.full((len(noisy),), k)) for k in (t, t + 1))
        guided, ratio = predictions(generator, noisy, here, start.conditioning, sampler)
        if t in window:
            draws = [torch.randn(noisy.shape[1:], generator=random) for random in randoms]
            taken = sampler.step(guided, to, noise=torch.stack(draws).to(device))
            noisy = taken.sample
            scored = taken if ratio is guided else sampler.step(ratio, to, sample=noisy)
            log_probs.append(scored.log_prob)
        else:
            noisy = sampler.step(guided, to, random=False).sample
        latents.append(noisy)
    log_prob = torch.stack(log_probs, 1) if log_probs else torch.zeros(len(noisy), 0, device=device)
    return Trajectory(torch.stack(latents, 1), start.levels, start.conditioning, sampler, window, log_prob)


def predictions(
    generator: DenoisingGenerator,
    noisy: Tensor,
    level: NoiseLevel,
    conditioning: Conditioning,
    sampler: Sampler,
) -> tuple[Prediction, Prediction]:
    """The prediction that makes a step, and the one whose log-probability counts; one object where they agree."""
    conditional = generator.predict(noisy, level, conditioning)
    if sampler.guidance is None:
        return conditional, conditional
    guided = generator.guide(conditional, level, conditioning, guidance=sampler.guidance)
    return guided, guided if sampler.ratio_guidance == "inside" else conditional


def scored_step(
    generator: DenoisingGenerator, trajectory: Trajectory, sample: Tensor, step: Tensor
) -> Transition:
    """Recorded steps under the generator's active weights; gradient flows through their mean.

    Args:
        generator: predicts.
        trajectory: with the steps as they were taken.
        sample: [N], index of a sample.
        step: [N], index of a step of its window.

    Returns:
        The transitions [N, ...], with ``log_prob`` [N].
    """
    noisy, taken = (trajectory.latents[sample, k].to(generator.device) for k in (step, step + 1))
    here, to = trajectory.levels.rows(step), trajectory.levels.rows(step + 1)
    sampler = trajectory.sampler
    guidance = sampler.guidance if sampler.ratio_guidance == "inside" else None
    prediction = generator.predict(noisy, here, trajectory.conditioning.rows(sample), guidance=guidance)
    return sampler.step(prediction, to, sample=taken)
