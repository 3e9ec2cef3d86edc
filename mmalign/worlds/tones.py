"""The tones world: captions of short sounds in order, the sounds, and how much of a caption can be heard.

A scene is one kind of sound, once to three times, or two kinds one after the other, each once or twice. A sound is a
tone, a chirp or a burst of noise, low or high. The truth is measured from spectra alone.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.media import Audio
from mmalign.worlds.shapes import Split
from mmalign.worlds.silhouettes import ramp
from mmalign.worlds.words import draw, redraw

KINDS = ("tone", "rising chirp", "falling chirp", "noise")
PITCHES = {"low": 400.0, "high": 1600.0}
"""Middle of the sound in Hz. A chirp crosses one octave around it, a noise fills two."""
COUNTS = {"one": 1, "two": 2, "three": 3}
ATTRIBUTES = ("kind", "pitch", "count", "order")
SAMPLE_RATE_HZ = 16_000
SAMPLES = 20_480
"""1.28 s."""
SOUND_S, GAP_S, FADE_S = 0.2, 0.1, 0.015

TEMPLATES = ("{first}, then {second}", "{first} followed by {second}", "first {first} and then {second}")
REVERSED_TEMPLATES = ("{second} after {first}", "{second}, but before that {first}")
ALONE_TEMPLATES = (
    "{first}",
    "the sound of {first}",
    "{first} and nothing else",
    "just {first}",
    "only {first}",
)

FFT, HOP = 512, 128
LONGEST = 8
"""Sounds that are heard out; more than any scene has."""
QUIET_DB = 17.0
"""A frame this far below the loudest one is a gap."""


@dataclass(frozen=True, slots=True)
class Sound:
    """One described sound, ``count`` times; every field is a key of the table of its name."""

    kind: str
    pitch: str
    count: str = "one"


Scene = tuple[Sound, ...]
"""One sound, or two different ones in order."""


def split_of(scene: Scene) -> Split:
    """The fixed side of this combination: about one in four is held out, each value on both sides.

    >>> split_of((Sound("tone", "low"),)), split_of((Sound("tone", "high"),))
    ('heldout', 'train')
    """
    checksum = 0
    for position, sound in enumerate(scene):
        checksum += (1 + position) * KINDS.index(sound.kind)
        checksum += (1 + 2 * position) * list(PITCHES).index(sound.pitch) + COUNTS[sound.count] - 1
    return "heldout" if checksum % 4 == 0 else "train"


def all_scenes(split: Split | None = None) -> list[Scene]:
    """Every combination, of one split or of both, in a fixed order.

    >>> len(all_scenes()), len(all_scenes("heldout"))
    (248, 62)
    """
    alone: list[Scene] = [(Sound(*values),) for values in itertools.product(KINDS, PITCHES, COUNTS)]
    pairs: list[Scene] = [
        (first, second)
        for (first,), (second,) in itertools.product(alone, alone)
        if _may_follow(first, second)
    ]
    return [scene for scene in alone + pairs if split in (None, split_of(scene))]


def _may_follow(first: Sound, second: Sound) -> bool:
    """Two sounds differ in more than their count, and four in all are the most that fit."""
    return (first.kind, first.pitch) != (second.kind, second.pitch) and "three" not in (
        first.count,
        second.count,
    )


def caption(scene: Scene, template: int = 0) -> str:
    """Describe a scene in words; ``template`` picks the paraphrase. Some name the second sound first.

    >>> caption((Sound("tone", "low", "two"), Sound("noise", "high")), 3)
    'one high noise after two low tones'
    """
    texts = [f"{s.count} {s.pitch} {s.kind}{'' if s.count == 'one' else 's'}" for s in scene]
    if len(scene) == 1:
        return ALONE_TEMPLATES[template].format(first=texts[0])
    return (*TEMPLATES, *REVERSED_TEMPLATES)[template].format(first=texts[0], second=texts[1])


def captions(split: Split) -> list[str]:
    """Every paraphrase of every combination of a split: 310 held-out and 930 training captions."""
    return [caption(scene, t) for scene in all_scenes(split) for t in range(len(ALONE_TEMPLATES))]


def random_scene(
    generator: torch.Generator, *, split: Split | None = "train", two_sounds: float = 0.7
) -> Scene:
    """Draw a combination of a split; with probability ``two_sounds``, one of two sounds."""
    length = 2 if float(torch.rand((), generator=generator)) < two_sounds else 1
    scenes = [scene for scene in all_scenes(split) if len(scene) == length]
    return scenes[draw(len(scenes), generator)]


def parse(text: str) -> Scene | None:
    """Read a scene back from a caption of this world; None where it names no sound, or what cannot be a scene.

    >>> parse("one high noise after two low tones")[0]
    Sound(kind='tone', pitch='low', count='two')
    >>> parse("a loud bang") is None
    True
    """
    counts, pitches, kinds = "|".join(COUNTS), "|".join(PITCHES), "|".join(KINDS)
    found = list(re.finditer(rf"\b({counts}) ({pitches}) ({kinds})s?\b", text.lower()))
    sounds = [Sound(match[3], match[2], match[1]) for match in found]
    if len(sounds) == 1:
        return (sounds[0],)
    if len(sounds) != 2 or not _may_follow(*sounds):
        return None
    between = text.lower()[found[0].end() : found[1].start()]
    first, second = sounds
    return (second, first) if re.search(r"\b(after|before)\b", between) else (first, second)


def noisy_captions(scenes: Sequence[Scene], generator: torch.Generator, *, noise: float) -> Iterator[str]:
    """Captions in which each attribute, with probability ``noise``, is drawn anew; what is no scene is drawn again."""
    for scene in scenes:
        said: Scene = ()
        while not said or (len(said) == 2 and not _may_follow(*said)):
            said = tuple(
                Sound(
                    redraw(KINDS, s.kind, generator, noise=noise),
                    redraw(list(PITCHES), s.pitch, generator, noise=noise),
                    redraw(list(COUNTS)[: 4 - len(scene)], s.count, generator, noise=noise),
                )
                for s in scene
            )
        yield caption(said, draw(len(ALONE_TEMPLATES), generator))


# --- sounds -----------------------------------------------------------------------------------------------------------


def render(scenes: Sequence[Scene], generator: torch.Generator) -> Tensor:
    """Make the sounds, with small random variation of pitch, length, gaps, level and start.

        tone, chirp: sin(phase),   phase' = 2 pi f 2^(sweep (t / length - 1/2)),   sweep = 0, 1 or -1
        noise:       pink between f / 2 and 2 f

    Returns:
        [B, N] in [-1, 1], N = 20,480 samples at 16 kHz.
    """

    def uniform(spread: float) -> float:
        return (2 * float(torch.rand((), generator=generator)) - 1) * spread

    waves = torch.zeros(len(scenes), SAMPLES)
    for wave, scene in zip(waves, scenes, strict=True):
        sounds = [sound for sound in scene for _ in range(COUNTS[sound.count])]
        lengths = [SOUND_S * (1 + uniform(0.1)) for _ in sounds]
        gaps = [GAP_S * (1 + uniform(0.1)) for _ in sounds]
        room = SAMPLES / SAMPLE_RATE_HZ - sum(lengths) - sum(gaps[:-1])
        start = room * (0.5 + uniform(0.45))
        level = 0.5 * 2 ** uniform(0.5)
        for sound, length, gap in zip(sounds, lengths, gaps, strict=True):
            pitch = PITCHES[sound.pitch] * 2 ** uniform(0.1)
            sample = _sound(sound.kind, pitch, length, generator)
            begin = round(start * SAMPLE_RATE_HZ)
            wave[begin : begin + len(sample)] += level * 2 ** uniform(0.2) * sample
            start += length + gap
    return waves


def _sound(kind: str, pitch_hz: float, length_s: float, generator: torch.Generator) -> Tensor:
    """[n], with soft ends, about as loud whatever its kind."""
    count = round(length_s * SAMPLE_RATE_HZ)
    time = torch.arange(count, dtype=torch.float64) / SAMPLE_RATE_HZ
    if kind == "noise":
        spectrum = torch.fft.rfft(torch.randn(count, generator=generator, dtype=torch.float64))
        frequency = torch.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ).clamp_min(1.0)
        inside = (frequency > pitch_hz / 2) & (frequency < pitch_hz * 2)
        wave = torch.fft.irfft(spectrum * inside / frequency.sqrt(), count)
        wave = wave / (2.5 * wave.std())
    else:
        sweep = {"rising chirp": 1.0, "falling chirp": -1.0}.get(kind, 0.0)
        frequency = pitch_hz * 2 ** (sweep * (time / length_s - 0.5))
        wave = 0.6 * torch.sin(2 * math.pi * frequency.cumsum(0) / SAMPLE_RATE_HZ)
    fade = (torch.minimum(time, time.flip(0)) / FADE_S).clamp(0, 1)
    return (wave.clamp(-1, 1) * torch.sin(fade * math.pi / 2) ** 2).float()


def sounds(scenes: Sequence[Scene], generator: torch.Generator) -> list[Audio]:
    """The same as media."""
    return [Audio(wave[None], SAMPLE_RATE_HZ) for wave in render(scenes, generator)]


# --- the true reward --------------------------------------------------------------------------------------------------


def measure(waves: Tensor, scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """How much of each described scene its sound holds, from spectra.

        overall = presence * (kind + pitch + count + order) / 4,   without order where one sound is described

    Loud stretches between gaps are the sounds. The slope of a sound's middle frequency over its length and its width
    around it tell the kind; its mean, the pitch. Where two sounds are described, those that are heard are cut in two
    at the place that fits best; ``kind``, ``pitch`` and ``count`` are the mean of both parts, and ``order`` asks that
    the cut fits better than with the two described sounds exchanged. For one described sound ``order`` is 1.
    ``presence`` asks for sounds of a length and a band that this world has, above silence.

    Args:
        waves: [B, N] in [-1, 1] at 16 kHz.
        scenes: B scenes.

    Returns:
        ``overall``, ``presence`` and the four attributes, each [B] in [0, 1], higher is better.
    """
    heard = _listen(waves.float())
    rows = [_judge(scene, *(values[i] for values in heard)) for i, scene in enumerate(scenes)]
    measured = {name: torch.tensor([row[name] for row in rows]) for name in ("presence", *ATTRIBUTES)}
    mean = torch.tensor(
        [
            sum(row[name] for name in ATTRIBUTES[: 2 + len(s)]) / (2 + len(s))
            for row, s in zip(rows, scenes, strict=True)
        ]
    )
    return {"overall": measured["presence"] * mean, **measured}


def _listen(waves: Tensor) -> tuple[Tensor, ...]:
    """Presence [B], number of sounds [B], and the first 8 sounds' kinds [B, 8, 4] and pitches [B, 8, 2]."""
    window = torch.hann_window(FFT)
    spectrum = torch.stft(waves, FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    power = spectrum.abs().square()[:, 1:]  # no constant part: it has no pitch
    octave = (torch.arange(1, FFT // 2 + 1) * (SAMPLE_RATE_HZ / FFT)).log2()[:, None]
    energy = power.sum(1)
    peak = energy.amax(1)
    loud = energy > peak[:, None] * 10 ** (-QUIET_DB / 10) + 1e-9
    # Bins far below the strongest of their frame say nothing about the pitch.
    weight = power * (power > 0.01 * power.amax(1, keepdim=True))
    total = weight.sum(1).clamp_min(1e-12)
    middle = (weight * octave).sum(1) / total
    width = ((weight * (octave - middle[:, None]).square()).sum(1) / total).sqrt()

    begins = loud & ~torch.nn.functional.pad(loud[:, :-1], (1, 0))
    number = begins.cumsum(1)
    which = torch.where(loud & (number <= LONGEST), number, 0)
    share = torch.nn.functional.one_hot(which, LONGEST + 1)[..., 1:].float()  # [B, frames, 8]
    frames = share.sum(1)
    weights = share * energy[..., None]
    mass = weights.sum(1).clamp_min(1e-12)
    time = torch.arange(energy.shape[1], dtype=torch.float32)[:, None]
    mean_time = (weights * time).sum(1) / mass
    pitch = (weights * middle[..., None]).sum(1) / mass
    width = (weights * width[..., None]).sum(1) / mass
    lag = time - mean_time[:, None]
    variance = (weights * lag.square()).sum(1) / mass
    rise = (weights * lag * (middle[..., None] - pitch[:, None])).sum(1) / mass / variance.clamp_min(1e-6)
    rise = rise * frames

    noise = ramp(width, full=0.30, zero=0.15)
    level = ramp(rise.abs(), full=0.25, zero=0.55)
    kinds = (
        torch.stack([level, (1 - level) * (rise > 0), (1 - level) * (rise < 0)], -1) * (1 - noise)[..., None]
    )
    kinds = torch.cat([kinds, noise[..., None]], -1)
    pitches = torch.stack(
        [ramp((pitch - math.log2(hz)).abs(), full=0.5, zero=0.9) for hz in PITCHES.values()], -1
    )
    length = frames * HOP / SAMPLE_RATE_HZ
    fits = (
        ramp(length, full=0.14, zero=0.06) * ramp(length, full=0.28, zero=0.45) * pitches.sum(-1).clamp(max=1)
    )
    heard = number[:, -1]
    loudness = ramp(10 * (peak / (FFT * window.square().sum() / 2) + 1e-12).log10(), full=-35.0, zero=-50.0)
    presence = loudness * (fits * (frames > 0)).sum(1) / heard.clamp_min(1)
    return presence, heard, kinds, pitches


def _judge(scene: Scene, presence: Tensor, heard: Tensor, kinds: Tensor, pitches: Tensor) -> dict[str, float]:
    """The attributes of one sound's scene."""
    count = min(int(heard), LONGEST)
    fits = [
        (kinds[:count, KINDS.index(s.kind)].tolist(), pitches[:count, list(PITCHES).index(s.pitch)].tolist())
        for s in scene
    ]
    wanted = [COUNTS[s.count] for s in scene]
    missing = float(int(heard) - count)
    kind, pitch, number, fit = _best_cut(fits, wanted, count, missing)
    order = 1.0
    if len(scene) == 2:
        order = min(1.0, max(0.0, (fit - _best_cut(fits[::-1], wanted[::-1], count, missing)[3]) / 0.2))
    return {"presence": float(presence), "kind": kind, "pitch": pitch, "count": number, "order": order}


def _best_cut(
    fits: list[tuple[list[float], list[float]]], wanted: list[int], count: int, more: float
) -> tuple[float, float, float, float]:
    """Kind, pitch, count and their fit, at the cut between two described sounds where kind and pitch fit best."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    results = []
    for cut in range(count + 1) if len(fits) == 2 else [count]:
        spans = [(0, cut), (cut, count)][: len(fits)]
        kind = mean([mean(k[a:b]) for (k, _), (a, b) in zip(fits, spans, strict=True)])
        pitch = mean([mean(p[a:b]) for (_, p), (a, b) in zip(fits, spans, strict=True)])
        off = [abs(b - a - n) for (a, b), n in zip(spans, wanted, strict=True)]
        number = mean([max(0.0, 1 - o / 2) for o in off[:-1]] + [max(0.0, 1 - (off[-1] + more) / 2)])
        # The count breaks ties: where kind and pitch fit equally, the cut is where it is described.
        results.append((kind + pitch + 0.1 * number, kind, pitch, number))
    fit, kind, pitch, number = max(results)
    return kind, pitch, number, fit / 2.1
