"""How a pipeline mixes its conditional and unconditional branch, fitted from the numbers of a captured run."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mmalign.errors import UnsupportedPipelineError
from mmalign.generators.capture import Path, Recording, map_tensors, tensors
from mmalign.generators.conditioning import Arguments

TRUE_GUIDANCE = "true_cfg_scale"
"""A guidance by two branches where ``guidance_scale`` is something else; it asks for the other prompt."""
GUIDANCE_NAMES = ("guidance_scale", TRUE_GUIDANCE)
NO_PROMPT = " "
"""The other prompt, as diffusers documents it for QwenImage."""


@dataclass(frozen=True)
class Guidance:
    """Scheduler input = w_c * conditional + w_u * unconditional.

    Both weights are straight lines (a, b) of the guidance scale, a + b * scale: in most pipelines w_c = scale and
    w_u = 1 - scale, in some 1 + scale and -scale.

    Args:
        layout: "none" where there is one branch; else whether the branches are halves of a doubled batch or two calls.
        conditional_index: which half or call is the conditional one.
        conditional_line: of w_c.
        unconditional_line: of w_u.
    """

    layout: Literal["none", "doubled", "two_calls"]
    conditional_index: int = 1
    conditional_line: tuple[float, float] = (0.0, 1.0)
    unconditional_line: tuple[float, float] = (1.0, -1.0)

    def weights(self, scale: float) -> tuple[float, float]:
        """(w_c, w_u) at a guidance scale.

        >>> Guidance("doubled").weights(4.5)
        (4.5, -3.5)
        """
        (a, b), (c, d) = self.conditional_line, self.unconditional_line
        return a + b * scale, c + d * scale

    def branches(
        self, calls: list[Arguments], axes: dict[Path, int | None], *, batch: int
    ) -> tuple[Arguments, Arguments | None]:
        """The conditional and unconditional arguments of one step; a single undoubled call is conditional.

        Args:
            calls: the step's calls.
            axes: batch axis of every argument.
            batch: how many samples the pipeline draws.
        """
        index = self.conditional_index
        if len(calls) == 2:
            return calls[index], calls[1 - index]
        (arguments,) = calls

        def half(which: int) -> Arguments:
            def take(path: Path, tensor: Tensor) -> Tensor:
                axis = axes.get(path)
                return (
                    tensor if axis is None or tensor.shape[axis] < 2 * batch else tensor.chunk(2, axis)[which]
                )

            taken: Arguments = map_tensors(arguments, take)
            return taken

        doubled = self.layout == "doubled" and any(
            axis is not None and tensor.shape[axis] == 2 * batch
            for path, tensor in tensors(arguments).items()
            for axis in [axes.get(path)]
        )
        return (half(index), half(1 - index)) if doubled else (arguments, None)


def without_variance(output: Tensor, latents: Tensor) -> Tensor:
    """The prediction alone where the denoiser also predicts a variance (twice the channels)."""
    return output.chunk(2, 1)[0] if output.shape[1] == 2 * latents.shape[1] else output


def same_steps(one: Recording, other: Recording) -> bool:
    """Whether two runs gave their scheduler the same."""
    pairs = zip(one.steps, other.steps, strict=True)
    return all(torch.equal(a.model_output, b.model_output) for a, b in pairs)


def fit_guidance(
    plain: Recording,
    guided: list[tuple[float, Recording]],
    axes: dict[Path, int | None],
    *,
    latents_name: str,
    sign: int = 1,
) -> tuple[Guidance, float]:
    """Find the layout, the conditional branch and the weights of a pipeline.

    Args:
        plain: a run with guidance off; its arguments are those of the conditional branch.
        guided: two runs with the same seeds, at two scales.
        axes: batch axis of every argument.
        latents_name: the denoiser's latents, left out of the comparison.
        sign: -1 where the pipeline turns the denoiser's outputs round; the weights are of the outputs so turned.

    Returns:
        The rule and its largest relative error over all steps and samples. A fit per step could be exact by accident.
    """
    recording = guided[0][1]
    batch = len(plain.steps[0].sample)
    if recording.calls_per_step == 1 and len(tensors(recording.calls[0].arguments)[(latents_name,)]) == batch:
        return Guidance("none"), 0.0  # unguided, or the scale is an argument of the denoiser
    if recording.calls_per_step > 2:
        raise UnsupportedPipelineError(f"guidance with {recording.calls_per_step} denoiser calls a step")
    rule = Guidance("two_calls" if recording.calls_per_step == 2 else "doubled")
    wanted = {
        path: tensor for path, tensor in tensors(plain.calls[0].arguments).items() if path != (latents_name,)
    }

    def distance(index: int) -> float:
        calls = [call.arguments for call in recording.calls[: recording.calls_per_step]]
        found = tensors(replace(rule, conditional_index=index).branches(calls, axes, batch=batch)[0])
        return sum(
            float((found[path].float() - tensor.float()).abs().sum())
            if path in found and found[path].shape == tensor.shape  # QwenImage leaves out a mask of ones
            else 1e9
            for path, tensor in wanted.items()
        )

    rule = replace(rule, conditional_index=min((0, 1), key=distance))
    (low, at_low, error_low), (high, at_high, error_high) = (
        (scale, *_fit_weights(rule, recorded, sign)) for scale, recorded in guided
    )
    lines = [
        (a - (b - a) / (high - low) * low, (b - a) / (high - low))
        for a, b in zip(at_low, at_high, strict=True)
    ]
    return replace(rule, conditional_line=lines[0], unconditional_line=lines[1]), max(error_low, error_high)


def _fit_weights(rule: Guidance, recording: Recording, sign: int) -> tuple[tuple[float, float], float]:
    """The two weights that explain every step and sample at once, and their largest relative error."""
    columns: list[list[Tensor]] = [[], []]
    target = []
    for i, step in enumerate(recording.steps):
        outputs: Any = [call.output for call in recording.calls[i * recording.calls_per_step :]]
        halves = outputs[:2] if rule.layout == "two_calls" else outputs[0].chunk(2)
        for column, which in zip(columns, (rule.conditional_index, 1 - rule.conditional_index), strict=True):
            column.append(sign * without_variance(halves[which], step.sample).double().flatten())
        target.append(step.model_output.double().flatten())
    matrix = torch.stack([torch.cat(column) for column in columns], 1)
    wanted = torch.cat(target)
    weights = torch.linalg.lstsq(matrix, wanted).solution
    error = float((matrix @ weights - wanted).abs().max() / wanted.abs().max())
    return (float(weights[0]), float(weights[1])), error
