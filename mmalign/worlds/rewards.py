"""The true rewards of the worlds, as rewards that any recipe can name: computed from the medium, never learned."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from mmalign.errors import ConfigError
from mmalign.media import Audio, Image, Media, Sample, Scene3D, Video
from mmalign.rewards.base import OK, Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard
from mmalign.worlds import commands, moving_shapes, shapes, tones, views

SIDE_PX = 64
"""Pictures and frames are judged at this size, the worlds' own."""
LONGEST_S, SHORTEST_SAMPLES = 30.0, 2048
"""Sounds are judged up to this length, and filled up with silence to this one."""
ASPECTS = ("presence", *shapes.ATTRIBUTES)
VIDEO_ASPECTS = ("presence", "steadiness", *moving_shapes.ATTRIBUTES)
VIEWS_ASPECTS = ("presence", *views.ATTRIBUTES, "consistency", "hull")
AUDIO_ASPECTS = ("presence", *tones.ATTRIBUTES)
SPEECH_ASPECTS = ("presence", *commands.ATTRIBUTES)


class ShapesTruth:
    """How much of a caption of the shapes world a picture shows, measured from pixels.

    Value: ``overall`` of :func:`mmalign.worlds.shapes.measure`, in [0, 1], higher is better; aspects: ``presence`` and
    the four attributes, each in [0, 1]. A prompt that the world cannot read, or a picture that is not square, gets a
    status and no score.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu") -> None:
        self.card = card

    def score(self, samples: Sequence[Sample]) -> Score:
        """Measure each picture against its own prompt."""

        def prepare(media: Media) -> Tensor | str:
            assert isinstance(media, Image)
            return _not_square(media.pixels, "picture") or _resized(media.pixels[None])[0]

        return _measured(samples, self.card, shapes.parse, prepare, shapes.measure, ASPECTS, "shape")


class ShapesVideoTruth:
    """How much of a caption of the moving shapes world a video shows, measured from its pixels and their motion.

    Value: ``overall`` of :func:`mmalign.worlds.moving_shapes.measure`, in [0, 1], higher is better; aspects:
    ``presence``, ``steadiness`` and the four attributes, each in [0, 1]. Speed is the way from the first frame to the
    last, whatever their rate. A prompt that the world cannot read, or frames that are not square, get a status and no
    score.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu") -> None:
        self.card = card

    def score(self, samples: Sequence[Sample]) -> Score:
        """Measure each video against its own prompt."""

        def prepare(media: Media) -> Tensor | str:
            assert isinstance(media, Video)
            return _not_square(media.frames, "video") or _resized(media.frames)

        return _measured(
            samples,
            self.card,
            moving_shapes.parse,
            prepare,
            moving_shapes.measure,
            VIDEO_ASPECTS,
            "moving shape",
        )


class ShapesViewsTruth:
    """How much of a caption of the views world four views of a solid show, measured from pixels in closed form.

    Value: ``overall`` of :func:`mmalign.worlds.views.measure`, in [0, 1], higher is better; aspects: ``presence``, the
    three attributes, ``consistency`` between the views and ``hull``, each in [0, 1]. A prompt that the world cannot
    read, or a scene that is not four square views in the order of the world's cameras, gets a status and no score.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu") -> None:
        self.card = card

    def score(self, samples: Sequence[Sample]) -> Score:
        """Measure each scene against its own prompt."""

        def prepare(media: Media) -> Tensor | str:
            assert isinstance(media, Scene3D)
            count = 0 if media.views is None else len(media.views)
            if media.views is None or count != len(views.CAMERAS):
                return f"the scene has {count} views, and this world has {len(views.CAMERAS)}"
            return _not_square(media.views, "view") or _resized(media.views, views.VIEW_PX)

        return _measured(samples, self.card, views.parse, prepare, views.measure, VIEWS_ASPECTS, "solid")


class TonesTruth:
    """How much of a caption of the tones world a sound holds, measured from spectra.

    Value: ``overall`` of :func:`mmalign.worlds.tones.measure`, in [0, 1], higher is better; aspects: ``presence`` and
    the four attributes, each in [0, 1]. Channels are averaged, and another rate is converted to 16 kHz. A prompt that
    the world cannot read, or a sound above 30 s, gets a status and no score.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu") -> None:
        self.card = card

    def score(self, samples: Sequence[Sample]) -> Score:
        """Measure each sound against its own prompt."""

        def prepare(media: Media) -> Tensor | str:
            assert isinstance(media, Audio)
            return _heard(media)

        return _measured(samples, self.card, tones.parse, prepare, tones.measure, AUDIO_ASPECTS, "sound")


class CommandsTruth:
    """How well a spoken command keeps to its voice, length and pauses, measured from the waveform; not its words.

    Value: ``overall`` of :func:`mmalign.worlds.commands.measure`, in [0, 1], higher is better; aspects: ``presence``
    and the three attributes, each in [0, 1]. A prompt that the world cannot read, or a sound above 30 s, gets a status
    and no score.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu") -> None:
        self.card = card

    def score(self, samples: Sequence[Sample]) -> Score:
        """Measure each sound against its own prompt."""

        def prepare(media: Media) -> Tensor | str:
            assert isinstance(media, Audio)
            return _heard(media)

        return _measured(
            samples, self.card, commands.parse, prepare, commands.measure, SPEECH_ASPECTS, "command"
        )


class CommandsWer:
    """Word error rate of a spoken command, heard by pocketsphinx with the grammar of this world's commands.

    Value: wrong, missing and added words over the wanted ones, 0 to 1, lower is better; what is no speech is heard as
    nothing and gets 1. The grammar forces any other speech into a command: this tells which one was said. A prompt that
    the world cannot read, or a sound above 30 s, gets a status and no score.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu") -> None:
        self.card = card

    def score(self, samples: Sequence[Sample]) -> Score:
        """Hear each sound and compare it with its own prompt."""

        def prepare(media: Media) -> Tensor | str:
            assert isinstance(media, Audio)
            return _heard(media)

        def measure(waves: Tensor, wanted: list[commands.Command]) -> dict[str, Tensor]:
            heard = map(commands.recognise, waves)
            rates = [
                commands.word_error_rate(said, command.text)
                for said, command in zip(heard, wanted, strict=True)
            ]
            return {"overall": torch.tensor(rates)}

        return _measured(samples, self.card, commands.parse, prepare, measure, (), "command")


class CommandsWords(CommandsWer):
    """The share of a command's words that pocketsphinx hears, with the grammar of this world's commands.

    Value: one less the word error rate of :class:`CommandsWer`, 0 to 1, higher is better.
    """

    def score(self, samples: Sequence[Sample]) -> Score:
        """Hear each sound and compare it with its own prompt."""
        rates = super().score(samples)
        return replace(rates, value=1 - rates.value)


def _measured(
    samples: Sequence[Sample],
    card: RewardCard,
    parse: Callable[[str], Any],
    prepare: Callable[[Media], Tensor | str],
    measure: Callable[[Tensor, list[Any]], dict[str, Tensor]],
    aspects: Sequence[str],
    subject: str,
) -> Score:
    """Measure each sample against the scene of its own prompt, those of one shape together.

    Args:
        samples: B of them.
        card: what the samples have to be.
        parse: from a prompt to a scene, None where the world cannot read it.
        prepare: from a medium to what is measured, or why it cannot be.
        measure: from a batch and its scenes to ``overall`` and the aspects, each [n].
        aspects: their names.
        subject: what a readable prompt names.
    """
    status: list[str] = []
    scenes: list[Any] = []
    media: list[Tensor] = []
    for sample in samples:
        entry, scene = obstacle(sample, card), parse(sample.prompt)
        if entry == OK and scene is None:
            entry = f"the prompt names no {subject} of this world"
        elif entry == OK and sample.media is not None:
            prepared = prepare(sample.media)
            if isinstance(prepared, str):
                entry = prepared
            else:
                media.append(prepared)
                scenes.append(scene)
        status.append(entry)
    found = {name: torch.zeros(len(scenes)) for name in ("overall", *aspects)}
    for shape in {tuple(prepared.shape) for prepared in media}:
        rows = [i for i, prepared in enumerate(media) if prepared.shape == shape]
        measured = measure(torch.stack([media[i] for i in rows]), [scenes[i] for i in rows])
        for name, values in found.items():
            values[rows] = measured[name]
    return scatter(status, found.pop("overall"), found)


def _not_square(pixels: Tensor, what: str) -> str:
    """Why pictures [..., H, W] cannot be judged, or nothing."""
    height, width = pixels.shape[-2:]
    return "" if height == width else f"the {what} is {width}x{height}, not square"


def _heard(sound: Audio) -> Tensor | str:
    """[N] at 16 kHz on the CPU, silence around it where it is very short, or why it cannot be judged."""
    if sound.duration_s > LONGEST_S:
        return f"the sound is {sound.duration_s:.0f} s long, above {LONGEST_S:g} s"
    try:
        wave = sound.mono().resampled(tones.SAMPLE_RATE_HZ).waveform[0].detach().float().cpu()
    except ConfigError as error:
        return str(error)
    return pad(wave, (0, max(0, SHORTEST_SAMPLES - len(wave))))


def _resized(pictures: Tensor, side_px: int = SIDE_PX) -> Tensor:
    """[N, 3, H, H], on the CPU."""
    pictures = pictures.detach().float().cpu()
    if pictures.shape[-1] == side_px:
        return pictures
    return interpolate(pictures, size=(side_px, side_px), mode="bilinear", antialias=True).clamp(0, 1)
