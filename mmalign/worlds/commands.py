"""The commands world: spoken commands in four voices, their prompts, and how well a sound answers a prompt.

A prompt asks for a command (a verb and an object) in a voice. Two truths judge a sound: a recogniser that no model here
is trained with hears the words, and the waveform tells voice, duration and silence.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmalign.media import Speech
from mmalign.texts import normal
from mmalign.worlds.shapes import Split
from mmalign.worlds.silhouettes import ramp
from mmalign.worlds.words import draw, named_once, redraw

if TYPE_CHECKING:
    import pocketsphinx

VERBS = ("open", "close", "start", "stop", "clean", "paint")
OBJECTS = ("window", "garage", "machine", "kitchen", "bottle", "radio")
VOICES: dict[str, tuple[str, int, float]] = {
    "deep": ("en-us", 25, 75.0),
    "low": ("en-us+m3", 70, 121.0),
    "high": ("en-us+f2", 45, 177.0),
    "shrill": ("en-us+f3", 99, 326.0),
}
"""eSpeak NG's voice and pitch, and the median f0 in Hz that comes of them."""
ATTRIBUTES = ("voice", "duration", "silence")
SAMPLE_RATE_HZ = 16_000
SAMPLES = 28_800
"""1.8 s."""

TEMPLATES = (
    "say '{text}' in a {voice} voice",
    "in a {voice} voice, say '{text}'",
    "a {voice} voice says '{text}'",
    "'{text}', spoken in a {voice} voice",
    "a {voice} voice: '{text}'",
)

WINDOW, HOP = 1024, 320
LOWEST_HZ, HIGHEST_HZ = 55.0, 500.0
FLOOR_DB = -25.0
"""Noise that is added before words are recognised, against the sound: digital silence between words misleads it."""


@dataclass(frozen=True, slots=True)
class Command:
    """One spoken command; every field is a value of the table of its name."""

    verb: str
    object: str
    voice: str

    @property
    def text(self) -> str:
        """The words."""
        return f"{self.verb} the {self.object}"

    @property
    def split(self) -> Split:
        """The fixed side of this combination: one in four is held out, each value on both sides.

        >>> [Command("open", "window", voice).split for voice in VOICES].count("heldout")
        1
        """
        checksum = VERBS.index(self.verb) + OBJECTS.index(self.object) + list(VOICES).index(self.voice)
        return "heldout" if checksum % 4 == 0 else "train"


def all_commands(split: Split | None = None) -> list[Command]:
    """Every combination, of one split or of both, in a fixed order.

    >>> len(all_commands()), len(all_commands("heldout"))
    (144, 36)
    """
    commands = [Command(*values) for values in itertools.product(VERBS, OBJECTS, VOICES)]
    return [command for command in commands if split in (None, command.split)]


def caption(command: Command, template: int = 0) -> str:
    """Ask for a command; ``template`` picks the paraphrase.

    >>> caption(Command("open", "window", "high"))
    "say 'open the window' in a high voice"
    """
    return TEMPLATES[template].format(text=command.text, voice=command.voice)


def captions(split: Split) -> list[str]:
    """Every paraphrase of every combination of a split: 180 held-out and 540 training prompts."""
    return [caption(command, t) for command in all_commands(split) for t in range(len(TEMPLATES))]


def random_command(generator: torch.Generator, *, split: Split | None = "train") -> Command:
    """Draw one combination of a split."""
    commands = all_commands(split)
    return commands[draw(len(commands), generator)]


def parse(text: str) -> Command | None:
    """Read a command back from a prompt of this world; None where a part is missing or named twice.

    >>> parse("a high voice says 'open the window'")
    Command(verb='open', object='window', voice='high')
    >>> parse("A high voice says ‘open the window’") == parse("a high voice says 'open the window'")
    True
    >>> parse("open the window") is None
    True
    """
    said = re.search(r"'(\w+) the (\w+)'", normal(text))
    voice = named_once(text, VOICES)
    if said is None or voice is None or said[1] not in VERBS or said[2] not in OBJECTS:
        return None
    return Command(said[1], said[2], voice)


def noisy_captions(commands: Sequence[Command], generator: torch.Generator, *, noise: float) -> Iterator[str]:
    """Prompts in which each part, with probability ``noise``, is drawn anew at random."""
    for command in commands:
        said = Command(
            redraw(VERBS, command.verb, generator, noise=noise),
            redraw(OBJECTS, command.object, generator, noise=noise),
            redraw(list(VOICES), command.voice, generator, noise=noise),
        )
        yield caption(said, draw(len(TEMPLATES), generator))


def render(commands: Sequence[Command], generator: torch.Generator) -> Tensor:
    """Speak commands with eSpeak NG, with small random variation of pitch, rate, level and start.

    The same commands and seed give the same sounds; eSpeak NG keeps phases from one sentence to the next, so that other
    commands before one change its samples, though not its words, voice and length.

    Returns:
        [B, N] in [-1, 1], N = 28,800 samples at 16 kHz.

    Raises:
        ConfigError: eSpeak NG is not installed.
    """
    from torchaudio.functional import resample

    from mmalign.worlds.espeak import Synthesiser

    synthesiser = Synthesiser()
    waves = torch.zeros(len(commands), SAMPLES)
    for wave, command in zip(waves, commands, strict=True):
        voice, pitch, _ = VOICES[command.voice]
        spoken = synthesiser.speak(
            command.text,
            voice=voice,
            pitch=min(99, pitch + draw(5, generator) - 2),
            words_per_minute=125 + draw(11, generator),
        )
        spoken = resample(spoken, synthesiser.sample_rate_hz, SAMPLE_RATE_HZ)[: SAMPLES - 2400]
        begin = 1600 + draw(min(4800, SAMPLES - 800 - len(spoken) - 1600) + 1, generator)
        wave[begin : begin + len(spoken)] = (0.8 + 0.2 * float(torch.rand((), generator=generator))) * spoken
    return waves


def speeches(commands: Sequence[Command], generator: torch.Generator) -> list[Speech]:
    """The same as media, with transcript and voice."""
    waves = render(commands, generator)
    return [
        Speech(wave[None], SAMPLE_RATE_HZ, command.text, command.voice)
        for wave, command in zip(waves, commands, strict=True)
    ]


# --- the true rewards -------------------------------------------------------------------------------------------------


def measure(waves: Tensor, commands: Sequence[Command]) -> dict[str, Tensor]:
    """How well the sound of each command keeps to its voice, length and pauses, from waveforms; not its words.

        overall = presence * (voice + duration + silence) / 3

    ``presence`` asks for the share of voiced frames that speech has, and for a level above silence. ``voice`` compares
    the median f0 with the named voice's, in octaves. ``duration`` is the time from the first loud frame to the last,
    full from 0.8 to 1.5 s. ``silence`` asks for a pause of at most 0.25 s inside, and for some before and after.

    Args:
        waves: [B, N] in [-1, 1] at 16 kHz.
        commands: B of them.

    Returns:
        ``overall``, ``presence`` and the three attributes, each [B] in [0, 1], higher is better.
    """
    frames = torch.nn.functional.pad(waves.float(), (WINDOW // 2, WINDOW // 2)).unfold(-1, WINDOW, HOP)
    energy = frames[..., (WINDOW - HOP) // 2 : (WINDOW + HOP) // 2].square().mean(-1)
    peak = energy.amax(-1, keepdim=True)
    loud = energy > peak * 1e-3 + 1e-8
    # A few sounds at a time: the spectra of all frames would fill memory.
    parts = [_periods(part) for part in frames.split(32)]
    period, likeness = (torch.cat(values) for values in zip(*parts, strict=True))
    voiced = loud & (likeness > 0.6)
    pitch = (SAMPLE_RATE_HZ / period).log2()
    median = torch.where(voiced, pitch, torch.nan).nanmedian(-1).values.nan_to_num(0.0)
    wanted = torch.tensor([VOICES[c.voice][2] for c in commands]).log2()

    index = torch.arange(loud.shape[-1])
    first = torch.where(loud, index, loud.shape[-1]).amin(-1)
    last = torch.where(loud, index, -1).amax(-1)
    second = SAMPLE_RATE_HZ / HOP
    length = (last - first + 1).clamp_min(0) / second
    latest = torch.where(loud, index, 0).cummax(-1).values
    pause = (
        torch.where((index > first[:, None]) & (index < last[:, None]), index - latest, 0).amax(-1) / second
    )
    margins = torch.minimum(first, loud.shape[-1] - 1 - last) / second
    share = voiced.sum(-1) / loud.sum(-1).clamp_min(1)
    measured = {
        "presence": ramp(share, full=0.40, zero=0.20)
        * ramp(10 * (peak[:, 0] + 1e-12).log10(), full=-30, zero=-45),
        "voice": ramp((median - wanted).abs(), full=0.15, zero=0.40),
        "duration": ramp(length, full=0.8, zero=0.4) * ramp(length, full=1.5, zero=2.2),
        "silence": ramp(pause, full=0.25, zero=0.50) * ramp(margins, full=0.03, zero=0.0),
    }
    mean = torch.stack([measured[name] for name in ATTRIBUTES]).mean(0)
    return {"overall": measured["presence"] * mean, **measured}


def _periods(frames: Tensor) -> tuple[Tensor, Tensor]:
    """The period [B, T] in samples of each frame, and how like itself the frame is one period later, at most 1.

    r(lag) = sum x[n] x[n + lag] / sqrt(sum x[n]^2 sum x[n + lag]^2), over the n that both have.
    """
    spectrum = torch.fft.rfft(frames, 2 * WINDOW)
    correlation = torch.fft.irfft(spectrum.abs().square())[..., :WINDOW]
    power = torch.nn.functional.pad(frames.square().cumsum(-1), (1, 0))
    lags = torch.arange(int(SAMPLE_RATE_HZ / HIGHEST_HZ), int(SAMPLE_RATE_HZ / LOWEST_HZ) + 1)
    early, late = power[..., WINDOW - lags], power[..., -1:] - power[..., lags]
    likeness = correlation[..., lags] / (early * late).clamp_min(1e-12).sqrt()
    best = likeness.amax(-1, keepdim=True)
    # Two periods fit as well as one: the shortest lag of a summit nearly as high is the period.
    padded = torch.nn.functional.pad(likeness, (1, 1), value=-1.0)
    summit = (likeness >= padded[..., :-2]) & (likeness >= padded[..., 2:]) & (likeness >= 0.9 * best)
    return lags[summit.int().argmax(-1)].float(), best[..., 0]


GRAMMAR = f"#JSGF V1.0; grammar commands; public <c> = ({' | '.join(VERBS)}) the ({' | '.join(OBJECTS)});"


@cache
def _recogniser() -> "pocketsphinx.Decoder":
    import pocketsphinx

    decoder = pocketsphinx.Decoder(samprate=SAMPLE_RATE_HZ, loglevel="FATAL", lm=None)
    decoder.add_jsgf_string("commands", GRAMMAR)
    decoder.activate_search("commands")
    return decoder


def recognise(wave: Tensor) -> str:
    """The command that pocketsphinx hears, or nothing; it knows the commands of this world and no other words.

    A grammar forces other speech into itself, so this tells which command was said, not whether one was.

    Args:
        wave: [N] in [-1, 1] at 16 kHz. Seeded noise 25 dB below it is added first.
    """
    level = wave.float().square().mean().sqrt()
    if float(level) < 1e-4:
        return ""
    noise = torch.randn(len(wave), generator=torch.Generator().manual_seed(0))
    wave = wave.float() * (0.1 / level) + 0.1 * 10 ** (FLOOR_DB / 20) * noise
    decoder = _recogniser()
    # A decoder adapts to what it hears; from here each sound is heard for the first time.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw((wave.clamp(-1, 1) * 32767).short().numpy().tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    return heard.hypstr if heard else ""


def word_error_rate(said: str, wanted: str) -> float:
    """Words to replace, insert or delete, over the wanted words.

    >>> word_error_rate("open the garage", "open the window") == 1 / 3
    True
    """
    from torchaudio.functional import edit_distance

    return edit_distance(said.split(), wanted.split()) / len(wanted.split())
