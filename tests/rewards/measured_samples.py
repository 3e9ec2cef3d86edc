"""Samples for the suite over every card: seven that each measured reward can score, the first three of one size."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import PIL.Image
import torch
from PIL import ImageDraw, ImageFont

from mmalign.media import Camera, Image, Mesh, Sample, Scene3D, Video, turntable
from tests.rewards.espeak import spoken


@cache
def pictures_with_references(side_px: int) -> tuple[Sample, ...]:
    """Smooth noise that is nearer and nearer to its reference, at two sizes."""
    random = torch.Generator().manual_seed(0)
    samples = []
    for row, more in enumerate((0, 0, 0, 8, 8, 8, 0)):
        side = side_px + more
        coarse = torch.rand(2, 3, 16, 16, generator=random)
        whole, other = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
        share = 0.1 + 0.1 * row
        picture = Image(share * other + (1 - share) * whole)
        samples.append(Sample(f"picture {row}", picture, {"reference": Image(whole)}))
    return tuple(replace(sample, meta={"row": row}) for row, sample in enumerate(samples))


def written(text: str, *, size_px: int = 32) -> Image:
    """A picture of 256 x 96 with a line of writing."""
    picture = PIL.Image.new("RGB", (256, 96), "white")
    ImageDraw.Draw(picture).text((16, 24), text, fill="black", font=ImageFont.load_default(size_px))
    return Image.from_pil(picture)


@cache
def written_words() -> tuple[Sample, ...]:
    """Pictures that show what they should, a part of it, more than it, and nothing."""
    shown = ("OPEN LATE", "OPEN", "HELLO", "OPEN LATE", "", "LATE OPEN", "OPENLATE")
    wanted = ("Open Late", "Open Late", "Hello", "Open", "Open Late", "Open Late", "Late")
    return tuple(
        Sample(f'a sign that says "{text}"', written(seen)) for text, seen in zip(wanted, shown, strict=True)
    )


@cache
def sentences() -> tuple[Sample, ...]:
    """Noisier and noisier speech, with the clean sentence beside it, at two lengths."""
    samples = []
    for row in range(7):
        text = "stop the music" if row == 3 else "open the door"
        clean = spoken(text).resampled(16_000)
        noise = torch.randn(clean.waveform.shape, generator=torch.Generator().manual_seed(row))
        noisy = clean.waveform + 0.003 * (row + 1) * noise
        sound = replace(clean, waveform=noisy.clamp(-1, 1))
        samples.append(Sample(text, sound, {"reference": clean}))
    return tuple(samples)


@cache
def sentences_with_transcripts() -> tuple[Sample, ...]:
    """The same sounds, which should have said fewer words, others or more."""
    said = ("open the door", "open the", "open a window", "music", "open the door now", "door", "no")
    return tuple(
        replace(sample, context={"transcript": text}) for sample, text in zip(sentences(), said, strict=True)
    )


@cache
def videos() -> tuple[Sample, ...]:
    """A texture that moves at several speeds, not quite steadily, at two sizes."""
    coarse = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    texture = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(0, 1)[0]
    samples = []
    for row, side in enumerate((32, 32, 32, 40, 40, 40, 32)):
        steps = [0, row + 1, 2 * row + 1, 2 * row + 4]
        light = [1.0, 1.0 - 0.01 * row, 0.9, 0.8]
        frames = [
            level * texture.roll(step, 2)[:, :side, :side] for step, level in zip(steps, light, strict=True)
        ]
        samples.append(Sample("noise that moves", Video(torch.stack(frames), 8.0)))
    return tuple(samples)


@cache
def scenes() -> tuple[Sample, ...]:
    """Views of discs with their cameras, and tetrahedra of which some lack a face."""
    cameras: tuple[Camera, ...] = turntable(3)
    down, right = torch.meshgrid(*2 * (torch.linspace(-1, 1, 48),), indexing="ij")
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    samples = []
    for row in range(7):
        views = torch.ones(3, 3, 48, 48)
        for view in range(3):
            views[view, 1:, right**2 + (down - 0.05 * row * view) ** 2 < 0.2] = 0.0
        mesh = Mesh(corners, faces[: 4 - row % 3])
        samples.append(Sample("a ball", Scene3D(views, cameras, mesh)))
    return tuple(samples)


MEASURED_SAMPLES: dict[str, Callable[[], tuple[Sample, ...]]] = {
    **dict.fromkeys(["brightness-flicker", "flicker", "motion-amount", "motion-smoothness"], videos),
    **dict.fromkeys(
        ["dnsmos-p835", "loudness-bs1770", "si-sdr", "speaker-ge2e-v0.1.4", "stoi"],
        sentences,
    ),
    **dict.fromkeys(["mesh-soundness", "view-consistency"], scenes),
    "ms-ssim": partial(pictures_with_references, 176),
    **dict.fromkeys(["ocr-anywhere-ppocr-v6", "ocr-ppocr-v6"], written_words),
    "ssim": partial(pictures_with_references, 32),
    "wer-pocketsphinx-v5": sentences_with_transcripts,
}
"""By card; those that are not here score any picture."""
