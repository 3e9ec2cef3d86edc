"""Any diffusers pipeline as a generator that can be aligned, by listening to the pipeline itself.

Nothing here knows a pipeline's class. At load the pipeline runs a few steps under ``capture.listen``; what its denoiser
and scheduler were given decides how prompts become conditioning, which rows of a batch belong to which sample, how
guidance mixes the two branches, and at which noise levels the model works. Whatever cannot be verified is refused.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.errors import ConfigError, ShapeError, UnsupportedPipelineError
from mmalign.generators import lora
from mmalign.generators.capture import Recording, listen, listen_decoder, prediction_of, run
from mmalign.generators.codecs.build import build_codec, decodes
from mmalign.generators.codecs.media import media_of
from mmalign.generators.conditioning import Arguments, Conditioning, batch_axes
from mmalign.generators.guidance import (
    GUIDANCE_NAMES,
    NO_PROMPT,
    TRUE_GUIDANCE,
    Guidance,
    fit_guidance,
    same_steps,
    without_variance,
)
from mmalign.generators.pipelines import call_options, denoiser_component, pipeline_name
from mmalign.generators.timesteps import NoiseLevel, read_timesteps, row_error, time_name
from mmalign.sampling.parametrisation import Prediction

PROBE_PROMPTS = ("a", "the other one")
PROBE_STEPS = 4
TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Largest relative error of a load-time check; in sixteen bits it is the rounding of the pipeline's own latents."""


class DenoisingGenerator:
    """A diffusers pipeline whose denoiser is the policy (a LoRA), and the reference with the LoRA off.

    Args:
        pipeline: any diffusers pipeline with one denoiser and one scheduler; ``generator.pipeline`` stays live.
        options: the pipeline's own options for the run at load (``height``, ``num_frames``, ...).

    Raises:
        UnsupportedPipelineError: something about the pipeline could not be verified, with the reason.
    """

    def __init__(self, pipeline: Any, **options: Any) -> None:
        self.pipeline = pipeline
        pipeline.set_progress_bar_config(disable=True)
        self.component = denoiser_component(pipeline)
        self.policy: nn.Module = getattr(pipeline, self.component)
        for module in pipeline.components.values():
            if isinstance(module, nn.Module):
                module.eval().requires_grad_(False)
        self.options = options
        """The pipeline's own options that hold where a call does not say otherwise."""
        self.checks: dict[str, float] = {}
        """Relative errors measured at load, by name."""
        self._probe(options)
        self.kept = lora.KeptWeights(self.policy)
        """Copies of the LoRA by name."""
        self.denoiser_passes = 0
        """Samples that went through the denoiser so far, two for a guided one: what a method costs."""
        self.policy.register_forward_hook(self._count, with_kwargs=True)

    # --- policy and reference -----------------------------------------------------------------------------------------

    def attach_lora(self, *, rank: int, alpha: float | None = None, seed: int = 0) -> None:
        """Make a fresh LoRA the policy; until it is trained, policy and reference are bit-identical."""
        lora.attach(self.policy, rank=rank, alpha=alpha, seed=seed)
        self.kept = lora.KeptWeights(self.policy)

    def save_lora(self, folder: Path) -> None:
        """Write ``pytorch_lora_weights.safetensors``, for plain ``pipeline.load_lora_weights(folder)``."""
        lora.save(self.pipeline, self.component, folder)

    def load_lora(self, folder: Path) -> None:
        """Load a saved LoRA as the policy; refuses one of which nothing fits."""
        lora.load(self.pipeline, folder)
        self.kept = lora.KeptWeights(self.policy)

    def merge_lora(self) -> None:
        """Add the LoRA to the weights that it changes; what is left is a plain pipeline, of which this is the base."""
        lora.merge(self.policy)
        self.kept = lora.KeptWeights(self.policy)

    def weights(self, which: lora.Weights) -> AbstractContextManager[None]:
        """Compute with the policy, with the reference (the LoRA off), or with a kept copy of the LoRA such as "old".

        Raises:
            ConfigError: no copy of this name was kept.
        """
        return self.kept.computing_with(which)

    # --- conditioning and prediction ----------------------------------------------------------------------------------

    @torch.no_grad()
    def condition(
        self, prompts: Sequence[str], *, guidance: float | None = None, **options: Any
    ) -> Conditioning:
        """Encode prompts exactly as the pipeline does, by leaving it where it first calls its denoiser.

        Args:
            prompts: B texts; padded to the longest where the pipeline does that.
            guidance: keep both branches at this scale; None keeps the conditional branch alone.
            options: the pipeline's own options.
        """
        two_calls = guidance is not None and self.guidance.layout == "two_calls"
        arguments = self._arguments(prompts, seeds=None, guidance=guidance, steps=PROBE_STEPS, **options)
        with listen(self.pipeline, self.policy, stop_at_call=2 if two_calls else 1) as recording:
            self.pipeline(**arguments)
        return self.conditioning_of(recording, batch=len(prompts))[0]

    def conditioning_of(self, recording: Recording, *, batch: int) -> tuple[Conditioning, Tensor]:
        """What the first step of a recorded run of ``batch`` samples was given: conditioning, and latents [B, ...]."""
        calls = [call.arguments for call in recording.calls]
        conditional, unconditional = self.guidance.branches(calls, self.axes, batch=batch)
        latents: Tensor = conditional[self.latents_name]
        conditional = self._without_inputs(conditional)
        unconditional = None if unconditional is None else self._without_inputs(unconditional)
        shape = tuple(latents.shape[1:])
        return Conditioning(conditional, unconditional, self.axes, batch, shape), latents

    def predict(
        self, noisy: Tensor, level: NoiseLevel, conditioning: Conditioning, *, guidance: float | None = None
    ) -> Prediction:
        """What the network says of noisy latents; gradient flows.

        Args:
            noisy: [B, ...], alpha * clean + sigma * noise.
            level: of each sample; ``self.timesteps.at(row)`` gives those the model was trained at.
            conditioning: of B samples.
            guidance: None predicts with the conditional branch alone; a scale mixes both as the pipeline does.

        Raises:
            ShapeError: the batch sizes differ.
            ConfigError: guidance is asked of a conditioning without both branches.
        """
        if not len(noisy) == len(level) == conditioning.size:
            raise ShapeError(
                f"predict: {len(noisy)} latents, {len(level)} noise levels, conditioning of {conditioning.size}"
            )
        level = level.to(noisy.device)
        output = self._forward(noisy, level.model_time, conditioning.conditional)
        conditional = Prediction(
            noisy=noisy.float(),
            output=output,
            alpha=level.alpha,
            sigma=level.sigma,
            kind=self.timesteps.kind,
        )
        if guidance is None:
            return conditional
        return self.guide(conditional, level, conditioning, guidance=guidance)

    def guide(
        self, conditional: Prediction, level: NoiseLevel, conditioning: Conditioning, *, guidance: float
    ) -> Prediction:
        """Mix a conditional prediction with that of the other branch, as the pipeline does at this scale."""
        if self.guidance.layout == "none":
            return conditional
        weight, other = self.guidance.weights(guidance)
        unconditional = self.unconditional_output(conditional, level, conditioning)
        return replace(conditional, output=weight * conditional.output + other * unconditional)

    def unconditional_output(
        self, conditional: Prediction, level: NoiseLevel, conditioning: Conditioning
    ) -> Tensor:
        """What the network says at the same point without the prompt.

        Raises:
            ConfigError: the conditioning was captured without guidance.
        """
        if conditioning.unconditional is None:
            raise ConfigError("predict: guidance needs a conditioning captured with guidance=...")
        time = level.model_time.to(conditional.noisy.device)
        return self._forward(conditional.noisy, time, conditioning.unconditional)

    def _forward(self, noisy: Tensor, time: Tensor, arguments: Arguments) -> Tensor:
        inputs = {self.latents_name: noisy.to(self.dtype), self.time_name: time.to(self.time_dtype)}
        output = without_variance(prediction_of(self.policy(**arguments, **inputs)), noisy).float()
        return self.output_sign * output

    # --- samples ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        guidance: float | None = None,
        steps: int | None = None,
        **options: Any,
    ) -> Tensor:
        """Run the pipeline, with the CPU generator of each sample's own seed, as in plain diffusers.

        Returns:
            Pictures [B, 3, H, W] or videos [B, T, 3, H, W] in [0, 1], or sound [B, C, N] in [-1, 1], fp32; for the
            option ``output_type="latent"`` the latents as the pipeline returns them.
        """
        if len(prompts) != len(seeds):
            raise ShapeError(f"sample: {len(prompts)} prompts, but {len(seeds)} seeds")
        arguments = self._arguments(prompts, seeds=seeds, guidance=guidance, steps=steps, **options)
        output = self.pipeline(**{"output_type": "pt", **arguments}, return_dict=False)[0]
        return output if arguments.get("output_type") == "latent" else media_of(output)

    @torch.no_grad()
    def sample_latents(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        guidance: float | None = None,
        steps: int | None = None,
        **options: Any,
    ) -> Tensor:
        """The final latents [B, ...] of what :meth:`sample` draws, as :meth:`decode` takes them."""
        latent = {**options, "output_type": "latent"}
        with listen(self.pipeline, self.policy, last_step_only=True) as recording:
            self.sample(prompts, seeds=seeds, guidance=guidance, steps=steps, **latent)
        return recording.steps[-1].prev_sample

    def pipeline_options(
        self, *, guidance: float | None = None, steps: int | None = None, **options: Any
    ) -> dict[str, Any]:
        """Our names as the pipeline's own, with the options of the load where these do not say otherwise.

        ``guidance`` None becomes the value that turns guidance off.

        Raises:
            ConfigError: guidance is asked of a pipeline that takes no ``guidance_scale``, or ignores it.
        """
        if guidance not in (None, 1) and self.guidance_name is None:
            raise ConfigError(
                f"{type(self.pipeline).__name__} takes no guidance that mixes two branches linearly, or ignores its "
                f"guidance_scale; leave out guidance = {guidance}"
            )
        given = {**self.options, **options}
        own: dict[str, Any] = {pipeline_name(name, self.pipeline): value for name, value in given.items()}
        if self.guidance_name is not None:
            own[self.guidance_name] = 1.0 if guidance is None else guidance
        if steps is not None:
            own["num_inference_steps"] = steps
        return own

    def _arguments(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int] | None,
        guidance: float | None,
        steps: int | None,
        **options: Any,
    ) -> dict[str, Any]:
        """All arguments of a call, refusing what the pipeline does not take."""
        arguments: dict[str, Any] = {
            "prompt": list(prompts),
            **self.pipeline_options(guidance=guidance, steps=steps, **options),
        }
        if self.guidance_name == TRUE_GUIDANCE and guidance not in (None, 1):
            other = arguments.get("negative_prompt") or NO_PROMPT
            arguments["negative_prompt"] = [other] * len(prompts) if isinstance(other, str) else other
        if seeds is not None:
            arguments["generator"] = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        known = call_options(self.pipeline)
        for name in arguments:
            if name not in known:
                raise ConfigError(
                    f"{type(self.pipeline).__name__} has no option '{name}'; it takes {', '.join(known)}"
                )
        return arguments

    @property
    def media_shape(self) -> tuple[int, ...]:
        """Of one sample as the codec decodes it: (3, H, W), (T, 3, H, W), or (C, N)."""
        return self.codec.media_shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one sample's latents, as the denoiser sees them."""
        return self.codec.latent_shape

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights."""
        return next(self.policy.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the policy lives."""
        return next(self.policy.parameters()).device

    def decode(self, latents: Tensor) -> Tensor:
        """Media of final latents [B, ...] as :meth:`sample` gives them, with gradient."""
        return self.codec.decode(latents)

    # --- finding out, at load -----------------------------------------------------------------------------------------

    def _count(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        first = args[0] if args else kwargs[self.latents_name]
        self.denoiser_passes += len(first)

    def _without_inputs(self, arguments: Arguments) -> Arguments:
        return {
            name: value
            for name, value in arguments.items()
            if name not in (self.latents_name, self.time_name)
        }

    def _probe(self, options: dict[str, Any]) -> None:
        """Run the pipeline plainly, with guidance, and with every prompt twice; keep what explains all of it."""
        self.guidance_name = next((n for n in GUIDANCE_NAMES if n in call_options(self.pipeline)), None)

        def probe(
            *prompts: str, guidance: float | None = None, output: str = "latent", **extra: Any
        ) -> tuple[Recording, Any]:
            arguments = self._arguments(
                prompts,
                seeds=range(len(prompts)),
                guidance=guidance,
                steps=PROBE_STEPS,
                **{**options, **extra},
            )
            return run(self.pipeline, self.policy, **{**arguments, "output_type": output})

        # A decoder that adds noise of its own (LTX's) is compared without it, and the codec decodes without it.
        quiet = {"decode_noise_scale": 0.0} if "decode_noise_scale" in call_options(self.pipeline) else {}
        with listen_decoder(decodes(self.pipeline)) as decoded:
            try:
                plain, output = probe(*PROBE_PROMPTS, output="pt", **quiet)
            except (AttributeError, TypeError, ValueError) as reason:
                raise UnsupportedPipelineError(
                    f"{type(self.pipeline).__name__}: a run of prompts alone with {options or 'no options'} failed: "
                    f"{reason}"
                ) from reason
        arguments = plain.calls[0].arguments
        self.time_name = time_name(arguments)
        self.time_dtype = arguments[self.time_name].dtype
        self.latents_name = next(name for name, value in arguments.items() if isinstance(value, Tensor))
        if len(plain.calls) != len(plain.steps) or len(arguments[self.latents_name]) != len(PROBE_PROMPTS):
            raise UnsupportedPipelineError(
                f"{type(self.pipeline).__name__}: guidance 1 does not turn guidance off; with it, "
                f"{len(plain.calls)} denoiser calls were made in {len(plain.steps)} steps"
            )
        self.axes = batch_axes(arguments, probe(*PROBE_PROMPTS * 2)[0].calls[0].arguments)
        sign, error = _sign(plain)
        self._check("prediction is the scheduler's input", error)
        self.timesteps = read_timesteps(self.pipeline.scheduler, plain)
        self.output_sign = sign * self.timesteps.output_sign
        self._check(
            "timestep rows explain the steps", row_error(self.pipeline.scheduler, self.timesteps, plain)
        )
        self.guidance = Guidance("none")
        for name in GUIDANCE_NAMES:
            if name not in call_options(self.pipeline):
                continue
            self.guidance_name = name
            guided = [(scale, probe(*PROBE_PROMPTS, guidance=scale)[0]) for scale in (2.0, 5.0)]
            if same_steps(*(recording for _, recording in guided)):
                self.guidance_name = (
                    None  # the pipeline ignores it: QwenImage, and Flux without guidance embeddings
                )
                continue
            rule, error = fit_guidance(plain, guided, self.axes, latents_name=self.latents_name, sign=sign)
            if name == TRUE_GUIDANCE and error > TOLERANCES[self.dtype]:
                self.guidance_name = (
                    None  # QwenImage rescales the mixture: offered neither here nor in training
                )
                continue
            self._check("guidance is linear in its branches", error)
            self.guidance = rule
            break
        media = media_of(output)
        latents = plain.steps[-1].prev_sample
        self.codec, error = build_codec(self.pipeline, latents=latents, media=media, calls=decoded)
        self._check("codec unpacks latents as the pipeline", error)
        with torch.no_grad():
            ours = self.codec.decode(latents)
        self._check("codec decodes as the pipeline", _relative_error(ours, media))

    def _check(self, name: str, error: float) -> None:
        self.checks[name] = error
        tolerance = TOLERANCES[self.dtype]
        if not error <= tolerance:
            raise UnsupportedPipelineError(
                f"{type(self.pipeline).__name__}: the check '{name}' is off by {error:.2g}, more than {tolerance:g}; "
                "aligning it would go wrong in silence"
            )


def _relative_error(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return torch.inf
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12))


def _sign(plain: Recording) -> tuple[int, float]:
    """Whether the scheduler is given the denoiser's output or its opposite (Lumina2), and the largest error."""

    def error(sign: int) -> float:
        worst = 0.0
        for call, step in zip(plain.calls, plain.steps, strict=True):
            assert call.output is not None
            off = (sign * without_variance(call.output, step.sample) - step.model_output).abs().max()
            worst = max(worst, float(off / step.model_output.abs().max()))
        return worst

    sign = min((1, -1), key=error)
    return sign, error(sign)
