"""Make ``embedded/commands-asr``: a small CTC recogniser of the commands world, the training reward of its speech.

Trained only on the training combinations of the world. Half of the sounds went through the codec of
``embedded/commands``, and all get some noise, so that a generator's sound is not foreign to it.

    uv run python recipes/pretrain/commands_asr.py        # about 5 minutes on one core; resumes where it stopped
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from common import console, fit, speak_world
from torch import Tensor, nn
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertProcessor,
    Wav2Vec2CTCTokenizer,
)

from mmalign.adapters.speech_codec import SpeechCodec
from mmalign.media import Sample, Speech
from mmalign.rewards.cards import load_reward
from mmalign.worlds import commands


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the result."""

    out: Path = Path("assets/commands-asr")
    work: Path = Path("runs/pretrain/commands-asr")
    codec: Path = Path("assets/commands/codec")
    sounds_per_command: int = 12
    coded_share: float = 0.5
    """Of the sounds, these went through the codec."""
    loudest_noise_db: float = -10.0
    """Of the white noise, against the sound; from there down to -40 dB."""
    steps: int = 800
    batch: int = 32
    learning_rate: float = 2e-3
    threads: int = 1
    seed: int = 0


def build(settings: Settings) -> tuple[Wav2Vec2BertForCTC, Wav2Vec2BertProcessor]:
    """The untrained model and its processor: letters, a space and the blank."""
    letters = sorted(set("".join((*commands.VERBS, *commands.OBJECTS, "the"))))
    vocabulary = {symbol: i for i, symbol in enumerate(("<pad>", "<unk>", "|", *letters))}
    settings.work.mkdir(parents=True, exist_ok=True)
    path = settings.work / "vocab.json"
    path.write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(
        str(path), bos_token=None, eos_token=None, pad_token="<pad>", unk_token="<unk>"
    )
    torch.manual_seed(settings.seed)
    model = Wav2Vec2BertForCTC(
        Wav2Vec2BertConfig(
            vocab_size=len(vocabulary),
            pad_token_id=vocabulary["<pad>"],
            hidden_size=96,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=256,
            conv_depthwise_kernel_size=15,
            left_max_position_embeddings=16,
            right_max_position_embeddings=8,
            mask_time_prob=0.0,
            layerdrop=0.0,
            ctc_loss_reduction="mean",
        )
    )
    return model, Wav2Vec2BertProcessor(SeamlessM4TFeatureExtractor(), tokenizer)


def coded(sounds: Sequence[Speech], codec: SpeechCodec) -> list[Tensor]:
    """Waveforms [N] that went through the codec."""
    return [codec.decode(codec.encode(sound))[0] for sound in sounds]


def noised(wave: Tensor, settings: Settings, random: torch.Generator) -> Tensor:
    """With white noise of a random level."""
    decibels = settings.loudest_noise_db - (40 + settings.loudest_noise_db) * torch.rand((), generator=random)
    level = wave.square().mean().sqrt() * 10 ** (decibels / 20)
    return wave + level * torch.randn(wave.shape, generator=random)


def train(
    settings: Settings,
    model: Wav2Vec2BertForCTC,
    processor: Wav2Vec2BertProcessor,
    waves: Sequence[Tensor],
    texts: Sequence[str],
) -> None:
    """Connectionist temporal classification."""

    def loss(step: int) -> Tensor:
        random = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        rows = torch.randint(len(waves), (settings.batch,), generator=random).tolist()
        heard = [noised(waves[i], settings, random).numpy() for i in rows]
        inputs = processor(
            audio=heard, sampling_rate=commands.SAMPLE_RATE_HZ, return_tensors="pt", padding=True
        )
        labels = processor.tokenizer([texts[i] for i in rows], return_tensors="pt", padding=True)
        wanted = labels.input_ids.masked_fill(labels.attention_mask == 0, -100)
        found: Tensor = model(**inputs, labels=wanted).loss
        return found

    modules = nn.ModuleDict({"asr": model})
    fit(
        "asr",
        modules,
        loss,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        folder=settings.work,
        ema_decay=0.99,
    )


def report(settings: Settings) -> None:
    """On held-out combinations: words misheard, and how often the right words beat those with one word changed."""
    asked = commands.all_commands("heldout") * 3
    sounds = speak_world(asked, seed=settings.seed + 1)
    reward = load_reward("embedded/commands-asr")
    random = torch.Generator().manual_seed(0)
    wrong = [_one_word_changed(command, random) for command in asked]
    for state, waves in (
        ("eSpeak", [sound.waveform[0] for sound in sounds]),
        ("through the codec", coded(sounds, SpeechCodec.load(settings.codec))),
    ):
        media = [Speech(wave[None], commands.SAMPLE_RATE_HZ) for wave in waves]
        right = reward.score([Sample(commands.caption(c), m) for c, m in zip(asked, media, strict=True)])
        other = reward.score([Sample(commands.caption(c), m) for c, m in zip(wrong, media, strict=True)])
        assert right.text is not None
        errors = [commands.word_error_rate(t, c.text) for t, c in zip(right.text, asked, strict=True)]
        won = (right.value > other.value).float().mean()
        console.print(
            f"{state}: WER {sum(errors) / len(errors):.4f}, log-probability per character {right.value.mean():.3f}, "
            f"with a wrong word {other.value.mean():.3f}, right one preferred {won:.4f}"
        )


def _one_word_changed(command: commands.Command, random: torch.Generator) -> commands.Command:
    while True:
        other = commands.random_command(random, split=None)
        if (other.verb == command.verb) != (other.object == command.object):
            return commands.Command(other.verb, other.object, command.voice)


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, save in fp16, and report."""
    torch.set_num_threads(settings.threads)
    started = time.monotonic()
    model, processor = build(settings)
    asked = commands.all_commands("train") * settings.sounds_per_command
    sounds = speak_world(asked, seed=settings.seed)
    first = round(len(sounds) * settings.coded_share)
    waves = coded(sounds[:first], SpeechCodec.load(settings.codec))
    waves += [sound.waveform[0] for sound in sounds[first:]]
    console.print(f"{len(waves)} sounds after {time.monotonic() - started:.0f} s")
    train(settings, model, processor, waves, [command.text for command in asked])
    model.half().save_pretrained(settings.out)
    processor.save_pretrained(settings.out)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")
    report(settings)


if __name__ == "__main__":
    main(tyro.cli(Settings))
