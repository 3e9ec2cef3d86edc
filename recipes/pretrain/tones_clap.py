"""Make ``embedded/tones-clap``: a small ClapModel that scores how well sounds of the tones world fit captions.

Trained only on the training combinations of the world, so that held-out captions test whether it has learned the
attributes and not the list. Half of the sounds went through the autoencoder of ``embedded/tones``, some are over a hiss
and all are of another loudness, as a generator's are; each batch holds distinct scenes, and each sound also meets a
caption that is wrong in one attribute.

    uv run python recipes/pretrain/tones_clap.py        # about 30 minutes on one shared core; resumes where it stopped
"""

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from common import console, fit, generator
from diffusers import AutoencoderOobleck
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tones import lean
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchaudio.functional import resample
from transformers import ClapConfig, ClapModel, RobertaTokenizer

from mmalign.rewards.clap import cut_into_windows
from mmalign.rewards.log_mel import LogMel
from mmalign.worlds import tones

SAMPLE_RATE_HZ = 8_000
BANDS = 32
LATENT_ERROR = 0.4
"""Largest standard deviation; the latents' own is about 1."""
TOKENS = 20
"""Length of prompts."""
EXTRACTOR: dict[str, Any] = {
    "feature_extractor_type": "ClapFeatureExtractor",
    "feature_size": BANDS,
    "fft_window_size": 512,
    "frequency_max": 3_800,
    "frequency_min": 100,
    "hop_length": 126,
    "max_length_s": 2,
    "padding": "repeatpad",
    "padding_value": 0.0,
    "sampling_rate": SAMPLE_RATE_HZ,
    "top_db": None,
    "truncation": "rand_trunc",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the result."""

    out: Path = Path("assets/tones-clap")
    work: Path = Path("runs/pretrain/tones-clap")
    vae: Path = Path("assets/tones")
    """The pipeline whose autoencoder half of the sounds go through."""
    sounds_per_scene: int = 16
    steps: int = 2_000
    batch: int = 64
    learning_rate: float = 1.5e-3
    device: str = "cpu"
    threads: int = 1
    seed: int = 0


def wrong_scene(
    scene: tones.Scene, random: torch.Generator, *, split: tones.Split | None = "train"
) -> tones.Scene:
    """The scene with one attribute changed, or its two sounds exchanged."""

    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=random))

    options = {"kind": tones.KINDS, "pitch": tuple(tones.PITCHES), "count": tuple(tones.COUNTS)}
    while True:
        # Order is the slowest to learn: half of the changes of two sounds exchange them.
        exchanged = len(scene) == 2 and draw(2) == 1
        name = "order" if exchanged else tones.ATTRIBUTES[draw(3)]
        if name == "order":
            changed = scene[::-1]
        else:
            position = draw(len(scene))
            sound = replace(scene[position], **{name: options[name][draw(len(options[name]))]})
            changed = (*scene[:position], sound, *scene[position + 1 :])
        # A caption of the world reads back as its scene; what cannot be a scene does not.
        possible = changed != scene and tones.parse(tones.caption(changed)) == changed
        if possible and split in (None, tones.split_of(changed)):
            return changed


def say(scene: tones.Scene, random: torch.Generator) -> str:
    """A random paraphrase."""
    return tones.caption(scene, int(torch.randint(len(tones.ALONE_TEMPLATES), (), generator=random)))


def build_tokenizer(folder: Path) -> RobertaTokenizer:
    """RoBERTa's, with merges learned from the captions; kept in ``folder``, since equal merges come in any order."""
    if folder.is_dir():
        return RobertaTokenizer.from_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1_024,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(tones.captions("train") + tones.captions("heldout"), trainer)
    state = json.loads(tokenizer.to_str())["model"]
    made = RobertaTokenizer(
        vocab=state["vocab"], merges=[tuple(m) for m in state["merges"]], model_max_length=TOKENS
    )
    made.save_pretrained(folder)
    return made


def build_model(settings: Settings, tokenizer: RobertaTokenizer) -> ClapModel:
    """Untrained; attention in sixteenths of a sound, in quarters, then over all of it, and two layers of text.

    Neighbours are merged twice, so that a place in time is known; with one merge it never heard which sound was first.
    """
    torch.manual_seed(settings.seed)
    model = ClapModel(
        ClapConfig(
            projection_dim=128,
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": 96,
                "intermediate_size": 192,
                "num_hidden_layers": 2,
                "num_attention_heads": 3,
                "max_position_embeddings": TOKENS + 2,  # RoBERTa counts from one after the padding token's
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
                "pad_token_id": tokenizer.pad_token_id,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
            },
            audio_config={
                "num_mel_bins": BANDS,
                "spec_size": 2 * BANDS,
                "patch_size": 4,
                "patch_stride": (4, 4),
                "patch_embeds_hidden_size": 40,
                "hidden_size": 160,
                "depths": [2, 2, 2],
                "num_attention_heads": [2, 4, 4],
                "window_size": 4,
                "hidden_dropout_prob": 0.0,
            },
        )
    )
    with torch.no_grad():  # CLAP has no positions but this: each band's own offset tells the height
        model.audio_model.audio_encoder.batch_norm.bias.copy_(torch.linspace(-1, 1, BANDS))
    return model.to(settings.device)


def log_mel() -> LogMel:
    """What the reward hears by ``EXTRACTOR``."""
    return LogMel(
        sample_rate_hz=SAMPLE_RATE_HZ,
        window=EXTRACTOR["fft_window_size"],
        hop=EXTRACTOR["hop_length"],
        bands=BANDS,
        low_hz=EXTRACTOR["frequency_min"],
        high_hz=EXTRACTOR["frequency_max"],
    )


@torch.no_grad()
def hear(scenes: list[tones.Scene], random: torch.Generator, vae: AutoencoderOobleck) -> Tensor:
    """Decibels [N, frames, bands] of new sounds of these scenes, every other one through the autoencoder.

    There, as a generator would leave it, the latents have an error of up to ``LATENT_ERROR``.
    """
    mel, found = log_mel(), []
    for start in range(0, len(scenes), 100):
        waves = tones.render(scenes[start : start + 100], random)
        waves = resample(waves, tones.SAMPLE_RATE_HZ, SAMPLE_RATE_HZ)
        with lean(vae):
            latents = vae.encode(waves[::2, None]).latent_dist.mean
            error = LATENT_ERROR * torch.rand(len(latents), 1, 1, generator=random)
            again = vae.decode(latents + error * torch.randn(latents.shape, generator=random)).sample
        waves[::2] = again[:, 0].clamp(-1, 1)
        length = int(EXTRACTOR["max_length_s"]) * SAMPLE_RATE_HZ
        found.append(mel(cut_into_windows(waves, length=length)[0][:, 0]))
    return torch.cat(found)


def spoil(decibels: Tensor, random: torch.Generator) -> Tensor:
    """Each sound up to 4 dB louder or quieter, over a hiss of -100 to -45 dB a band, and uneven by 1 dB."""
    gain = 8 * torch.rand(len(decibels), 1, 1, generator=random) - 4
    uneven = torch.randn(decibels.shape, generator=random)
    hiss = -100 + 55 * torch.rand(len(decibels), 1, 1, generator=random) + 3 * uneven
    return torch.maximum(decibels + gain + uneven, hiss)


def train(
    settings: Settings,
    model: ClapModel,
    tokenizer: RobertaTokenizer,
    scenes: list[tones.Scene],
    heard: Tensor,
) -> None:
    """Symmetric contrastive loss; each sound also tells its caption from one that is wrong in one attribute."""
    copies = len(heard) // len(scenes)

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 2, step)
        rows = torch.randperm(len(scenes), generator=random)[: settings.batch]
        copy = torch.randint(copies, rows.shape, generator=random)
        right = [scenes[i] for i in rows]
        said = right + [wrong_scene(scene, random) for scene in right]
        tokens = tokenizer([say(scene, random) for scene in said], padding=True, return_tensors="pt")
        tokens = tokens.to(settings.device)
        features = spoil(heard[rows + len(scenes) * copy], random)[:, None].to(settings.device)
        sound = model.get_audio_features(features).pooler_output
        text = model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        cosine = sound @ text.T
        # Elsewhere in the batch, a wrong caption may be right for another sound.
        also_right = torch.tensor(
            [[a == b and i != j for j, b in enumerate(said)] for i, a in enumerate(right)]
        )
        masked = torch.zeros(cosine.shape).masked_fill(also_right, -math.inf).to(cosine.device)
        own = torch.arange(len(right), device=cosine.device)
        by_sound = model.logit_scale_a.clamp(max=math.log(50)).exp() * cosine + masked
        by_text = (model.logit_scale_t.clamp(max=math.log(50)).exp() * cosine + masked)[:, : len(right)].T
        return (cross_entropy(by_sound, own) + cross_entropy(by_text, own)) / 2

    modules = nn.ModuleDict({"clap": model})
    fit(
        "clap",
        modules,
        loss,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        folder=settings.work,
        ema_decay=0.995,
    )


def save(settings: Settings, model: ClapModel, tokenizer: RobertaTokenizer) -> None:
    """Weights in fp16, the tokenizer, and what the sounds have to become."""
    model.save_pretrained(settings.out)
    path = settings.out / "model.safetensors"
    weights = {k: v.half() if v.is_floating_point() else v for k, v in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    tokenizer.save_pretrained(settings.out)
    text = json.dumps(EXTRACTOR, indent=2) + "\n"
    (settings.out / "preprocessor_config.json").write_text(text, encoding="utf-8")


@torch.no_grad()
def report(settings: Settings, vae: AutoencoderOobleck) -> None:
    """On held-out combinations: how often the right caption beats one with one wrong attribute, by attribute."""
    model = ClapModel.from_pretrained(settings.out, dtype=torch.float32).eval()
    tokenizer = RobertaTokenizer.from_pretrained(settings.out)
    random = generator(settings.seed, 3)
    scenes = [scene for scene in tones.all_scenes("heldout") for _ in range(8)]
    wrong = [wrong_scene(scene, random, split=None) for scene in scenes]
    heard = hear(scenes, random, vae)
    texts = [[say(scene, random) for scene in side] for side in (scenes, wrong)]
    for state, features in (("clean", heard), ("spoiled", spoil(heard, random))):
        sound = model.get_audio_features(features[:, None]).pooler_output
        good, bad = (
            (
                sound
                * model.get_text_features(**tokenizer(t, padding=True, return_tensors="pt")).pooler_output
            ).sum(-1)
            for t in texts
        )
        won = (good > bad).float()
        line = f"{state}: {won.mean():.4f} (right {good.mean():.3f}, wrong {bad.mean():.3f})"
        for name in tones.ATTRIBUTES:
            changed = torch.tensor(
                [changed_attribute(*pair) == name for pair in zip(scenes, wrong, strict=True)]
            )
            line += f", {name} {won[changed].mean():.3f}"
        console.print(line)


def changed_attribute(scene: tones.Scene, wrong: tones.Scene) -> str:
    """Which attribute ``wrong_scene`` changed."""
    if len(scene) == 2 and wrong == scene[::-1]:
        return "order"
    sounds = zip(scene, wrong, strict=True)
    return next(n for a, b in sounds for n in ("kind", "pitch", "count") if getattr(a, n) != getattr(b, n))


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, save in fp16, and report."""
    torch.set_num_threads(settings.threads)
    started = time.monotonic()
    vae = AutoencoderOobleck.from_pretrained(settings.vae, subfolder="vae")
    scenes = tones.all_scenes("train")
    heard = hear(scenes * settings.sounds_per_scene, generator(settings.seed, 1), vae)
    console.print(f"{len(heard)} sounds made in {time.monotonic() - started:.0f} s")
    tokenizer = build_tokenizer(settings.work / "tokenizer")
    model = build_model(settings, tokenizer)
    train(settings, model, tokenizer, scenes, heard)
    save(settings, model, tokenizer)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")
    report(settings, vae)


if __name__ == "__main__":
    main(tyro.cli(Settings))
