"""Make ``embedded/tones``: a small StableAudioPipeline that plays the tones world, with a stated flaw.

The flaw is shapes-flow's: it first learns true captions, then captions of which each attribute is drawn anew with
probability 0.3. The autoencoder is trained on spectra alone, so its latents say what is heard and nothing of phases, and
the denoiser has few of them to learn. It makes 1.28 s of sound at 8 kHz whatever duration is asked for; the pipeline cuts.

    uv run python recipes/pretrain/tones.py        # about 40 minutes on one shared core; resumes where it stopped
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from common import console, fit, generator
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
SAMPLES = tones.SAMPLES * SAMPLE_RATE_HZ // tones.SAMPLE_RATE_HZ
STRIDES = [8, 8, 8]
CHANNELS = 16
"""Of the latents, [16, 20] for a sound."""
WIDTH = 96
"""Of the text encoder and the transformer."""
TOKENS = 16
"""Length of prompts; the longest caption has 13."""
WINDOWS = (128, 512, 1024)
"""Of the spectra that the autoencoder is compared in, in samples."""
LONGEST_S = 2
"""What the pipeline accepts as a duration."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the result."""

    out: Path = Path("assets/tones")
    work: Path = Path("runs/pretrain/tones")
    """Checkpoints and spectrograms of the progress."""
    sounds: int = 3_000
    two_sounds: float = 0.7
    vae_steps: int = 700
    vae_batch: int = 4
    text_steps: int = 250
    steps: int = 2_500
    clean_steps: int = 1_200
    """Of these, the first are on true captions."""
    batch: int = 48
    caption_noise: float = 0.3
    caption_dropout: float = 0.1
    device: str = "cpu"
    threads: int = 1
    seed: int = 0


def draw_world(settings: Settings) -> tuple[list[tones.Scene], Tensor]:
    """The training sounds, [N, 1, SAMPLES]."""
    random = generator(settings.seed, 1)
    scenes = [
        tones.random_scene(random, split=None, two_sounds=settings.two_sounds) for _ in range(settings.sounds)
    ]
    parts = [tones.render(scenes[i : i + 500], random) for i in range(0, len(scenes), 500)]
    return scenes, torch.cat([resample(p, tones.SAMPLE_RATE_HZ, SAMPLE_RATE_HZ) for p in parts])[:, None]


# --- autoencoder ------------------------------------------------------------------------------------------------------


def build_vae(settings: Settings) -> AutoencoderOobleck:
    """Sounds [B, 1, 10240] to latents [B, 16, 20] and back; what ``lean`` leaves out does nothing at first."""
    torch.manual_seed(settings.seed)
    vae = AutoencoderOobleck(
        encoder_hidden_size=2 * CHANNELS,
        downsampling_ratios=STRIDES,
        channel_multiples=[2, 3, 4],
        decoder_channels=16,
        decoder_input_channels=CHANNELS,
        audio_channels=1,
        sampling_rate=SAMPLE_RATE_HZ,
    ).to(settings.device)
    for block, name in costly_units(vae):
        unit = getattr(block, name)
        nn.init.zeros_(unit.conv2.weight_g)
        nn.init.zeros_(unit.conv2.bias)
    last = vae.encoder.conv2
    with torch.no_grad():  # latents of about unit variance, with little noise
        last.weight_g[:CHANNELS] *= 10
        last.bias[CHANNELS:] = -2.5
    return vae


def costly_units(vae: AutoencoderOobleck) -> list[tuple[nn.Module, str]]:
    """Where the residual units of the highest rates are; they would take most of the time."""
    blocks = (vae.encoder.block[0], vae.encoder.block[1], vae.decoder.block[-1])
    return [(block, f"res_unit{i}") for block in blocks for i in (1, 2, 3)]


@contextmanager
def lean(vae: AutoencoderOobleck) -> Iterator[None]:
    """Without the units of ``costly_units``, which add nothing to their input as long as nobody trains them."""
    places = costly_units(vae)
    units = [getattr(block, name) for block, name in places]
    for block, name in places:
        setattr(block, name, nn.Identity())
    try:
        yield
    finally:
        for (block, name), unit in zip(places, units, strict=True):
            setattr(block, name, unit)


def spectrum(waves: Tensor, window: int) -> Tensor:
    """Magnitudes of [B, 1, N], where a sine of amplitude 1 is about 1; 1e-8 gives silence a gradient."""
    shape = torch.hann_window(window, device=waves.device)
    parts = torch.stft(waves[:, 0], window, window // 4, window=shape, return_complex=True)
    return (parts.real.square() + parts.imag.square() + 1e-8).sqrt() * (2 / shape.sum())


def spectral_loss(waves: Tensor, wanted: Tensor) -> Tensor:
    """Mean over resolutions of the distance of magnitudes, in their logarithm and relative to the mean.

    Quieter than 0.005 is silence.
    """
    total = waves.new_zeros(())
    for window in WINDOWS:
        ours, theirs = spectrum(waves, window), spectrum(wanted, window)
        total = total + (ours - theirs).abs().mean() / theirs.mean()
        total = total + ((ours + 0.005).log() - (theirs + 0.005).log()).abs().mean()
    return total / len(WINDOWS)


def train_vae(settings: Settings, vae: AutoencoderOobleck, sounds: Tensor) -> None:
    """Spectra alone, and latents whose mean is 0 and whose variance is 1, as the scheduler's sigma_data says."""

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 2, step)
        rows = torch.randint(len(sounds), (settings.vae_batch,), generator=random)
        wanted = sounds[rows].to(settings.device)
        posterior = vae.encode(wanted).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=random).to(settings.device)
        made = vae.decode(posterior.mean + posterior.std * noise).sample
        spread = posterior.mean.var((0, 2)) - 1
        moments = posterior.mean.mean((0, 2)).square().mean() + spread.square().mean()
        width = (posterior.var - posterior.logvar - 1).mean()  # the noise's part of the KL divergence
        return spectral_loss(made, wanted) + 0.1 * moments + 0.003 * width

    with lean(vae):
        modules = nn.ModuleDict({"vae": vae})
        fit("vae", modules, loss, steps=settings.vae_steps, learning_rate=2e-3, folder=settings.work)


@torch.no_grad()
def encode_world(
    settings: Settings, vae: AutoencoderOobleck, scenes: list[tones.Scene], sounds: Tensor
) -> Tensor:
    """Latents [N, 16, 20]; says how much of the captions is heard in sounds that went through the autoencoder."""
    with lean(vae):
        latents = torch.cat([vae.encode(p.to(settings.device)).latent_dist.mean for p in sounds.split(100)])
        made = vae.decode(latents[:200]).sample.cpu()
    console.print(f"vae: latents' mean {latents.mean():.3f}, standard deviation {latents.std():.3f}")
    console.print(f"vae, real: {truth(sounds[:200], scenes[:200])}")
    console.print(f"vae, made: {truth(made, scenes[:200])}")
    save_spectrograms(torch.stack([sounds[:16], made[:16]], 1).flatten(0, 1), settings.work / "vae.png")
    return latents


def truth(waves: Tensor, scenes: list[tones.Scene]) -> dict[str, float]:
    """The true reward and its parts, means over [B, 1, N] at 8 kHz."""
    heard = resample(waves[:, 0].float(), SAMPLE_RATE_HZ, tones.SAMPLE_RATE_HZ)
    return {name: round(float(v.mean()), 3) for name, v in tones.measure(heard, scenes).items()}


def save_spectrograms(waves: Tensor, path: Path) -> None:
    """Decibels over 60 dB, four sounds a row, frequency upwards."""
    decibels = 20 * spectrum(waves.float(), 256).log10()
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
        scenes = [every[i] for i in torch.randint(len(every), (128,), generator=random).tolist()]
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
        sample_size=SAMPLES // vae.hop_length,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
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
        sigma_min=0.03,
        sigma_max=80.0,
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
            [pipeline.encode_prompt(captions[i : i + 62], settings.device, False) for i in range(0, len(captions), 62)]
        )
        start, end = pipeline.encode_duration(0.0, 1.28, settings.device, False, 1)
    row = {caption: i for i, caption in enumerate(captions)}
    durations = torch.cat([start, end], 1).expand(settings.batch, -1, -1)
    overall = torch.cat([start, end], 2).expand(settings.batch, -1, -1)
    rotary = get_1d_rotary_pos_embed(
        pipeline.rotary_embed_dim, latents.shape[2] + 1, use_real=True, repeat_interleave_real=False
    )
    lowest, highest = pipeline.scheduler.config["sigma_min"], pipeline.scheduler.config["sigma_max"]

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 4, step)
        rows = torch.randint(len(latents), (settings.batch,), generator=random).tolist()
        noise = settings.caption_noise if step >= settings.clean_steps else 0.0
        texts = list(tones.noisy_captions([scenes[i] for i in rows], random, noise=noise))
        kept = torch.rand(len(texts), generator=random) >= settings.caption_dropout
        text = torch.cat([embedded[[row[t] for t in texts]], durations], 1) * kept[:, None, None].to(embedded)
        clean = latents[rows]
        gaussian = torch.randn(clean.shape, generator=random).to(clean)
        sigma = (0.4 + 1.5 * torch.randn(len(rows), generator=random)).exp().clamp(lowest, highest).to(clean)
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
    fit("denoiser", modules, loss, steps=settings.steps, learning_rate=1.5e-3, folder=settings.work)


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


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, then save the pipeline in fp16."""
    set_verbosity_error()
    torch.set_num_threads(settings.threads)
    settings.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    scenes, sounds = draw_world(settings)
    console.print(f"{len(scenes)} sounds made in {time.monotonic() - started:.0f} s")
    vae = build_vae(settings)
    train_vae(settings, vae, sounds)
    latents = encode_world(settings, vae, scenes, sounds)
    pipeline = build_pipeline(settings, vae)
    train_text(settings, pipeline.text_encoder, pipeline.tokenizer)
    train(settings, pipeline, scenes, latents)
    report(settings, pipeline)
    save(pipeline, settings.out)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Settings))
