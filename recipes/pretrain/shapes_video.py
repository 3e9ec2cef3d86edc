"""Make ``embedded/shapes-video``: a small LTXPipeline that films the moving shapes world, with a stated flaw.

It learns as ``embedded/shapes-flow`` does, and its flaw is the same random caption noise. Its videos are small (9
frames of 32 x 32 pixels) and its VAE packs one into 12 tokens, so that a denoiser pass takes milliseconds.

    uv run python recipes/pretrain/shapes_video.py        # about 25 minutes on one core; resumes where it stopped
"""

import time
from dataclasses import dataclass
from pathlib import Path

import shapes_video_codec as codec
import torch
import tyro
from common import OTHER_WORDS, console, fit, generator, write_options
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.utils.logging import set_verbosity_error
from shapes_flow import WorldSettings, train_text, training_captions
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torchvision.utils import save_image
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from mmalign.media import Sample, Video
from mmalign.rewards.cards import load_reward
from mmalign.worlds import moving_shapes

SIDE_PX = 32
TOKENS = 16
"""Of the longest caption and its end; without ``max_sequence_length=16`` a pipeline computes with 112 masked ones."""
FRAME_RATES = (moving_shapes.FPS, 25.0)
"""The world's and the pipeline's default: the model knows positions in seconds, and should be right at both."""
SPECIAL = ("<pad>", "</s>", "<unk>")


@dataclass(frozen=True, kw_only=True)
class Settings(WorldSettings):
    """Everything that decides the result."""

    out: Path = Path("assets/shapes-video")
    work: Path = Path("runs/pretrain/shapes-video")
    pictures: int = 3_000
    """Videos of the world."""
    bf16: bool = True
    vae_steps: int = 4_000
    vae_batch: int = 8
    text_steps: int = 80
    flow_steps: int = 4_000
    clean_steps: int = 3_000
    """Of these, the first are on true captions."""
    flow_batch: int = 64


def draw_world(settings: Settings) -> tuple[list[moving_shapes.MovingShape], Tensor]:
    """The training videos, as bytes to keep them small: [N, 9, 3, 32, 32]."""
    random = generator(settings.seed, 1)
    scenes = [moving_shapes.random_scene(random, split=None) for _ in range(settings.pictures)]
    videos = [
        (moving_shapes.render(scenes[i : i + 250], random, side_px=SIDE_PX) * 255).round().byte()
        for i in range(0, len(scenes), 250)
    ]
    return scenes, torch.cat(videos)


def to_model(videos: Tensor, device: str) -> Tensor:
    """Bytes [B, T, 3, H, W] to [B, 3, T, H, W] in [-1, 1]."""
    return (videos.to(device).float() / 127.5 - 1).transpose(1, 2).contiguous()


def to_frames(videos: Tensor) -> Tensor:
    """The inverse, to [0, 1]."""
    return (videos.transpose(1, 2).float().cpu() / 2 + 0.5).clamp(0, 1)


def train_vae(settings: Settings, videos: Tensor) -> AutoencoderKLLTXVideo:
    """Videos of 9 x 32 x 32 pixels to latents of 3 x 2 x 2 cells and back; see ``shapes_video_codec``."""
    torch.manual_seed(settings.seed)
    vae = codec.build_vae().to(settings.device)
    found = codec.components(to_model(videos[:600], settings.device))
    codec.set_encoder(vae, found)
    codec.set_decoder(vae, found)
    vae.requires_grad_(False)
    trained = codec.trained_parts(vae).requires_grad_(True)

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 2, step)
        rows = torch.randint(len(videos), (settings.vae_batch,), generator=random)
        clean = to_model(videos[rows], settings.device)
        posterior = vae.encode(clean).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=random).to(settings.device)
        error = vae.decode(posterior.mean + posterior.std * noise).sample - clean
        return error.abs().mean() + 4 * error.square().mean()

    # In fp32: the offset of the last channels takes the digits of bf16.
    fit(
        "vae",
        nn.ModuleDict({"vae": trained}),
        loss,
        steps=settings.vae_steps,
        learning_rate=1e-3,
        warmup=20,
        folder=settings.work,
    )
    return vae


@torch.no_grad()
def encode_world(
    settings: Settings,
    vae: AutoencoderKLLTXVideo,
    scenes: list[moving_shapes.MovingShape],
    videos: Tensor,
) -> Tensor:
    """Latents as the denoiser sees them, [N, 12, 48], of zero mean; the VAE keeps mean and scale.

    Channels are scaled by the root of their deviation, so that leading components stay somewhat larger: they are
    decided first.
    """
    latents = torch.cat(
        [vae.encode(to_model(part, settings.device)).latent_dist.mean for part in videos.split(100)]
    )
    vae.latents_mean.copy_(latents.mean((0, 2, 3, 4)))
    deviation = latents.std((0, 2, 3, 4)).sqrt()
    whitened = (latents - vae.latents_mean[:, None, None, None]) / deviation[:, None, None, None]
    vae.latents_std.copy_(deviation * whitened.std())
    again = to_frames(vae.decode(latents[:192]).sample)
    error = (again - videos[:192] / 255).square().mean()
    truth = true_reward(again, [moving_shapes.caption(scene) for scene in scenes[:192]])
    console.print(f"vae: PSNR {-10 * error.log10():.1f} dB, truth of what it gives back: {truth}")
    save_image(
        torch.cat([videos[:24] / 255, again[:24]], 1).flatten(0, 1), settings.work / "vae.png", nrow=18
    )
    normalised = LTXPipeline._normalize_latents(latents, vae.latents_mean, vae.latents_std)
    packed: Tensor = LTXPipeline._pack_latents(normalised)
    return packed


def true_reward(frames: Tensor, prompts: list[str]) -> dict[str, float]:
    """Means of the held-out reward and its parts over videos [B, T, 3, H, W]."""
    samples = [Sample(p, Video(f, moving_shapes.FPS)) for p, f in zip(prompts, frames, strict=True)]
    score = load_reward("shapes-video-truth").score(samples)
    parts = {"overall": score.value, **score.aspects}
    return {name: round(float(values.mean()), 3) for name, values in parts.items()}


def word_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Every word of ``texts`` is one token, as are commas; all else is unknown."""
    words = sorted({word for text in texts for word in text.replace(",", " , ").split()})
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(",", behavior="isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=128,
    )


def build_pipeline(settings: Settings, vae: AutoencoderKLLTXVideo) -> LTXPipeline:
    """An untrained text encoder and transformer around the trained VAE."""
    texts = moving_shapes.captions("train") + moving_shapes.captions("heldout")
    tokenizer = word_tokenizer([*texts, OTHER_WORDS])
    torch.manual_seed(settings.seed + 1)
    encoder = T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4)
    )
    transformer = LTXVideoTransformer3DModel(
        in_channels=codec.CHANNELS,
        out_channels=codec.CHANNELS,
        num_attention_heads=7,
        attention_head_dim=18,
        cross_attention_dim=126,
        num_layers=4,
        caption_channels=64,
    )
    return LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    ).to(settings.device)


class MeanPooled(nn.Module):
    """A text encoder with the mean over its tokens as ``pooler_output`` [B, D], to be taught by.

    Args:
        encoder: of token ids.
        padding: the token that does not count.
    """

    def __init__(self, encoder: T5EncoderModel, padding: int) -> None:
        super().__init__()
        self.encoder, self.padding = encoder, padding

    def forward(self, tokens: Tensor) -> "MeanPooled.Output":
        """Encode [B, L]."""
        mask = tokens != self.padding
        hidden = self.encoder(tokens, attention_mask=mask).last_hidden_state
        return self.Output((hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True))

    @dataclass
    class Output:
        """As the text encoders of transformers name it."""

        pooler_output: Tensor


TABLES = (
    moving_shapes.KINDS,
    list(moving_shapes.COLOURS),
    list(moving_shapes.DIRECTIONS),
    list(moving_shapes.SPEEDS),
)


def described_scenes(random: torch.Generator) -> tuple[list[str], Tensor]:
    """128 captions and, [128, 4], the index of every attribute that they say."""
    scenes = [moving_shapes.random_scene(random, split=None) for _ in range(128)]
    indices = [
        [table.index(getattr(s, name)) for name, table in zip(moving_shapes.ATTRIBUTES, TABLES, strict=True)]
        for s in scenes
    ]
    return list(moving_shapes.noisy_captions(scenes, random, noise=0.0)), torch.tensor(indices)


def train_flow(
    settings: Settings, pipeline: LTXPipeline, scenes: list[moving_shapes.MovingShape], latents: Tensor
) -> None:
    """Conditional flow matching on noisily captioned videos; sigma is logit-normal, as LTX was trained."""
    texts = ["", *moving_shapes.captions("train"), *moving_shapes.captions("heldout")]
    numbers = {text: i for i, text in enumerate(texts)}
    with torch.no_grad():  # all there are, once: the encoder is frozen
        embeds, mask, _, _ = pipeline.encode_prompt(
            texts, do_classifier_free_guidance=False, max_sequence_length=TOKENS
        )

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 3, step)
        rows = torch.randint(len(latents), (settings.flow_batch,), generator=random).tolist()
        said = training_captions(
            [scenes[i] for i in rows],
            random,
            noise=settings.caption_noise if step >= settings.clean_steps else 0.0,
            dropout=settings.caption_dropout,
            captions=moving_shapes.noisy_captions,
        )
        named = [numbers[text] for text in said]
        clean = latents[rows]
        gaussian = torch.randn(clean.shape, generator=random).to(settings.device)
        # Above the middle, where it is decided what is seen.
        sigma = (0.5 + torch.randn(len(rows), generator=random)).sigmoid().to(settings.device)
        mix = sigma[:, None, None]
        velocity = pipeline.transformer(
            hidden_states=(1 - mix) * clean + mix * gaussian,
            timestep=1000 * sigma,
            encoder_hidden_states=embeds[named],
            encoder_attention_mask=mask[named],
            num_frames=3,
            height=2,
            width=2,
            rope_interpolation_scale=(4 / FRAME_RATES[step % 2], 16, 16),
        ).sample
        return (velocity - (gaussian - clean)).square().mean()

    fit(
        "flow",
        nn.ModuleDict({"transformer": pipeline.transformer}),
        loss,
        steps=settings.flow_steps,
        learning_rate=2e-3,
        folder=settings.work,
        bf16=settings.bf16,
    )


@torch.no_grad()
def report(settings: Settings, pipeline: LTXPipeline) -> None:
    """Frames and the true reward on held-out prompts, with and without guidance."""
    prompts = [
        moving_shapes.caption(scene, i % 5) for i, scene in enumerate(moving_shapes.all_scenes("heldout") * 2)
    ]
    pipeline.set_progress_bar_config(disable=True)
    for guidance in (1.0, 1.5, 2.0, 3.0):
        frames = pipeline(
            prompts,
            num_inference_steps=16,
            guidance_scale=guidance,
            height=SIDE_PX,
            width=SIDE_PX,
            num_frames=moving_shapes.FRAMES,
            frame_rate=moving_shapes.FPS,
            max_sequence_length=TOKENS,
            generator=[generator(i) for i in range(len(prompts))],
            output_type="pt",
        ).frames.cpu()
        console.print(f"guidance {guidance}: {true_reward(frames, prompts)}")
        save_image(frames[:48].flatten(0, 1), settings.work / f"guidance-{guidance}.png", nrow=18)


def save(pipeline: LTXPipeline, folder: Path) -> None:
    """Write transformer and VAE in fp16; plain ``from_pretrained`` gives them back in fp32.

    The text encoder is small and stays in fp32, as that of ``embedded/shapes-flow``.
    """
    pipeline.to("cpu")
    pipeline.transformer.half()
    pipeline.vae.half()
    pipeline.save_pretrained(folder)
    write_options(
        folder,
        height=SIDE_PX,
        width=SIDE_PX,
        frames=moving_shapes.FRAMES,
        fps=moving_shapes.FPS,
        max_sequence_length=TOKENS,
    )


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, then save the pipeline in fp16."""
    set_verbosity_error()
    settings.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    scenes, videos = draw_world(settings)
    console.print(f"{len(scenes)} videos drawn in {time.monotonic() - started:.0f} s")
    vae = train_vae(settings, videos)
    latents = encode_world(settings, vae, scenes, videos)
    pipeline = build_pipeline(settings, vae)
    tokenizer = pipeline.tokenizer

    def tokenize(_: str, texts: list[str]) -> Tensor:
        ids: Tensor = tokenizer(texts, padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
        return ids.to(settings.device)

    train_text(
        settings,
        {"text_encoder": MeanPooled(pipeline.text_encoder, tokenizer.pad_token_id)},
        tokenize,
        steps=settings.text_steps,
        described=described_scenes,
        choices=[len(table) for table in TABLES],
    )
    train_flow(settings, pipeline, scenes, latents)
    report(settings, pipeline)
    save(pipeline, settings.out)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Settings))
