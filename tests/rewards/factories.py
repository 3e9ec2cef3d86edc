"""For the suite over every card: small models in the place of weights, samples to score, and which of two is better.

A card whose weights do not ship with the package needs a row in FACTORIES; every card that is judged by what it says
needs one in BETTER; a key of ``needs`` beyond the prompt needs one in CONTEXT.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import torch

from mmalign.media import Audio, Image, Media, Sample, Scene3D, Speech, Video
from mmalign.rewards.base import Reward
from mmalign.rewards.cards import RewardCard, WeightFiles, find_card, load_card
from mmalign.worlds import shapes
from tests.rewards import small_judges, small_models
from tests.rewards.judge_samples import JUDGE_BETTER, JUDGE_SAMPLES
from tests.rewards.measured_pairs import MEASURED_BETTER
from tests.rewards.measured_samples import MEASURED_SAMPLES
from tests.rewards.world_samples import WORLD_BETTER, WORLD_SAMPLES


def small_card(name: str, folder: Path, **options: Any) -> RewardCard:
    """A card of the table whose weights are a small model's, so that no SHA-256 is right."""
    card = find_card(name)
    return replace(
        card,
        weights=str(folder),
        files=dict.fromkeys(card.files),
        parts={
            part: WeightFiles(source=files.source, files=dict.fromkeys(files.files))
            for part, files in card.parts.items()
        },
        options={**card.options, **options},
    )


def load_small(card: RewardCard) -> Reward:
    """Load as anybody would, without the warning of licences that nobody verified."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "reward .*: nobody verified the licence")
        return load_card(card)


def with_clip(name: str) -> Callable[[Path], Reward]:
    return lambda folder: load_small(small_card(name, small_models.save_clip(folder)))


def with_open_clip(name: str) -> Callable[[Path], Reward]:
    return lambda folder: load_small(small_card(name, small_models.save_open_clip(folder)))


def hps(name: str) -> Callable[[Path], Reward]:
    def build(folder: Path) -> Reward:
        encoder = find_card(name).options["encoder"]
        small_models.save_hps(folder, encoder["file"])
        changed = {**encoder, "architecture": small_models.HPS_ARCHITECTURE}
        return load_small(small_card(name, folder, encoder=changed))

    return build


def pickscore(folder: Path) -> Reward:
    small_models.save_clip(folder, processor=folder / "processor")
    return load_small(small_card("pickscore-v1", folder))


def aesthetic(folder: Path) -> Reward:
    small_models.save_clip(folder / "backbone")
    head = find_card("laion-aesthetic-v2").options["head"]
    torch.save(small_models.linear_head(16), folder / head)
    return load_small(small_card("laion-aesthetic-v2", folder))


def imagereward(folder: Path) -> Reward:
    return load_small(small_card("imagereward-v1.0", small_models.save_imagereward(folder)))


def clap(folder: Path) -> Reward:
    return load_small(small_card("clap-laion-htsat-unfused", small_models.save_clap(folder)))


def vqascore(folder: Path) -> Reward:
    """A model of random weights says anything, and yes or no rarely."""
    model, processor = small_judges.qwen2_vl()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return load_small(small_card("vqascore-qwen2.5-vl-7b", folder, dtype="float32", least_mass=0.0))


FACTORIES: dict[str, Callable[[Path], Reward]] = {
    "clap-laion-htsat-unfused": clap,
    "clip-vit-h-14-laion2b": with_open_clip("clip-vit-h-14-laion2b"),
    "clipscore-vit-b-32": with_clip("clipscore-vit-b-32"),
    "clipscore-vit-l-14": with_clip("clipscore-vit-l-14"),
    "hps-v2.0": hps("hps-v2.0"),
    "hps-v2.1": hps("hps-v2.1"),
    "imagereward-v1.0": imagereward,
    "laion-aesthetic-v2": aesthetic,
    "pickscore-v1": pickscore,
    "refclipscore-vit-b-32": with_clip("refclipscore-vit-b-32"),
    "vlm-rm-vit-h-14-laion2b": with_open_clip("vlm-rm-vit-h-14-laion2b"),
    "vqascore-qwen2.5-vl-7b": vqascore,
}
"""By card: saves a small model of its class in its authors' layout into a folder, and loads the card from there."""

COUNT = 6
"""Samples of every kind."""


def pictures() -> list[Sample]:
    """As asked for, of something else, noise, black and of another size."""
    random = torch.Generator().manual_seed(0)
    scenes = [shapes.random_scene(random, two_shapes=0.3) for _ in range(4)]
    drawn = [
        *shapes.render(scenes, random),
        torch.rand(3, 64, 64, generator=random),
        torch.zeros(3, 96, 96),
    ]
    return [Sample(shapes.caption(scenes[i % 3]), Image(picture)) for i, picture in enumerate(drawn)]


def waves(rate_hz: int) -> torch.Tensor:
    """[6, 1, N]: tones of several heights and lengths of silence, of 0.75 s."""
    time = torch.arange(int(0.75 * rate_hz)) / rate_hz
    pitch = torch.tensor([220.0, 440.0, 660.0, 880.0, 330.0, 1_200.0])[:, None]
    gate = time < torch.linspace(0.2, 0.75, 6)[:, None]
    return (0.5 * torch.sin(2 * torch.pi * pitch * time) * gate)[:, None]


def samples(modality: str, *, sample_rate_hz: int = 16_000) -> list[Sample]:
    """Samples of a modality, the first three of one size."""
    texts = ["a low tone", "a high tone", "a low tone", "a whistle", "two tones", "silence"]
    sounds = waves(sample_rate_hz)
    if modality == "audio":
        media: list[Media] = [Audio(wave, sample_rate_hz) for wave in sounds]
    elif modality == "speech":
        media = [
            Speech(wave, sample_rate_hz, transcript=text) for wave, text in zip(sounds, texts, strict=True)
        ]
    else:
        texts = [sample.prompt for sample in pictures()]
        still = [sample.media.pixels for sample in pictures() if isinstance(sample.media, Image)]
        if modality == "image":
            media = [Image(picture) for picture in still]
        elif modality == "video":
            media = [Video(torch.stack([p, p.roll(4, -1), p.roll(8, -1)]), 8.0) for p in still]
        else:
            media = [Scene3D(torch.stack([p, p.flip(-1)])) for p in still]
    return [Sample(text, medium) for text, medium in zip(texts, media, strict=True)]


def itself(sample: Sample) -> Media:
    """A sample's own medium."""
    assert sample.media is not None
    return sample.media


CONTEXT: dict[str, Callable[[Sample], Media | str]] = {
    "reference": itself,
    "references": lambda sample: f"{sample.prompt}, seen from above\nsomething else",
}
"""By key of ``needs``: what a sample is given under it."""

SAMPLES: dict[str, Callable[[], Sequence[Sample]]] = {
    **JUDGE_SAMPLES,
    **MEASURED_SAMPLES,
    **WORLD_SAMPLES,
}
"""By card: samples in the place of the modality's, for one that needs particular media or words."""

READS_A_PROMPT_THAT_IS_THERE = {"placebo"}
"""Cards that need no prompt and yet have another number with another one: the hash is of all content."""

SLOW_EXTRAS = {"ocr", "speech"}
"""Extras whose models take seconds for a few samples."""

NO_DIRECTION = {"covered-area", "placebo"}
"""Cards of which neither end is better."""


def photograph() -> Image:
    return Image.load(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")


def two_prompts() -> tuple[Sample, Sample]:
    """A portrait under its own words, and under others."""
    context = {"references": "an officer in front of a flag\na woman in uniform"}
    return (
        Sample("a portrait of a woman in a navy uniform", photograph(), context),
        Sample("a bowl of fruit on a wooden table", photograph(), context),
    )


def two_pictures() -> tuple[Sample, Sample]:
    """A photograph, and noise."""
    noise = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    return Sample("a portrait", photograph()), Sample("a portrait", Image(noise))


def two_scenes() -> tuple[Sample, Sample]:
    """A scene of the shapes world under its caption, and under that of another."""
    random = torch.Generator().manual_seed(3)
    scene, other = [(shape,) for shape in shapes.all_shapes()[:40:39]]
    picture = Image(shapes.render([scene], random)[0])
    return Sample(shapes.caption(scene), picture), Sample(shapes.caption(other), picture)


def two_sounds() -> tuple[Sample, Sample]:
    """Noise under its own words, and under others."""
    noise = 0.3 * torch.randn(1, 3 * 48_000, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    sound = Audio(noise, 48_000)
    return Sample("white noise, static", sound), Sample("a person plays the piano", sound)


def two_stills() -> tuple[Sample, Sample]:
    """The same, on a video in which nothing moves."""
    first, second = (replace(sample, media=Video(four_times(sample), 8.0)) for sample in two_scenes())
    return first, second


def two_turntables() -> tuple[Sample, Sample]:
    """The same, as four views."""
    first, second = (replace(sample, media=Scene3D(views=four_times(sample))) for sample in two_scenes())
    return first, second


def four_times(sample: Sample) -> torch.Tensor:
    """[4, 3, H, W] of a sample's picture."""
    assert isinstance(sample.media, Image)
    return sample.media.pixels.expand(4, -1, -1, -1)


BETTER: dict[str, Callable[[], tuple[Sample, Sample]]] = {
    **dict.fromkeys(
        [
            "clip-vit-h-14-laion2b",
            "clipscore-vit-b-32",
            "clipscore-vit-l-14",
            "hps-v2.0",
            "hps-v2.1",
            "imagereward-v1.0",
            "pickscore-v1",
            "refclipscore-vit-b-32",
            "vlm-rm-vit-h-14-laion2b",
        ],
        two_prompts,
    ),
    "clap-laion-htsat-unfused": two_sounds,
    "embedded/shapes-clip": two_scenes,
    "embedded/shapes-clip-frames": two_stills,
    "embedded/shapes-clip-views": two_turntables,
    "laion-aesthetic-v2": two_pictures,
    "shapes-truth": two_scenes,
    **JUDGE_BETTER,
    **MEASURED_BETTER,
    **WORLD_BETTER,
}
"""By card: a sample that is better than another beyond doubt; used with the real weights only."""
