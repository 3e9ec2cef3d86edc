"""Capture on small random pipelines of real classes: what is found, replayed, refused and trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError, UnsupportedPipelineError
from mmalign.generators.capture import listen, run
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.sampling.parametrisation import add_noise
from tests.generators.small_picture_pipelines import PICTURE_PIPELINES
from tests.generators.small_pipelines import PIPELINES, flux, stable_diffusion, stable_diffusion_3

SIZE = {"height": 16, "width": 16}
PROMPTS = ["a red circle", "one blue star on the left", "two"]


@pytest.fixture(scope="module", params=sorted(PIPELINES))
def generator(request: pytest.FixtureRequest) -> DenoisingGenerator:
    return DenoisingGenerator(PIPELINES[request.param](), **SIZE)


def test_every_check_at_load_is_exact_to_rounding(generator: DenoisingGenerator) -> None:
    assert len(generator.checks) >= 3
    assert max(generator.checks.values()) < 1e-5, generator.checks


def test_predict_replays_every_step_of_the_pipeline(generator: DenoisingGenerator) -> None:
    guidance = 3.0
    arguments = generator._arguments(PROMPTS, seeds=[0, 1, 2], guidance=guidance, steps=3, **SIZE)
    recording, _ = run(generator.pipeline, generator.policy, **{**arguments, "output_type": "latent"})
    conditioning = generator.condition(PROMPTS, guidance=guidance, **SIZE)
    assert len(recording.steps) == 3
    for i, step in enumerate(recording.steps):
        level = generator.timesteps.at_time(torch.full((len(PROMPTS),), step.timestep))
        seen = recording.calls[i * recording.calls_per_step].arguments[generator.latents_name][: len(PROMPTS)]
        with torch.no_grad():
            prediction = generator.predict(seen, level, conditioning, guidance=guidance)
        assert_close(prediction.output, step.model_output, rtol=1e-4, atol=1e-5)


def test_guidance_weights_are_those_of_the_paper(generator: DenoisingGenerator) -> None:
    if generator.guidance.layout == "none":
        assert "flux" in type(generator.pipeline).__name__.lower()
        return
    assert generator.guidance.conditional_index == (0 if generator.guidance.layout == "two_calls" else 1)
    assert generator.guidance.weights(4.0) == pytest.approx((4.0, -3.0), abs=1e-5)


def test_conditioning_rows_are_those_of_their_prompts(generator: DenoisingGenerator) -> None:
    together = generator.condition(PROMPTS, guidance=2.0, **SIZE).rows(torch.tensor([2, 0]))
    alone = generator.condition([PROMPTS[2], PROMPTS[0]], guidance=2.0, **SIZE)
    noisy = torch.randn(2, *alone.latent_shape, generator=torch.Generator().manual_seed(0))
    level = generator.timesteps.at(torch.tensor([100, 700]))
    with torch.no_grad():
        first, second = (generator.predict(noisy, level, c, guidance=2.0).output for c in (together, alone))
    assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_conditioning_costs_no_denoiser_pass(generator: DenoisingGenerator) -> None:
    seen = 0

    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1

    handle = generator.policy.register_forward_hook(count)
    generator.condition(PROMPTS, **SIZE)
    handle.remove()
    assert seen == 0


def test_a_sample_depends_on_its_seed_and_not_on_its_batch(generator: DenoisingGenerator) -> None:
    options: dict[str, Any] = {"steps": 3, "guidance": 2.0, **SIZE}
    together = generator.sample(PROMPTS, seeds=[5, 6, 7], **options)
    alone = generator.sample(PROMPTS[1:2], seeds=[6], **options)
    assert_close(together[1:2], alone, rtol=0, atol=1 / 255)
    assert (
        float((together[1] - generator.sample(PROMPTS[1:2], seeds=[9], **options)[0]).abs().max()) > 1 / 255
    )


def test_a_sample_is_the_one_of_plain_diffusers(generator: DenoisingGenerator) -> None:
    ours = generator.sample(PROMPTS[:1], seeds=[3], steps=3, guidance=2.0, **SIZE)
    guidance = {"true_cfg_scale": 2.0, "negative_prompt": " "}
    plain = generator.pipeline(
        PROMPTS[:1],
        **(guidance if generator.guidance.layout == "two_calls" else {"guidance_scale": 2.0}),
        num_inference_steps=3,
        generator=[torch.Generator("cpu").manual_seed(3)],
        output_type="pt",
        **SIZE,
    ).images
    assert torch.equal(ours, plain)


def test_the_latents_of_a_sample_are_its_last_step_and_no_other_is_kept() -> None:
    generator = DenoisingGenerator(stable_diffusion(), **SIZE)
    options: dict[str, Any] = {"steps": 3, "guidance": 2.0}
    latents = generator.sample_latents(PROMPTS, seeds=[5, 6, 7], **options)
    assert_close(generator.decode(latents), generator.sample(PROMPTS, seeds=[5, 6, 7], **options))
    with listen(generator.pipeline, generator.policy, last_step_only=True) as recording:
        generator.sample(PROMPTS, seeds=[5, 6, 7], **options)
    assert (len(recording.steps), len(recording.calls)) == (1, 0)
    assert torch.equal(recording.steps[0].prev_sample, latents)


def test_where_guidance_scale_is_something_else_guidance_is_that_of_two_branches() -> None:
    generator = DenoisingGenerator(flux(), **SIZE)
    assert DenoisingGenerator(flux(guidance_embeds=True), **SIZE).guidance_name == "guidance_scale"
    assert (generator.guidance_name, generator.guidance.layout) == ("true_cfg_scale", "two_calls")
    ours = generator.sample(PROMPTS[:2], seeds=[3, 4], steps=3, guidance=2.0)
    plain = generator.pipeline(
        PROMPTS[:2],
        negative_prompt=[" ", " "],
        num_inference_steps=3,
        true_cfg_scale=2.0,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in (3, 4)],
        output_type="pt",
        **SIZE,
    ).images
    assert torch.equal(ours, plain)
    assert not torch.allclose(ours, generator.sample(PROMPTS[:2], seeds=[3, 4], steps=3), atol=1e-3)


def test_guidance_that_no_two_weights_explain_is_refused() -> None:
    build, options = PICTURE_PIPELINES["qwen-image"]  # it rescales what it mixes
    generator = DenoisingGenerator(build(), **options)
    with pytest.raises(ConfigError, match="leave out guidance = 3"):
        generator.sample(["a"], seeds=[0], guidance=3.0)


def test_encode_is_normalised_as_decode_expects(generator: DenoisingGenerator) -> None:
    codec, vae = generator.codec, generator.pipeline.vae
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents = codec.encode(pixels)
        mean = vae.encode(2 * pixels - 1).latent_dist.mode()
        expected = (vae.decode(mean).sample / 2 + 0.5).clamp(0, 1)
        assert_close(codec.decode(latents), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_gradients_reach_the_lora_and_nothing_else(name: str) -> None:
    generator = DenoisingGenerator(PIPELINES[name](), **SIZE)
    generator.attach_lora(rank=2)
    conditioning = generator.condition(PROMPTS[:2], **SIZE)
    noisy = torch.randn(2, *conditioning.latent_shape, generator=torch.Generator().manual_seed(0))
    output = generator.predict(noisy, generator.timesteps.at(torch.tensor([10, 500])), conditioning).output
    output.square().mean().backward()
    modules = [m for m in generator.pipeline.components.values() if isinstance(m, torch.nn.Module)]
    with_gradient = {n for m in modules for n, p in m.named_parameters() if p.grad is not None}
    trained = {n for n, p in generator.policy.named_parameters() if p.requires_grad}
    assert with_gradient == trained
    assert trained
    assert all("lora_" in n for n in trained)
    up = [p.grad for n, p in generator.policy.named_parameters() if "lora_B" in n]
    assert any(float(g.abs().max()) > 0 for g in up if g is not None)


def test_the_reference_is_the_policy_with_its_lora_off() -> None:
    generator = DenoisingGenerator(stable_diffusion_3(), **SIZE)
    conditioning = generator.condition(PROMPTS[:1], **SIZE)
    noisy = torch.randn(1, *conditioning.latent_shape, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def predict() -> torch.Tensor:
        return generator.predict(noisy, generator.timesteps.at(torch.tensor([300])), conditioning).output

    bare = predict()
    generator.attach_lora(rank=2)
    assert torch.equal(predict(), bare)  # T-0.7a
    for name, parameter in generator.policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    assert float((predict() - bare).abs().max()) > 1e-3
    with generator.weights("reference"):
        assert torch.equal(predict(), bare)  # T-0.7b
    with pytest.raises(RuntimeError, match="inside"), generator.weights("reference"):
        raise RuntimeError("inside")
    assert float((predict() - bare).abs().max()) > 1e-3  # T-0.7c


def test_a_loaded_lora_is_the_policy_and_off_in_the_reference(tmp_path: Path) -> None:
    trained, fresh = (DenoisingGenerator(stable_diffusion_3(), **SIZE) for _ in range(2))
    conditioning = fresh.condition(PROMPTS[:1], **SIZE)
    noisy = torch.randn(1, *conditioning.latent_shape, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def predict(generator: DenoisingGenerator) -> torch.Tensor:
        return generator.predict(noisy, generator.timesteps.at(torch.tensor([300])), conditioning).output

    bare = predict(fresh)
    trained.attach_lora(rank=2)
    for name, parameter in trained.policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    trained.save_lora(tmp_path)
    fresh.load_lora(tmp_path)
    assert torch.equal(predict(fresh), predict(trained))
    assert not torch.equal(predict(fresh), bare)
    with fresh.weights("reference"):
        assert torch.equal(predict(fresh), bare)


def test_forward_noising_uses_the_rows(generator: DenoisingGenerator) -> None:
    table = generator.timesteps
    row = torch.tensor([0, len(table) // 2, len(table) - 1])
    clean, noise = torch.ones(3, 2), torch.zeros(3, 2)
    assert_close(add_noise(clean, noise, table.alpha[row], table.sigma[row])[:, 0], table.alpha[row])
    assert bool((table.sigma[:-1] > table.sigma[1:]).all())
    total = table.alpha + table.sigma if table.kind == "flow_prediction" else table.alpha**2 + table.sigma**2
    assert_close(total, torch.ones_like(total), rtol=0, atol=1e-5)


def rescaled_guidance() -> Any:
    pipeline = stable_diffusion()
    step = type(pipeline.scheduler).step

    class Rescaled(type(pipeline.scheduler)):  # type: ignore[misc]
        def step(self, model_output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return step(self, model_output, *args, **kwargs)

    class Pipeline(type(pipeline)):  # type: ignore[misc]
        @property
        def guidance_rescale(self) -> float:
            return 0.7 if self.guidance_scale > 1 else 0.0

    pipeline.__class__ = Pipeline
    return pipeline


def own_decoder() -> Any:
    """A pipeline that paints its result after decoding."""
    pipeline = stable_diffusion()
    postprocess = pipeline.image_processor.postprocess
    pipeline.image_processor.postprocess = lambda *args, **kwargs: 0.9 * postprocess(*args, **kwargs)
    return pipeline


def no_vae() -> Any:
    pipeline = stable_diffusion()
    pipeline.vae = None
    return pipeline


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (rescaled_guidance, "guidance is linear in its branches"),
        (no_vae, "no VAE that encodes and decodes"),
        (own_decoder, "codec decodes as the pipeline"),
    ],
)
def test_what_cannot_be_verified_is_refused_with_the_reason(build: Callable[[], Any], reason: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=reason):
        DenoisingGenerator(build(), **SIZE)


def test_mistakes_are_named(generator: DenoisingGenerator) -> None:
    conditioning = generator.condition(PROMPTS[:2], **SIZE)
    noisy = torch.zeros(2, *conditioning.latent_shape)
    with pytest.raises(ShapeError, match="2 latents, 3 noise levels, conditioning of 2"):
        generator.predict(noisy, generator.timesteps.at(torch.tensor([0, 0, 0])), conditioning)
    with pytest.raises(ShapeError, match="1 prompts, but 2 seeds"):
        generator.sample(PROMPTS[:1], seeds=[1, 2])
    with pytest.raises(ConfigError, match="has no option 'colour'"):
        generator.sample(PROMPTS[:1], seeds=[1], colour="red")
    if generator.guidance.layout != "none":
        with pytest.raises(ConfigError, match=r"captured with guidance=\.\.\."):
            generator.predict(noisy, generator.timesteps.at(torch.tensor([0, 0])), conditioning, guidance=2.0)
