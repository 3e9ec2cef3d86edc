"""What the pretraining scripts share: a resumable loop with a learning-rate schedule, an EMA and a progress line."""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTokenizer

from mmalign.adapters.loading import OPTIONS_INDEX
from mmalign.media import Speech
from mmalign.worlds import commands

console = Console(stderr=True)
OTHER_WORDS = "a b and or of with no not the two one"
"""That are one token each though no caption of a world has them."""


def generator(*seeds: int) -> torch.Generator:
    """A CPU generator for one purpose and step."""
    mixed = 0
    for seed in seeds:
        mixed = (mixed * 1_000_003 + seed) % 2**63
    return torch.Generator().manual_seed(mixed)


def clip_tokenizer(texts: list[str], *, length: int, folder: Path | None = None) -> CLIPTokenizer:
    """A real CLIP tokenizer whose merges were learned from ``texts``: every word of the world is one token.

    The order of equal merges differs from process to process, so what is resumed keeps its tokenizer in ``folder``.
    """
    if folder is not None and folder.is_dir():
        return CLIPTokenizer.from_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        show_progress=False,
    )
    # Learned on bare words: CLIP splits at white space, so a merge that crosses it would never be used.
    tokenizer.train_from_iterator(
        (word for text in texts for word in text.replace(",", " ,").split()), trainer
    )
    state = json.loads(tokenizer.to_str())["model"]
    vocab = state["vocab"]
    for (
        symbol
    ) in alphabet:  # any other word is spelled out, so every letter also needs its form at a word's end
        vocab.setdefault(f"{symbol}</w>", len(vocab))
    made = CLIPTokenizer(vocab=vocab, merges=[tuple(m) for m in state["merges"]], model_max_length=length)
    if folder is not None:
        made.save_pretrained(folder)
    return made


def write_options(folder: Path, **options: float) -> None:
    """Say beside a pipeline which options its calls want, and with which steps and guidance it is drawn from."""
    whole = {**options, "sampling": {"steps": 16, "guidance": 1.0}}
    (folder / OPTIONS_INDEX).write_text(json.dumps(whole) + "\n", encoding="utf-8")


def speak_world(asked: Sequence[commands.Command], *, seed: int) -> list[Speech]:
    """Commands as eSpeak NG says them, with 0.1 s before and 0.15 s after the words: fewer tokens say as much."""
    spoken = commands.speeches(asked, torch.Generator().manual_seed(seed))
    return [replace(sound, waveform=_around_words(sound.waveform)) for sound in spoken]


def _around_words(waveform: Tensor) -> Tensor:
    """The part of a waveform [1, N] that is louder than -40 dB, with a little silence."""
    loud = (waveform[0].abs() > 0.01).nonzero()[:, 0]
    first, last = (
        int(loud[0]) - commands.SAMPLE_RATE_HZ // 10,
        int(loud[-1]) + commands.SAMPLE_RATE_HZ * 3 // 20,
    )
    return waveform[:, max(0, first) : last]


def fit(
    name: str,
    modules: nn.ModuleDict,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    folder: Path,
    warmup: int = 100,
    ema_decay: float = 0.999,
    weight_decay: float = 1e-4,
    bf16: bool = False,
) -> None:
    """Minimise ``loss(step)`` over the modules, resuming from ``folder``; leaves the EMA weights in the modules.

    ``loss`` must draw everything random from generators seeded by its step, so that a resumed run equals an
    unbroken one. With ``bf16`` it runs under autocast; the weights stay in fp32.
    """
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda k: min(1.0, (k + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, k / steps))),
    )
    ema = EMAModel(parameters, decay=ema_decay)
    checkpoint = folder / f"{name}.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        ema.load_state_dict(state["ema"])
        first = state["step"]
        console.print(f"{name}: resuming at step {first}")
    modules.train()
    started, running = time.monotonic(), None
    for step in range(first, steps):
        with torch.autocast(parameters[0].device.type, torch.bfloat16, enabled=bf16):
            value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        ema.step(parameters)
        loss_now = float(value.detach())
        running = loss_now if running is None else 0.98 * running + 0.02 * loss_now
        if (step + 1) % 50 == 0 or step + 1 == steps:
            spent = time.monotonic() - started
            left = spent / (step + 1 - first) * (steps - step - 1)
            console.print(f"{name} {step + 1}/{steps} loss {running:.5f} {spent:.0f} s, {left:.0f} s left")
        if (step + 1) % 250 == 0 or step + 1 == steps:
            folder.mkdir(parents=True, exist_ok=True)
            state = {
                "modules": modules.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "ema": ema.state_dict(),
                "step": step + 1,
            }
            torch.save(state, checkpoint.with_suffix(".part"))
            os.replace(checkpoint.with_suffix(".part"), checkpoint)
    ema.copy_to(parameters)
    modules.eval().requires_grad_(False)
