"""Samples for the suite over every card: seven that each measured reward can score."""

from dataclasses import replace
from functools import cache

import PIL.Image
import torch
from PIL import ImageDraw, ImageFont

from mmalign.media import Camera, Image, Mesh, Sample, Scene3D, Video, turntable
from mmalign.rewards.cards import RewardCard
from tests.rewards.espeak import spoken


def measured_samples(card: RewardCard) -> tuple[Sample, ...] | None:
    """Seven samples for a card of ours; None where pictures of the shapes world with their captions do."""
    match card.modalities:
        case ("image",) if "reference" in card.needs:
            return pictures_with_references(176 if card.name == "ms-ssim" else 32)
        case ("image",) if card.extra == "ocr":
            return written_words()
        case ("audio",):
            return sentences()
        case ("video",):
            return videos()
        case ("scene3d",):
            return scenes()
    return None


@cache
def pictures_with_references(side_px: int) -> tuple[Sample, ...]:
    """Smooth noise that is nearer and nearer to its reference, at two sizes."""
    random = torch.Generator().manual_seed(0)
    samples = []
    for row, more in enumerate((0, 0, 8, 0, 8, 8, 0)):
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
    """Pictures that show what they should, something like it, and nothing."""
    shown = ("OPEN LATE", "OPEN", "HELLO", "OPEN LATE", "", "LATE OPEN", "OPENLATE")
    return tuple(Sample('a sign that says "Open Late"', written(text)) for text in shown)


@cache
def sentences() -> tuple[Sample, ...]:
    """Noisier and noisier speech, with the clean sentence beside it, at two lengths."""
    texts = ("open the door", "open the door", "stop the music", "open the door")
    samples = []
    for row in range(7):
        text = texts[row % 4]
        clean = spoken(text).resampled(16_000)
        noise = torch.randn(clean.waveform.shape, generator=torch.Generator().manual_seed(row))
        noisy = clean.waveform + 0.003 * (row + 1) * noise
        sound = replace(clean, waveform=noisy.clamp(-1, 1))
        samples.append(Sample(text, sound, {"reference": clean}))
    return tuple(samples)


@cache
def videos() -> tuple[Sample, ...]:
    """A texture that moves at several speeds, not quite steadily, at two sizes."""
    coarse = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    texture = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(0, 1)[0]
    samples = []
    for row, side in enumerate((32, 32, 40, 32, 40, 40, 32)):
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
