"""Reads a scheduler's training noise levels as rows of (alpha, sigma, model time), verified against a captured run."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import UnsupportedPipelineError
from mmalign.generators.capture import Recording
from mmalign.sampling.parametrisation import Kind, Prediction


@dataclass(frozen=True, eq=False)
class NoiseLevel:
    """How much noise each of B latents holds, and what the denoiser is told of it.

    Args:
        alpha: [B], share of the clean latents.
        sigma: [B], share of the noise.
        model_time: [B], the denoiser's time.
    """

    alpha: Tensor
    sigma: Tensor
    model_time: Tensor

    def __len__(self) -> int:
        return len(self.sigma)

    def rows(self, index: Tensor) -> "NoiseLevel":
        """The levels at ``index`` [N]; indices may repeat."""
        index = index.to(self.sigma.device)
        return NoiseLevel(self.alpha[index], self.sigma[index], self.model_time[index])

    def to(self, device: torch.device | str) -> "NoiseLevel":
        """The same on another device."""
        return NoiseLevel(self.alpha.to(device), self.sigma.to(device), self.model_time.to(device))


@dataclass(frozen=True, eq=False)
class TimestepTable:
    """The noise levels a denoiser was trained at, from most to least noise.

    Args:
        kind: what the network predicts.
        alpha: [N], share of the clean latents in what the denoiser sees.
        sigma: [N], share of the noise. Variance preserving: alpha^2 + sigma^2 = 1. Flow: alpha + sigma = 1.
        scheduler_time: [N], the scheduler's own time.
        time_scale: model time = time_offset + time_scale * scheduler time.
        time_offset: see ``time_scale``.
    """

    kind: Kind
    alpha: Tensor
    sigma: Tensor
    scheduler_time: Tensor
    time_scale: float = 1.0
    time_offset: float = 0.0

    def __len__(self) -> int:
        return len(self.sigma)

    @property
    def model_time(self) -> Tensor:
        """[N], what the denoiser is given as its time."""
        return self.time_offset + self.time_scale * self.scheduler_time

    def at(self, row: Tensor) -> NoiseLevel:
        """The levels of rows [B] of the table."""
        row = row.to(self.sigma.device)
        return NoiseLevel(self.alpha[row], self.sigma[row], self.model_time[row])

    def at_time(self, scheduler_time: Tensor) -> NoiseLevel:
        """The levels at times [B] of the scheduler: whole times are rows, flows exact, others interpolated."""
        alpha, sigma = zip(*(_row(self, float(time)) for time in scheduler_time), strict=True)
        time = scheduler_time.float().cpu()
        return NoiseLevel(torch.tensor(alpha), torch.tensor(sigma), self.time_offset + self.time_scale * time)


def read_timesteps(scheduler: Any, recording: Recording | None = None) -> TimestepTable:
    """The table of a diffusers scheduler; with a recording, in the time the denoiser was really given.

    Raises:
        UnsupportedPipelineError: the scheduler has neither ``alphas_cumprod`` nor flow sigmas, or the recorded times
            are no straight line of the scheduler's.
    """
    config = scheduler.config
    kind: Any = config.get("prediction_type") or "flow_prediction"
    # A fresh copy: ``set_timesteps`` of earlier runs has overwritten the training grid.
    fresh = type(scheduler).from_config(config)
    if kind == "flow_prediction" and not hasattr(fresh, "alphas_cumprod"):
        sigma = fresh.sigmas[: config["num_train_timesteps"]].float().cpu()
        alpha, time = 1 - sigma, sigma * config["num_train_timesteps"]
    elif kind != "flow_prediction" and hasattr(fresh, "alphas_cumprod"):
        alpha_bar = fresh.alphas_cumprod.float().cpu().flip(0)
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        time = torch.arange(len(alpha_bar) - 1, -1, -1, dtype=torch.float32)
    else:
        raise UnsupportedPipelineError(
            f"{type(scheduler).__name__} with prediction type '{kind}': neither a variance-preserving nor a flow "
            "schedule; set pipeline.scheduler to DDIMScheduler or FlowMatchEulerDiscreteScheduler"
        )
    table = TimestepTable(kind, alpha, sigma, time)
    return table if recording is None else _in_model_time(table, recording)


def _in_model_time(table: TimestepTable, recording: Recording) -> TimestepTable:
    per_step = recording.calls_per_step
    given = torch.tensor(
        [float(time_argument(call.arguments).flatten()[0]) for call in recording.calls[::per_step]]
    )
    said = torch.tensor([step.timestep for step in recording.steps])
    scale = float((given[-1] - given[0]) / (said[-1] - said[0]))
    offset = float(given[0] - scale * said[0])
    error = float((offset + scale * said - given).abs().max())
    if error > 1e-3 * float(given.abs().max()):
        raise UnsupportedPipelineError(
            f"the denoiser's time {given.tolist()} is no straight line of the scheduler's {said.tolist()}"
        )
    return TimestepTable(table.kind, table.alpha, table.sigma, table.scheduler_time, scale, offset)


def time_argument(arguments: dict[str, Any]) -> Tensor:
    """The denoiser's time among its arguments."""
    time: Tensor = arguments[time_name(arguments)]
    return time


def time_name(arguments: dict[str, Any]) -> str:
    """Under which name the denoiser takes its time.

    Raises:
        UnsupportedPipelineError: under none that we know.
    """
    for name in ("timestep", "timesteps", "t"):
        if isinstance(arguments.get(name), Tensor):
            return name
    raise UnsupportedPipelineError(f"no time among the denoiser's arguments {sorted(arguments)}")


def row_error(scheduler: Any, table: TimestepTable, recording: Recording) -> float:
    """Largest relative error of the rows against the recorded steps, 0 where they explain them exactly.

    The denoiser must have seen the scheduler's latents times a known input scale, and the recorded transition must be
    the deterministic one (DDIM with eta 0, or Euler) between two rows. Multistep and stochastic schedulers make other
    transitions by design; for those only the input scale is compared.
    """
    per_step = recording.calls_per_step
    first_order = type(scheduler).__name__ in (
        "DDIMScheduler",
        "EulerDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
    )
    worst = 0.0
    rows = [_row(table, step.timestep) for step in recording.steps]
    for i, step in enumerate(recording.steps):
        alpha, sigma = rows[i]
        seen = next(t for t in recording.calls[i * per_step].arguments.values() if isinstance(t, Tensor))
        seen = seen[: len(step.sample)].float()
        # Euler schedulers of variance-preserving models hold latents divided by alpha.
        held = 1.0 if torch.allclose(seen, step.sample.float(), rtol=1e-4, atol=1e-5) else alpha
        worst = max(worst, _relative(step.sample.float() * held, seen))
        if not first_order or i + 1 == len(rows):
            continue
        batch = len(seen)
        prediction = Prediction(
            noisy=seen,
            output=step.model_output.float(),
            alpha=torch.full((batch,), alpha),
            sigma=torch.full((batch,), sigma),
            kind=table.kind,
        )
        next_alpha, next_sigma = rows[i + 1]
        expected = next_alpha * prediction.clean + next_sigma * prediction.noise
        reached = step.prev_sample.float() * (next_alpha if held != 1.0 else 1.0)
        worst = max(worst, _relative(expected, reached))
    return worst


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12))


def _row(table: TimestepTable, scheduler_time: float) -> tuple[float, float]:
    """Alpha and sigma at any scheduler time: the row itself for discrete times, exact for flows, else interpolated."""
    if table.kind == "flow_prediction":
        sigma = scheduler_time / len(table)
        return 1 - sigma, sigma
    lower = int(scheduler_time)
    share = scheduler_time - lower
    index = len(table) - 1 - lower

    def ratio(i: int) -> float:
        return float(table.sigma[i] / table.alpha[i])

    # Schedulers with fractional times interpolate sigma / alpha between the two rows.
    noise_ratio = (
        ratio(index) if share == 0 else (1 - share) * ratio(index) + share * ratio(max(0, index - 1))
    )
    alpha = (1 + noise_ratio**2) ** -0.5
    return alpha, alpha * noise_ratio
