"""The control reward: noise, for any medium, and the same noise everywhere."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmalign.media import MEDIA, Audio, Image, Media, Sample, Scene3D, Speech, Video
from mmalign.rewards.cards import load_reward
from mmalign.rewards.placebo import hash_number

PICTURE = Image(torch.linspace(0, 1, 3 * 4 * 5).reshape(3, 4, 5))
WAVE = torch.linspace(-1, 1, 100)[None]
ONE_OF_EACH: tuple[Media, ...] = (
    PICTURE,
    Video(PICTURE.pixels[None], 8.0),
    Scene3D(PICTURE.pixels[None]),
    Audio(WAVE, 8_000),
    Speech(WAVE, 8_000),
)


def number(media: Media, prompt: str = "a") -> float:
    return hash_number(Sample(prompt, media))


def test_another_process_gets_the_same_number() -> None:
    script = """
import torch
from mmalign.media import Image, Sample
from mmalign.rewards.placebo import hash_number
print(repr(hash_number(Sample("a red circle", Image(torch.linspace(0, 1, 3 * 4 * 5).reshape(3, 4, 5))))))
"""
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(other.stdout) == number(PICTURE, "a red circle")


def test_a_saved_picture_keeps_its_number(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "picture.png")
    assert number(Image.load(tmp_path / "picture.png")) == number(PICTURE)


def test_every_part_of_the_content_counts() -> None:
    changed = PICTURE.pixels.clone()
    changed[0, 0, 0] += 1 / 255
    numbers = {
        number(PICTURE),
        number(PICTURE, "b"),
        number(Image(changed)),
        number(Image(PICTURE.pixels.reshape(3, 5, 4))),
        hash_number(Sample("a", PICTURE, context={"source": PICTURE})),
    }
    assert len(numbers) == 5


def test_all_media_have_numbers_of_their_own() -> None:
    placebo = load_reward("placebo")
    assert sorted(placebo.card.modalities) == sorted(MEDIA)
    score = placebo.score([Sample("a", media) for media in ONE_OF_EACH])
    assert score.status == ["ok"] * len(ONE_OF_EACH)
    assert len(set(score.value.tolist())) == len(ONE_OF_EACH)
    assert score.value.tolist() == pytest.approx([number(media) for media in ONE_OF_EACH])


def test_numbers_are_standard_normal() -> None:
    samples = [Sample(f"prompt {i}", PICTURE) for i in range(2_000)]
    values = load_reward("placebo").score(samples).value
    # The error of a mean of 2,000 is 0.022, of a standard deviation 0.016, of a share 0.011.
    assert abs(values.mean()) < 0.07
    assert abs(values.std() - 1) < 0.05
    assert abs((values.abs() < 1).float().mean() - 0.683) < 0.035
