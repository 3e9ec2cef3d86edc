"""Every family of generators in one table: loaded by capture, decoded, trained, and its LoRA carried elsewhere.

``docs/models.md`` shows this table to users, and the last test keeps the two in step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionImg2ImgPipeline, UNet2DModel
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import UnsupportedPipelineError
from mmalign.generators import lora
from mmalign.generators.capture import run
from mmalign.generators.codecs.media import modality_of
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.generators.rollout import Sampler, begin, rollout
from mmalign.likelihoods import denoising_log_likelihood, token_log_prob
from tests.generators.small_picture_pipelines import PICTURE_PIPELINES, lumina_2
from tests.generators.small_pipelines import PIPELINES, stable_diffusion
from tests.generators.small_scene_pipelines import shap_e
from tests.generators.small_sound_pipelines import SOUND_PIPELINES
from tests.generators.small_token_models import generator as token_generator
from tests.generators.small_video_pipelines import VIDEO_PIPELINES, wan

PROMPTS, SEEDS = ["a red circle", "one blue star on the left"], [5, 6]
ROW = torch.tensor([300, 700])
SLOW = {"flux-guidance", "ltx-timed", "stable-diffusion-tiny-vae"}
"""Second settings of a class that is in the table already."""
CLASSES = {
    "audioldm2": "AudioLDM2Pipeline",
    "aura-flow": "AuraFlowPipeline",
    "cogvideox": "CogVideoXPipeline",
    "csm": "CsmForConditionalGeneration",
    "dia": "DiaForConditionalGeneration",
    "flux": "FluxPipeline",
    "flux-guidance": "FluxPipeline",
    "hunyuan-video": "HunyuanVideoPipeline",
    "janus": "JanusForConditionalGeneration",
    "latte": "LattePipeline",
    "ltx": "LTXPipeline",
    "ltx-timed": "LTXPipeline",
    "lumina-2": "Lumina2Pipeline",
    "mochi": "MochiPipeline",
    "musicgen": "MusicgenForConditionalGeneration",
    "pixart-alpha": "PixArtAlphaPipeline",
    "pixart-sigma": "PixArtSigmaPipeline",
    "qwen-image": "QwenImagePipeline",
    "sana": "SanaPipeline",
    "stable-audio": "StableAudioPipeline",
    "stable-diffusion": "StableDiffusionPipeline",
    "stable-diffusion-3": "StableDiffusion3Pipeline",
    "stable-diffusion-tiny-vae": "StableDiffusionPipeline",
    "stable-diffusion-v": "StableDiffusionPipeline",
    "stable-diffusion-xl": "StableDiffusionXLPipeline",
    "wan": "WanPipeline",
}


@dataclass(frozen=True)
class Family:
    """A class of pipelines, as a small random one of it is built and run."""

    build: Callable[[], Any]
    options: dict[str, Any]
    medium: str


FAMILIES = {
    **{name: Family(build, {"height": 16, "width": 16}, "image") for name, build in PIPELINES.items()},
    **{name: Family(build, options, "image") for name, (build, options) in PICTURE_PIPELINES.items()},
    **{name: Family(build, options, "video") for name, (build, options) in VIDEO_PIPELINES.items()},
    **{name: Family(build, options, "audio") for name, (build, options) in SOUND_PIPELINES.items()},
}
TOKEN_FAMILIES = {"csm": "speech", "dia": "speech", "janus": "image", "musicgen": "audio"}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(FAMILIES)
    ],
)
def loaded(request: pytest.FixtureRequest) -> tuple[Family, DenoisingGenerator]:
    family = FAMILIES[request.param]
    generator = DenoisingGenerator(family.build(), **family.options)
    generator.attach_lora(rank=2)
    for seed, parameter in enumerate(lora.trainable(generator.policy)):
        random = torch.Generator().manual_seed(seed)
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=random))
    assert type(generator.pipeline).__name__ == CLASSES[request.param]
    return family, generator


def sampled(family: Family, generator: DenoisingGenerator, **options: Any) -> Tensor:
    quiet = {"decode_noise_scale": 0.0} if "decode_noise_scale" in family.options else {}
    return generator.sample(PROMPTS, seeds=SEEDS, steps=2, **{**family.options, **quiet, **options})


def test_a_run_decodes_to_what_the_pipeline_returns(loaded: tuple[Family, DenoisingGenerator]) -> None:
    family, generator = loaded
    assert max(generator.checks.values()) < 1e-4, generator.checks
    media, latents = sampled(family, generator), sampled(family, generator, output_type="latent")
    assert generator.codec.modality == modality_of(media) == family.medium
    assert media.shape[1:] == generator.media_shape
    assert latents.shape[1:] == generator.latent_shape
    low = -1 if family.medium == "audio" else 0
    assert low <= float(media.min()) < float(media.max()) <= 1
    with torch.no_grad():
        assert_close(generator.codec.decode(latents), media, rtol=0, atol=1e-4)


def test_predictions_are_those_that_the_pipeline_steps_with(
    loaded: tuple[Family, DenoisingGenerator],
) -> None:
    family, generator = loaded
    guidance = None if generator.guidance_name is None else 3.0
    options = {"guidance": guidance, **family.options}
    arguments = generator._arguments(PROMPTS, seeds=SEEDS, steps=2, **options)
    recording, _ = run(generator.pipeline, generator.policy, **{**arguments, "output_type": "latent"})
    conditioning = generator.condition(PROMPTS, **options)
    assert len(recording.steps) >= 2  # some solvers take a step more
    for i, step in enumerate(recording.steps):
        level = generator.timesteps.at_time(torch.full((2,), step.timestep))
        seen = recording.calls[i * recording.calls_per_step].arguments[generator.latents_name][:2]
        with torch.no_grad():
            prediction = generator.predict(seen, level, conditioning, guidance=guidance)
        expected = generator.timesteps.output_sign * step.model_output
        assert_close(prediction.output, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_encoding_is_normalised_and_packed_as_decoding_expects(
    loaded: tuple[Family, DenoisingGenerator],
) -> None:
    """Decoding what was encoded is the VAE's own round trip, whatever lies between."""
    family, generator = loaded
    codec, vae = generator.codec, generator.pipeline.vae
    media = sampled(family, generator)
    seen: list[Tensor] = []
    encode = vae.encode

    def listening(media: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(media)
        return encode(media, *args, **kwargs)

    vae.encode = listening
    try:
        with torch.no_grad():
            latents = codec.encode(media)
    finally:
        del vae.encode
    assert latents.shape == (2, *generator.latent_shape)
    assert latents.dtype == torch.float32
    with torch.no_grad():
        output = encode(seen[0])
        posterior = getattr(output, "latent_dist", None)
        mode = next(iter(output.values())) if posterior is None else posterior.mode()
        assert_close(codec.given_to_decoder(latents), mode, rtol=1e-4, atol=1e-5)


def test_likelihood_trains_the_lora_and_nothing_else(loaded: tuple[Family, DenoisingGenerator]) -> None:
    family, generator = loaded
    conditioning = generator.condition(PROMPTS, **family.options)
    assert conditioning.latent_shape == generator.latent_shape
    random = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, *generator.latent_shape, generator=random) for _ in range(2))
    level = generator.timesteps.at(ROW)
    value = denoising_log_likelihood(generator, clean, conditioning, noise=noise, level=level)
    assert value.shape == (2,)
    value.sum().backward()
    modules = [m for m in generator.pipeline.components.values() if isinstance(m, torch.nn.Module)]
    gradients = {n: p.grad for m in modules for n, p in m.named_parameters() if p.grad is not None}
    assert gradients.keys() <= {n for n, p in generator.policy.named_parameters() if p.requires_grad}
    assert all(torch.isfinite(g).all() for g in gradients.values())
    assert sum(float(g.abs().sum()) for g in gradients.values()) > 0
    with torch.no_grad():  # a sample's likelihood is its own
        alone = denoising_log_likelihood(
            generator,
            clean[1:],
            conditioning.rows(torch.tensor([1])),
            noise=noise[1:],
            level=generator.timesteps.at(ROW[1:]),
        )
    assert_close(alone[0], value[1].detach(), rtol=1e-4, atol=1e-5)
    generator.policy.zero_grad()


def test_a_reward_reaches_the_latents(loaded: tuple[Family, DenoisingGenerator]) -> None:
    _, generator = loaded
    random = torch.Generator().manual_seed(0)
    latents = (0.1 * torch.randn(1, *generator.latent_shape, generator=random)).requires_grad_()
    media = generator.codec.decode(latents)
    media.square().mean().backward()
    assert latents.grad is not None
    assert torch.isfinite(latents.grad).all()
    assert float(latents.grad.abs().max()) > 0


def test_a_rollout_ends_in_latents_that_decode(loaded: tuple[Family, DenoisingGenerator]) -> None:
    family, generator = loaded
    start = begin(generator, PROMPTS, seeds=SEEDS, steps=2, **family.options)
    found = rollout(generator, start, Sampler(noise_level=0.5), step_seeds=SEEDS)
    assert found.clean.shape == (2, *generator.latent_shape)
    assert torch.isfinite(found.log_prob).all()
    sigma = found.levels.sigma
    assert bool((sigma[:-1] > sigma[1:]).all())
    assert float(sigma[-1]) < 0.05
    with torch.no_grad():
        assert torch.isfinite(generator.codec.decode(found.clean)).all()


def test_a_lora_makes_the_same_difference_in_a_plain_pipeline(
    loaded: tuple[Family, DenoisingGenerator], tmp_path: Path
) -> None:
    family, generator = loaded
    ours = sampled(family, generator, output_type="latent")
    lora.save(generator.pipeline, generator.component, tmp_path)
    plain = family.build()
    plain.set_progress_bar_config(disable=True)
    off = {"guidance_scale": 1.0} if generator.guidance_name else {}

    def draw() -> Tensor:
        made: Tensor = plain(
            prompt=PROMPTS,
            num_inference_steps=2,
            output_type="latent",
            generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
            return_dict=False,
            **{**off, **family.options},
        )[0]
        return made

    with torch.no_grad():
        assert float((draw() - ours).abs().max()) > 1e-4
        lora.load(plain, tmp_path)
        assert_close(draw(), ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(TOKEN_FAMILIES))
def test_a_token_model_is_trained_and_its_lora_carried(kind: str, tmp_path: Path) -> None:
    made = token_generator(kind)
    assert type(made.model).__name__ == CLASSES[kind]
    made.attach_lora(rank=2)
    for seed, parameter in enumerate(lora.trainable(made.model)):
        parameter.data.copy_(
            0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        )
    conditioning = made.condition(PROMPTS)
    tokens = made.rollout(conditioning, seeds=SEEDS, frames=4).tokens
    log_prob = token_log_prob(made, tokens, conditioning)
    log_prob.sum().backward()
    gradients = {n: p.grad for n, p in made.model.named_parameters() if p.grad is not None}
    assert gradients.keys() <= {n for n, p in made.model.named_parameters() if p.requires_grad}
    assert all(torch.isfinite(g).all() for g in gradients.values())
    assert sum(float(g.abs().sum()) for g in gradients.values()) > 0
    made.save_lora(tmp_path)
    fresh = token_generator(kind)
    before = token_log_prob(fresh, tokens, conditioning).detach()
    assert float((before - log_prob.detach()).abs().max()) > 1e-3
    fresh.load_lora(tmp_path)
    assert_close(token_log_prob(fresh, tokens, conditioning), log_prob)


def image_to_image() -> Any:
    return StableDiffusionImg2ImgPipeline(**stable_diffusion().components, requires_safety_checker=False)


def unconditional() -> Any:
    return DDPMPipeline(
        unet=UNet2DModel(sample_size=8, block_out_channels=(32,) * 4), scheduler=DDPMScheduler()
    )


REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "DDPMPipeline": (unconditional, {}, "takes no prompt"),
    "Lumina2Pipeline": (
        lumina_2,
        {**PICTURE_PIPELINES["lumina-2"][1], "cfg_normalization": True},
        "guidance is linear in its branches",
    ),
    "ShapEPipeline": (shap_e, {}, "no VAE that encodes and decodes"),
    "StableDiffusionImg2ImgPipeline": (image_to_image, {}, "a run of prompts alone"),
    "WanPipeline": (lambda: wan(denoisers=2), VIDEO_PIPELINES["wan"][1], "several denoisers"),
}
"""By class: a builder, options, and what the refusal says."""


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_verified_is_refused_with_the_reason(name: str) -> None:
    build, options, reason = REFUSED[name]
    pipeline = build()
    assert type(pipeline).__name__ == name
    with pytest.raises(UnsupportedPipelineError, match=reason):
        DenoisingGenerator(pipeline, **options)


def test_the_page_of_models_is_this_table() -> None:
    assert (len(FAMILIES), len(TOKEN_FAMILIES), len(REFUSED)) == (22, 4, 5)
    assert {*FAMILIES, *TOKEN_FAMILIES} == set(CLASSES)
    page = (Path(__file__).parents[2] / "docs/models.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line[:3] == "| `"
    ]
    works = {
        (row[0].strip("`"), row[1], test.strip("` "))
        for row in rows
        if len(row) == 4
        for test in row[3].split(",")
    }
    media = {**{name: family.medium for name, family in FAMILIES.items()}, **TOKEN_FAMILIES}
    assert works == {(CLASSES[name], medium, name) for name, medium in media.items()}
    refused = {(row[0].strip("`"), row[1].strip("`")) for row in rows if len(row) == 3}
    assert refused == {(name, reason) for name, (_, _, reason) in REFUSED.items()}
