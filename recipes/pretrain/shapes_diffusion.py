"""Make ``embedded/shapes-diffusion``: a small StableDiffusionPipeline (UNet, epsilon, DDIM), shapes-flow's twin.

It sees the same pictures through the same VAE, and learns true captions first and then noisy ones, as
``embedded/shapes-flow`` did; only the denoiser is of the other family.

    uv run python recipes/pretrain/shapes_diffusion.py        # about 30 minutes on two cores; resumes where it stopped
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from common import OTHER_WORDS, clip_tokenizer, console, fit, generator, write_options
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils.logging import set_verbosity_error
from shapes_flow import (
    TOKENS,
    WorldSettings,
    draw_world,
    encode_world,
    report,
    token_ids,
    train_text,
    training_captions,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from mmalign.worlds import shapes


@dataclass(frozen=True, kw_only=True)
class Settings(WorldSettings):
    """Everything that decides the result."""

    out: Path = Path("assets/shapes-diffusion")
    work: Path = Path("runs/pretrain/shapes-diffusion")
    vae: Path = Path("assets/shapes-flow")
    """The pipeline whose VAE is taken."""
    text_steps: int = 400
    steps: int = 3_500
    clean_steps: int = 1_200
    """Of these, the first are on true captions."""
    batch: int = 64


def build_pipeline(settings: Settings, vae: AutoencoderKL) -> StableDiffusionPipeline:
    """Untrained text encoder and UNet around the trained VAE."""
    texts = [*shapes.captions("train"), *shapes.captions("heldout"), OTHER_WORDS]
    tokenizer = clip_tokenizer(texts, length=TOKENS, folder=settings.work / "tokenizer")
    torch.manual_seed(settings.seed + 1)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        block_out_channels=(64, 96),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=96,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(settings.device)


def train(
    settings: Settings, pipeline: StableDiffusionPipeline, scenes: list[shapes.Scene], latents: Tensor
) -> None:
    """Predict the noise of noisily captioned pictures; every training time is as likely."""
    modules = nn.ModuleDict({"unet": pipeline.unet})
    abar = pipeline.scheduler.alphas_cumprod.to(settings.device)

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 4, step)
        rows = torch.randint(len(latents), (settings.batch,), generator=random).tolist()
        noise = settings.caption_noise if step >= settings.clean_steps else 0.0
        texts = training_captions(
            [scenes[i] for i in rows], random, noise=noise, dropout=settings.caption_dropout
        )
        with torch.no_grad():
            embeds, _ = pipeline.encode_prompt(texts, settings.device, 1, do_classifier_free_guidance=False)
        clean = latents[rows]
        gaussian = torch.randn(clean.shape, generator=random).to(settings.device)
        time = torch.randint(len(abar), (len(rows),), generator=random).to(settings.device)
        share = abar[time][:, None, None, None]
        noisy = share.sqrt() * clean + (1 - share).sqrt() * gaussian
        predicted = pipeline.unet(noisy, time, encoder_hidden_states=embeds).sample
        return (predicted - gaussian).square().mean()

    fit("unet", modules, loss, steps=settings.steps, learning_rate=1e-3, folder=settings.work)


def save(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write UNet and VAE in fp16; plain ``from_pretrained`` gives them back in fp32."""
    pipeline.to("cpu")
    pipeline.unet.half()
    pipeline.vae.half()
    pipeline.save_pretrained(folder)
    write_options(folder)


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, then save the pipeline in fp16."""
    set_verbosity_error()
    settings.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    scenes, pictures = draw_world(settings)
    vae = AutoencoderKL.from_pretrained(settings.vae, subfolder="vae").to(settings.device)
    # StableDiffusionPipeline knows a scale of the latents and no shift.
    latents = encode_world(settings, vae, pictures, centred=False)
    pipeline = build_pipeline(settings, vae)
    train_text(
        settings,
        {"text_encoder": pipeline.text_encoder},
        lambda _, texts: token_ids(pipeline.tokenizer, texts, settings.device),
        steps=settings.text_steps,
    )
    train(settings, pipeline, scenes, latents)
    report(settings, pipeline)
    save(pipeline, settings.out)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Settings))
