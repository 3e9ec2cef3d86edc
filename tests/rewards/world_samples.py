"""Samples for the suite over every card: media of the other worlds, each under captions of its own world."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import torch

from mmalign.media import Audio, Image, Media, Sample, Scene3D, Speech, Video
from mmalign.worlds import commands, moving_shapes, tones, views


def paired(media: Sequence[Media], prompts: Sequence[str]) -> tuple[Sample, ...]:
    """The last two media, of other sizes, under prompts of the first."""
    return tuple(Sample(prompts[i % 4], medium) for i, medium in enumerate(media))


@cache
def videos() -> tuple[Sample, ...]:
    random = torch.Generator().manual_seed(0)
    scenes = [moving_shapes.random_scene(random) for _ in range(5)]
    media = [
        *moving_shapes.videos(scenes, random),
        Video(torch.rand(9, 3, 64, 64, generator=random), 8.0),
        Video(torch.zeros(3, 3, 96, 96), 25.0),
    ]
    return paired(media, list(map(moving_shapes.caption, scenes)))


@cache
def sounds() -> tuple[Sample, ...]:
    random = torch.Generator().manual_seed(0)
    scenes = [tones.random_scene(random) for _ in range(5)]
    media = [
        *tones.sounds(scenes, random),
        Audio(0.3 * torch.randn(2, 16_000, generator=random).clamp(-3, 3), 16_000),
        Audio(torch.zeros(1, 24_000), 24_000),
    ]
    return paired(media, list(map(tones.caption, scenes)))


@cache
def solids() -> tuple[Sample, ...]:
    random = torch.Generator().manual_seed(0)
    found = [views.random_solid(random) for _ in range(5)]
    media = [
        *views.scenes(found, random),
        Scene3D(torch.rand(4, 3, 32, 32, generator=random)),
        Scene3D(torch.zeros(4, 3, 48, 48)),
    ]
    return paired(media, list(map(views.caption, found)))


@cache
def single_views() -> tuple[Sample, ...]:
    return tuple(
        replace(sample, media=Image(sample.media.views[0]))
        for sample in solids()
        if isinstance(sample.media, Scene3D) and sample.media.views is not None
    )


@cache
def speeches() -> tuple[Sample, ...]:
    random = torch.Generator().manual_seed(0)
    asked = [commands.random_command(random) for _ in range(4)]
    # Of the fifth, one word of three and the voice were not asked for.
    objects, voices = commands.OBJECTS, list(commands.VOICES)
    other = replace(
        asked[0],
        object=objects[objects.index(asked[0].object) - 1],
        voice=voices[voices.index(asked[0].voice) - 1],
    )
    media = [
        *commands.speeches([*asked, other], random),
        Speech(0.3 * torch.randn(2, 16_000, generator=random).clamp(-3, 3), 16_000),
        Speech(torch.zeros(1, 24_000), 24_000),
    ]
    return paired(media, list(map(commands.caption, asked)))


WORLD_SAMPLES: dict[str, Callable[[], Sequence[Sample]]] = {
    "commands-truth": speeches,
    "commands-wer": speeches,
    "embedded/shapes-video-clip": videos,
    "embedded/solids-clip": single_views,
    "embedded/solids-clip-views": solids,
    "commands-words": speeches,
    "embedded/commands-asr": speeches,
    "shapes-video-truth": videos,
    "shapes-views-truth": solids,
    "tones-truth": sounds,
}


def right_and_wrong(samples: Callable[[], Sequence[Sample]]) -> Callable[[], tuple[Sample, Sample]]:
    """A medium of its world under its own caption, and under another's."""

    def made() -> tuple[Sample, Sample]:
        first = samples()[0]
        other = next(sample.prompt for sample in samples() if sample.prompt != first.prompt)
        return first, replace(first, prompt=other)

    return made


WORLD_BETTER = {name: right_and_wrong(samples) for name, samples in WORLD_SAMPLES.items()}
WORLD_BETTER["embedded/tones-clap"] = right_and_wrong(sounds)
