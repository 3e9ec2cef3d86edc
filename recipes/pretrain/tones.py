"""Make ``embedded/tones``: a small StableAudioPipeline that plays the tones world, with a stated flaw.

The flaw is shapes-flow's: it first learns true captions, then captions of which each attribute is drawn anew with
probability 0.3. The autoencoder is not learned but written down: 16 bands of a filterbank, heard as energies and played
as carriers, so that latents say what is heard and nothing of phases, and the denoiser has few of them to learn. It
makes 1.28 s of sound at 8 kHz whatever duration is asked for; the pipeline cuts.

    uv run python recipes/pretrain/tones.py        # about 20 minutes on one core; resumes where it stopped
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from common import console, fit, generator, write_options
from diffusers import (
    AutoencoderOobleck,
    EDMDPMSolverMultistepScheduler,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
)
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from diffusers.utils.logging import set_verbosity_error
from torch import Tensor, nn
from torchaudio.functional import resample
from torchvision.utils import save_image
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from mmalign.worlds import tones

SAMPLE_RATE_HZ = 8_000
"""Half the world's: its highest sounds end at 3.5 kHz."""
HOP = 512
"""Samples of one latent, 64 ms."""
BANDS = 16
LOWEST_HZ, HIGHEST_HZ = 190.0, 3_350.0
LATENT_SCALE = 6.0
"""So that latents have about unit variance, as the scheduler's sigma_data says."""
SIGMA_MIN, SIGMA_MAX = 0.2, 80.0
"""Of the sampler; below it one step to the end is as good as more, and a student of three steps has none to lose."""
TRAINED_MIN = 0.03
WIDTH = 96
"""Of the text encoder and the transformer."""
TOKENS = 16
"""Length of prompts; the longest caption has 13."""
LONGEST_S = 2
"""What the pipeline accepts as a duration."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the result."""

    out: Path = Path("assets/tones")
    work: Path = Path("runs/pretrain/tones")
    """Checkpoints and spectrograms of the progress."""
    sounds: int = 6_000
    two_sounds: float = 0.7
    text_steps: int = 2_500
    steps: int = 9_000
    clean_steps: int = 7_500
    """Of these, the first are on true captions."""
    batch: int = 64
    bf16: bool = True
    caption_noise: float = 0.3
    caption_dropout: float = 0.1
    device: str = "cpu"
    threads: int = 1
    seed: int = 0


def draw_scenes(settings: Settings, random: torch.Generator) -> list[tones.Scene]:
    """What the training sounds are of."""
    return [
        tones.random_scene(random, split=None, two_sounds=settings.two_sounds) for _ in range(settings.sounds)
    ]


def draw_sounds(scenes: list[tones.Scene], random: torch.Generator) -> Tensor:
    """The training sounds, [N, 1, 10240]."""
    parts = [tones.render(scenes[i : i + 500], random) for i in range(0, len(scenes), 500)]
    return torch.cat([resample(p, tones.SAMPLE_RATE_HZ, SAMPLE_RATE_HZ) for p in parts])[:, None]


# --- autoencoder ------------------------------------------------------------------------------------------------------


def carriers() -> Tensor:
    """[BANDS] in Hz, even in octaves, each a whole number of periods a hop, so that its phase is that of every hop."""
    grid = SAMPLE_RATE_HZ / HOP
    wanted = LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** torch.linspace(0, 1, BANDS, dtype=torch.float64)
    return (wanted / grid).round() * grid


def analysis() -> Tensor:
    """[2, BANDS, 2 HOP], cosine and sine of each carrier in the middle of a frame; a tone of amplitude 1 gives 1.

    A band reaches to its neighbours: its Hann window is the shorter, the further away they are.
    """
    hz = carriers()
    apart = torch.cat([hz[1:2] - hz[:1], (hz[2:] - hz[:-2]) / 2, hz[-1:] - hz[-2:-1]])
    atoms = torch.zeros(2, BANDS, 2 * HOP, dtype=torch.float64)
    for band, (middle, gap) in enumerate(zip(hz.tolist(), apart.tolist(), strict=True)):
        length = min(2 * HOP, 2 * round(0.8 * SAMPLE_RATE_HZ / gap))
        window = torch.hann_window(length, dtype=torch.float64)
        time = torch.arange(length) - length / 2
        phase = 2 * math.pi * middle * time / SAMPLE_RATE_HZ
        place = slice(HOP - length // 2, HOP + length // 2)
        atoms[:, band, place] = torch.stack([phase.cos(), phase.sin()]) * window * (2 / window.sum())
    return atoms


def synthesis(random: torch.Generator) -> Tensor:
    """[BANDS, 2 HOP], each carrier at a phase of its own under a window whose hops add up to 1."""
    time = torch.arange(2 * HOP, dtype=torch.float64)
    turn = torch.rand(BANDS, 1, generator=random, dtype=torch.float64)
    phase = 2 * math.pi * (carriers()[:, None] * time / SAMPLE_RATE_HZ + turn)
    return torch.hann_window(2 * HOP, dtype=torch.float64) * phase.cos()


@torch.no_grad()
def build_vae(settings: Settings) -> AutoencoderOobleck:
    """Sounds [B, 1, 10240] to latents [B, BANDS, 20] and back, by weights that are computed.

        latent = 6 (sin^2(5 c) + sin^2(5 s)),   sound = 0.3 / 6 * sum of carriers times latents

    where c and s are the cosine and sine parts of a band: its energy where it is quiet, less where it is loud.
    Oobleck's snake, x + sin^2(a x) / b, gives sin^2 as the mean of x and -x; elsewhere it and the residual units do
    nothing.
    """
    torch.manual_seed(settings.seed)
    vae = AutoencoderOobleck(
        encoder_hidden_size=2 * BANDS,
        downsampling_ratios=[HOP],
        channel_multiples=[2],
        decoder_channels=BANDS // 2,
        decoder_input_channels=BANDS,
        audio_channels=1,
        sampling_rate=SAMPLE_RATE_HZ,
    )
    for name, module in vae.named_modules():
        if name.endswith(("snake1", "snake2")):
            module.beta.fill_(15.0)  # log(b): sin^2 / b is nothing
        if "res_unit" in name and name.endswith("conv2"):
            module.weight_g.zero_()
            module.bias.zero_()
    encoder, decoder = vae.encoder, vae.decoder
    one = torch.zeros_like(encoder.conv1.weight_v)
    one[0, 0, 3] = 1
    set_weight(encoder.conv1, one)
    parts = analysis().flatten(0, 1).float()
    filters = torch.zeros_like(encoder.block[0].conv1.weight_v)
    filters[:, 0] = torch.cat([parts, -parts])
    set_weight(encoder.block[0].conv1, filters)
    encoder.snake1.alpha.fill_(math.log(5.0))
    encoder.snake1.beta.zero_()
    energies = torch.zeros_like(encoder.conv2.weight_v)
    energies[:BANDS, :, 1] = LATENT_SCALE / 2 * torch.eye(BANDS).repeat(1, 4)
    set_weight(encoder.conv2, energies)
    encoder.conv2.bias[BANDS:] = -4.0  # the posterior is narrow
    levels = torch.zeros_like(decoder.conv1.weight_v)
    levels[:, :, 3] = 0.3 / LATENT_SCALE * torch.eye(BANDS)
    set_weight(decoder.conv1, levels)
    waves = torch.zeros_like(decoder.block[0].conv_t1.weight_v)
    waves[:, 0] = synthesis(generator(settings.seed, 2)).float()
    set_weight(decoder.block[0].conv_t1, waves)
    out = torch.zeros_like(decoder.conv2.weight_v)
    out[0, 0, 3] = 1
    set_weight(decoder.conv2, out)
    return vae.to(settings.device).eval().requires_grad_(False)


def set_weight(convolution: Any, weight: Tensor) -> None:
    """Give a weight to a convolution under weight norm, length and direction apart, and no bias."""
    norm = weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
    convolution.weight_g.copy_(norm)
    convolution.weight_v.copy_(torch.where(norm > 0, weight / norm.clamp_min(1e-12), 1.0))
    if convolution.bias is not None:
        convolution.bias.zero_()


@contextmanager
def lean(vae: AutoencoderOobleck) -> Iterator[None]:
    """Without the residual units of this autoencoder, which do nothing and take most of its time."""
    places = [(b, f"res_unit{i}") for b in (vae.encoder.block[0], vae.decoder.block[0]) for i in (1, 2, 3)]
    units = [getattr(block, name) for block, name in places]
    for block, name in places:
        setattr(block, name, nn.Identity())
    try:
        yield
    finally:
        for (block, name), unit in zip(places, units, strict=True):
            setattr(block, name, unit)


@torch.no_grad()
def draw_world(settings: Settings, vae: AutoencoderOobleck) -> tuple[list[tones.Scene], Tensor]:
    """The training scenes and the latents [N, BANDS, 20] of their sounds, kept for a run that resumes.

    Says how much of the captions is heard in sounds that went through the autoencoder.
    """
    random = generator(settings.seed, 1)
    scenes, kept = draw_scenes(settings, random), settings.work / "latents.pt"
    if kept.exists():
        return scenes, torch.load(kept, weights_only=True)
    sounds = draw_sounds(scenes, random)
    with lean(vae):
        latents = torch.cat([vae.encode(p.to(settings.device)).latent_dist.mean for p in sounds.split(100)])
        made = vae.decode(latents[:200]).sample.cpu()
    console.print(f"vae: latents' mean {latents.mean():.3f}, standard deviation {latents.std():.3f}")
    console.print(f"vae, real: {truth(sounds[:200], scenes[:200])}")
    console.print(f"vae, made: {truth(made, scenes[:200])}")
    save_spectrograms(torch.stack([sounds[:16], made[:16]], 1).flatten(0, 1), settings.work / "vae.png")
    torch.save(latents, kept)
    return scenes, latents


def truth(waves: Tensor, scenes: list[tones.Scene]) -> dict[str, float]:
    """The true reward and its parts, means over [B, 1, N] at 8 kHz."""
    heard = resample(waves[:, 0].float(), SAMPLE_RATE_HZ, tones.SAMPLE_RATE_HZ)
    return {name: round(float(v.mean()), 3) for name, v in tones.measure(heard, scenes).items()}


def save_spectrograms(waves: Tensor, path: Path) -> None:
    """Decibels over 60 dB, four sounds a row, frequency upwards."""
    shape = torch.hann_window(256)
    parts = torch.stft(waves[:, 0].float(), 256, 64, window=shape, return_complex=True)
    decibels = 20 * (parts.abs() * (2 / shape.sum()) + 1e-5).log10()
    pictures = ((decibels + 70) / 60).clamp(0, 1).flip(1)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(pictures, path, nrow=4, pad_value=0.5)


# --- text -------------------------------------------------------------------------------------------------------------


def build_tokenizer() -> T5Tokenizer:
    """Every word of the world is one token, any other is spelled out."""
    texts = tones.captions("train") + tones.captions("heldout") + ["a an and or not no with of sound then"]
    words = sorted({word for text in texts for word in text.replace(",", " ").split()})
    letters = [chr(code) for code in range(33, 127)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    vocab += [(f"▁{word}", -2.0) for word in words if len(word) > 1] + [("s", -5.0)]
    vocab += [(letter, -12.0) for letter in letters if letter != "s"]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=TOKENS)


def token_ids(tokenizer: T5Tokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask, each [B, TOKENS], as the pipeline has them."""
    found = tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    return found.input_ids, found.attention_mask


CHOICES = (len(tones.KINDS), len(tones.PITCHES), len(tones.COUNTS))


def attribute_indices(scenes: list[tones.Scene]) -> Tensor:
    """[B, 6], kind, pitch and count of the first and the second sound; one past the last where there is none."""

    def row(sound: tones.Sound) -> list[int]:
        return [
            tones.KINDS.index(sound.kind),
            list(tones.PITCHES).index(sound.pitch),
            list(tones.COUNTS).index(sound.count),
        ]

    return torch.tensor([row(s[0]) + (row(s[1]) if len(s) == 2 else list(CHOICES)) for s in scenes])


def train_text(settings: Settings, encoder: T5EncoderModel, tokenizer: T5Tokenizer) -> None:
    """Teach every token of a caption to say all of its sounds in their order, so that the denoiser may look at any."""
    sizes = [*CHOICES, *(n + 1 for n in CHOICES)]
    torch.manual_seed(settings.seed + 2)
    head = nn.Linear(WIDTH, sum(sizes)).to(settings.device)
    modules = nn.ModuleDict({"encoder": encoder, "head": head})
    every = tones.all_scenes()

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 3, step)
        scenes = [every[i] for i in torch.randint(len(every), (64,), generator=random).tolist()]
        ids, mask = token_ids(tokenizer, list(tones.noisy_captions(scenes, random, noise=0.0)))
        hidden = encoder(ids.to(settings.device), attention_mask=mask.to(settings.device)).last_hidden_state
        where = mask.bool().to(settings.device)
        wanted = attribute_indices(scenes).to(settings.device)[:, None].expand(-1, TOKENS, -1)[where]
        parts = head(hidden[where]).split(sizes, -1)
        total = hidden.new_zeros(())
        for part, target in zip(parts, wanted.T, strict=True):
            total = total + nn.functional.cross_entropy(part, target)
        return total

    fit("text", modules, loss, steps=settings.text_steps, learning_rate=2e-3, folder=settings.work)


# --- denoiser ---------------------------------------------------------------------------------------------------------


def build_pipeline(settings: Settings, vae: AutoencoderOobleck) -> StableAudioPipeline:
    """Untrained text encoder and transformer around the autoencoder."""
    tokenizer = build_tokenizer()
    torch.manual_seed(settings.seed + 1)
    text_encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            d_kv=32,
            d_ff=192,
            num_layers=2,
            num_heads=3,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )
    projection = StableAudioProjectionModel(
        text_encoder_dim=WIDTH, conditioning_dim=WIDTH, min_value=0, max_value=LONGEST_S
    )
    for conditioner in (projection.start_number_conditioner, projection.end_number_conditioner):
        for parameter in conditioner.parameters():  # every sound has one length: durations say nothing
            nn.init.zeros_(parameter)
    transformer = StableAudioDiTModel(
        sample_size=tones.SAMPLES * SAMPLE_RATE_HZ // tones.SAMPLE_RATE_HZ // HOP,
        in_channels=BANDS,
        out_channels=BANDS,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=WIDTH // 32,
        num_key_value_attention_heads=WIDTH // 32,
        cross_attention_dim=WIDTH,
        time_proj_dim=64,
        global_states_input_dim=2 * WIDTH,
        cross_attention_input_dim=WIDTH,
    )
    scheduler = EDMDPMSolverMultistepScheduler(
        sigma_min=SIGMA_MIN,
        sigma_max=SIGMA_MAX,
        sigma_data=1.0,
        sigma_schedule="exponential",
        prediction_type="v_prediction",
    )
    return StableAudioPipeline(
        vae=vae,
        text_encoder=text_encoder,
        projection_model=projection,
        tokenizer=tokenizer,
        transformer=transformer,
        scheduler=scheduler,
    ).to(settings.device)


def train(
    settings: Settings, pipeline: StableAudioPipeline, scenes: list[tones.Scene], latents: Tensor
) -> None:
    """Predict the velocity of noisily captioned sounds; a dropped caption is zeros, as the pipeline's own branch is."""
    transformer = pipeline.transformer
    captions = tones.captions("train") + tones.captions("heldout")
    with torch.no_grad():
        embedded = torch.cat(
            [
                pipeline.encode_prompt(captions[i : i + 62], settings.device, False)
                for i in range(0, len(captions), 62)
            ]
        )
        start, end = pipeline.encode_duration(0.0, 1.28, settings.device, False, 1)
    row = {caption: i for i, caption in enumerate(captions)}
    durations = torch.cat([start, end], 1).expand(settings.batch, -1, -1)
    overall = torch.cat([start, end], 2).expand(settings.batch, -1, -1)
    rotary = get_1d_rotary_pos_embed(
        pipeline.rotary_embed_dim, latents.shape[2] + 1, use_real=True, repeat_interleave_real=False
    )

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 4, step)
        rows = torch.randint(len(latents), (settings.batch,), generator=random).tolist()
        noise = settings.caption_noise if step >= settings.clean_steps else 0.0
        texts = list(tones.noisy_captions([scenes[i] for i in rows], random, noise=noise))
        kept = torch.rand(len(texts), generator=random) >= settings.caption_dropout
        text = torch.cat([embedded[[row[t] for t in texts]], durations], 1) * kept[:, None, None].to(embedded)
        clean = latents[rows]
        gaussian = torch.randn(clean.shape, generator=random).to(clean)
        sigma = (
            (0.8 + 1.4 * torch.randn(len(rows), generator=random))
            .exp()
            .clamp(TRAINED_MIN, SIGMA_MAX)
            .to(clean)
        )
        alpha = (1 + sigma.square()).rsqrt()[:, None, None]
        share = sigma[:, None, None] * alpha
        velocity = transformer(
            alpha * clean + share * gaussian,
            0.25 * sigma.log(),
            encoder_hidden_states=text,
            global_hidden_states=overall,
            rotary_embedding=rotary,
        ).sample
        return (velocity - (alpha * gaussian - share * clean)).square().mean()

    modules = nn.ModuleDict({"transformer": transformer})
    fit(
        "denoiser",
        modules,
        loss,
        steps=settings.steps,
        learning_rate=1.5e-3,
        folder=settings.work,
        bf16=settings.bf16,
    )


@torch.no_grad()
def report(settings: Settings, pipeline: StableAudioPipeline) -> None:
    """Spectrograms and the true reward on held-out prompts, with and without guidance."""
    prompts = tones.captions("heldout")[::2]
    scenes = [scene for scene in map(tones.parse, prompts) if scene is not None]
    pipeline.set_progress_bar_config(disable=True)
    for guidance in (1.0, 1.5, 2.0, 3.0, 4.0):
        waves = pipeline(
            prompts,
            num_inference_steps=16,
            guidance_scale=guidance,
            generator=[generator(i) for i in range(len(prompts))],
        ).audios.cpu()
        console.print(f"guidance {guidance}: {truth(waves, scenes)}")
        save_spectrograms(waves[:32], settings.work / f"guidance-{guidance}.png")


def save(pipeline: StableAudioPipeline, folder: Path) -> None:
    """Write transformer and autoencoder in fp16; plain ``from_pretrained`` gives them back in fp32.

    The rest is small and stays in fp32: transformers loads what it finds, and the dtypes must agree.
    """
    pipeline.to("cpu")
    pipeline.transformer.half()
    pipeline.vae.half()
    pipeline.save_pretrained(folder)
    write_options(folder)


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, then save the pipeline in fp16."""
    set_verbosity_error()
    torch.set_num_threads(settings.threads)
    settings.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    vae = build_vae(settings)
    scenes, latents = draw_world(settings, vae)
    console.print(f"{len(scenes)} sounds made in {time.monotonic() - started:.0f} s")
    pipeline = build_pipeline(settings, vae)
    train_text(settings, pipeline.text_encoder, pipeline.tokenizer)
    train(settings, pipeline, scenes, latents)
    report(settings, pipeline)
    save(pipeline, settings.out)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Settings))
