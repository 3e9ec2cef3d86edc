"""Make ``embedded/commands``: a small Llama over codec tokens that speaks the commands world, with a stated flaw.

The flaw is random caption noise: it first learns true captions, then captions of which verb, object and voice are each
drawn anew with probability 0.4. So it knows what words sound like, but believes a prompt only so far: as often as its
captions lied it says another word or speaks in another voice, and alignment has something to mend.

    uv run python recipes/pretrain/commands.py        # about 5 minutes on one core; resumes where it stopped
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from common import clip_tokenizer, console, fit, speak_world
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from mmalign.adapters.speech import SpeechAdapter
from mmalign.adapters.speech_codec import CodecSettings, SpeechCodec
from mmalign.generators.token_layouts import IGNORED
from mmalign.media import Sample, Speech
from mmalign.rewards.cards import load_reward
from mmalign.worlds import commands

LONGEST = 32
"""Tokens of a prompt."""
FRAMES = 72
"""Most tokens of a sample: 1.8 s, above the longest command."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the result."""

    out: Path = Path("assets/commands")
    work: Path = Path("runs/pretrain/commands")
    sounds_per_command: int = 20
    codes: int = 512
    bands: int = 128
    iterations: int = 16
    """Of Griffin-Lim."""
    steps: int = 1_000
    clean_steps: int = 500
    """Of these, the first are on true captions."""
    batch: int = 32
    learning_rate: float = 3e-3
    caption_noise: float = 0.4
    caption_dropout: float = 0.1
    threads: int = 1
    seed: int = 0


def fit_codec(settings: Settings, sounds: Sequence[Speech]) -> SpeechCodec:
    """The centroids of a third of the sounds; kept in the working folder."""
    folder = settings.work / "codec"
    if not folder.is_dir():
        form = CodecSettings(bands=settings.bands, iterations=settings.iterations)
        SpeechCodec.fit(sounds[::3], codes=settings.codes, seed=settings.seed, settings=form).save(folder)
    return SpeechCodec.load(folder)


def build(settings: Settings, codec: SpeechCodec) -> SpeechAdapter:
    """The untrained model: its vocabulary is the text's, then the codes, then what ends a sample."""
    texts = commands.captions("train") + commands.captions("heldout")
    tokenizer = clip_tokenizer(texts, length=LONGEST, folder=settings.work / "tokenizer")
    first = len(tokenizer)
    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=first + codec.codes + 1,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=3,
            num_key_value_heads=3,
            max_position_embeddings=LONGEST + FRAMES + 24,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=first + codec.codes,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    return SpeechAdapter(model, tokenizer, codec, first_code=first, end_id=first + codec.codes, frames=FRAMES)


def train(
    settings: Settings, adapter: SpeechAdapter, asked: Sequence[commands.Command], tokens: Tensor
) -> None:
    """Next-token prediction, with the prompt before the sound; without it now and then, for guidance."""
    layout, model = adapter.generator.layout, adapter.generator.model
    model.requires_grad_(True)

    def loss(step: int) -> Tensor:
        random = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        rows = torch.randint(len(tokens), (settings.batch,), generator=random)
        noise = settings.caption_noise if step >= settings.clean_steps else 0.0
        texts = commands.noisy_captions([asked[i] for i in rows.tolist()], random, noise=noise)
        dropped = torch.rand(len(rows), generator=random) < settings.caption_dropout
        prompts = ["" if drop else text for drop, text in zip(dropped, texts, strict=True)]
        conditioning = layout.conditional([adapter.generator.tokenizer(text).input_ids for text in prompts])
        batch = tokens[rows]
        batch = batch[:, : int((batch[..., 0] != IGNORED).sum(1).max())]
        logits = layout.steps(layout.filled(batch), conditioning)
        return nn.functional.cross_entropy(logits.flatten(0, 2), batch.flatten(), ignore_index=IGNORED)

    fit(
        "commands",
        nn.ModuleDict({"model": model}),
        loss,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        folder=settings.work,
        ema_decay=0.998,
    )


def report(adapter: SpeechAdapter) -> None:
    """Word error rate and truth on held-out prompts, with and without guidance."""
    prompts = commands.captions("heldout")[::2]
    for guidance in (None, 1.5, 2.0, 3.0):
        spoken = adapter.generate(prompts, seeds=range(len(prompts)), guidance=guidance)
        samples = [Sample(prompt, sound) for prompt, sound in zip(prompts, spoken, strict=True)]
        error = load_reward("commands-wer").score(samples)
        truth = load_reward("commands-truth").score(samples)
        found = {"wer": error.value, "truth": truth.value, **truth.aspects}
        console.print(f"guidance {guidance}: { {k: round(float(v.mean()), 3) for k, v in found.items()} }")


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, then save model and codec in fp16."""
    torch.set_num_threads(settings.threads)
    settings.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    asked = commands.all_commands() * settings.sounds_per_command
    path = settings.work / "tokens.safetensors"
    if not path.exists():
        sounds = speak_world(asked, seed=settings.seed)
        console.print(f"{len(sounds)} commands spoken in {time.monotonic() - started:.0f} s")
        codec = fit_codec(settings, sounds)
        save_file({"tokens": build(settings, codec).encode(sounds)}, path)
    tokens = load_file(path)["tokens"]
    adapter = build(settings, SpeechCodec.load(settings.work / "codec"))
    console.print(f"{list(tokens.shape)} tokens after {time.monotonic() - started:.0f} s")
    train(settings, adapter, asked, tokens)
    adapter.generator.model.half()
    adapter.save(settings.out)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")
    report(SpeechAdapter.load(settings.out, device="cpu", dtype=torch.float32))


if __name__ == "__main__":
    main(tyro.cli(Settings))
