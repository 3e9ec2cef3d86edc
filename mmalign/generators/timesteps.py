"""Reads a scheduler's training noise levels as rows of (alpha, sigma, model time), verified against a captured run."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mmalign.errors import UnsupportedPipelineError
from mmalign.generators.capture import Recording
from mmalign.sampling.parametrisation import Kind, Prediction

Times = Literal["rows", "flow", "inverted_flow", "logarithm", "arc"]
"""What a scheduler's time says of r = sigma / alpha at N training levels: whole times count "rows" from the clean
end and those between are interpolated in r; in a "flow" sigma = time / N, or 1 - time / N where it is "inverted";
schedulers that precondition tell the "logarithm" log(r) / 4 or the "arc" atan(r) / (pi / 2)."""


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
        times: what the scheduler's time says of the noise.
        output_sign: -1 where the scheduler expects the opposite of what ``kind`` means here.
    """

    kind: Kind
    alpha: Tensor
    sigma: Tensor
    scheduler_time: Tensor
    time_scale: float = 1.0
    time_offset: float = 0.0
    times: Times = "rows"
    output_sign: int = 1

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
    # A fresh copy: ``set_timesteps`` of earlier runs has overwritten the training grid.
    fresh = type(scheduler).from_config(scheduler.config)
    if (scheduler.config.get("prediction_type") or "flow_prediction") == "flow_prediction":
        table = _flow(fresh)
    elif hasattr(fresh, "precondition_noise"):
        table = _preconditioned(fresh)
    elif hasattr(fresh, "alphas_cumprod"):
        table = _variance_preserving(fresh)
    else:
        raise UnsupportedPipelineError(
            f"{type(scheduler).__name__} with prediction type '{scheduler.config['prediction_type']}': neither a "
            "variance-preserving nor a flow schedule; set pipeline.scheduler to DDIMScheduler or "
            "FlowMatchEulerDiscreteScheduler"
        )
    return table if recording is None else _in_model_time(table, recording)


def _flow(scheduler: Any) -> TimestepTable:
    """Rectified flow: of a scheduler of flows, or of a multistep solver that was set to one."""
    config = scheduler.config
    count = config["num_train_timesteps"]
    if hasattr(scheduler, "alphas_cumprod"):
        shift = config.get("flow_shift") or 1.0
        sigma = torch.arange(count, 0, -1) / count
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
    else:
        sigma = scheduler.sigmas[:count].float().cpu()
    if config.get(
        "invert_sigmas"
    ):  # its sigma is the share of the clean latents, and its velocity points to them
        return TimestepTable(
            "flow_prediction", 1 - sigma, sigma, (1 - sigma) * count, times="inverted_flow", output_sign=-1
        )
    return TimestepTable("flow_prediction", 1 - sigma, sigma, sigma * count, times="flow")


def _variance_preserving(scheduler: Any) -> TimestepTable:
    """Discrete levels by their cumulative product of alphas."""
    alpha_bar = scheduler.alphas_cumprod.float().cpu().flip(0)
    time = torch.arange(len(alpha_bar) - 1, -1, -1, dtype=torch.float32)
    return TimestepTable(scheduler.config["prediction_type"], alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), time)


def _preconditioned(scheduler: Any) -> TimestepTable:
    """EDM's preconditioning with data of deviation 1, which is velocity prediction at alpha = (1 + r^2)^(-1/2)."""
    config = scheduler.config
    if config["prediction_type"] != "v_prediction" or config["sigma_data"] != 1.0:
        raise UnsupportedPipelineError(
            f"{type(scheduler).__name__} with prediction type '{config['prediction_type']}' and "
            f"sigma_data {config['sigma_data']}: only 'v_prediction' with 1.0 is velocity prediction"
        )
    ratio = scheduler.sigmas[: config["num_train_timesteps"]].double().cpu()
    time = scheduler.precondition_noise(ratio)
    known: tuple[Times, ...] = ("logarithm", "arc")
    times = next((t for t in known if torch.allclose(_ratio_at(time, t), ratio, rtol=1e-4)), None)
    if times is None:
        raise UnsupportedPipelineError(
            f"{type(scheduler).__name__}: its time is no known function of the noise"
        )
    alpha = (1 + ratio**2) ** -0.5
    return TimestepTable("v_prediction", alpha.float(), (alpha * ratio).float(), time.float(), times=times)


def _ratio_at(time: Tensor, times: Times) -> Tensor:
    """Sigma / alpha at a preconditioning scheduler's times."""
    return (4 * time).exp() if times == "logarithm" else (time * math.pi / 2).tan()


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
    return replace(table, time_scale=scale, time_offset=offset)


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
            output=table.output_sign * step.model_output.float(),
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
    """Alpha and sigma at any scheduler time: the row itself for whole times, interpolated between them; else exact."""
    if table.times in ("flow", "inverted_flow"):
        share = scheduler_time / len(table)
        sigma = share if table.times == "flow" else 1 - share
        return 1 - sigma, sigma
    if table.times == "rows" and scheduler_time == int(scheduler_time):
        index = len(table) - 1 - int(scheduler_time)
        return float(table.alpha[index]), float(table.sigma[index])
    if table.times == "rows":
        noise_ratio = _interpolated_ratio(table, scheduler_time)
    else:
        noise_ratio = float(_ratio_at(torch.tensor(scheduler_time, dtype=torch.float64), table.times))
    alpha = (1 + noise_ratio**2) ** -0.5
    return alpha, alpha * noise_ratio


def _interpolated_ratio(table: TimestepTable, scheduler_time: float) -> float:
    """Sigma / alpha between two rows, as schedulers with fractional times interpolate it."""
    lower = int(scheduler_time)
    share = scheduler_time - lower
    index = len(table) - 1 - lower

    def ratio(i: int) -> float:
        return float(table.sigma[i] / table.alpha[i])

    return (1 - share) * ratio(index) + share * ratio(max(0, index - 1))
