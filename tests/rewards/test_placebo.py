"""The control reward: noise, and the same noise everywhere."""

import subprocess
import sys
from pathlib import Path

import torch

from mmalign.media import Image, Sample
from mmalign.rewards.cards import load_reward
from mmalign.rewards.placebo import hash_number

PICTURE = Image(torch.linspace(0, 1, 3 * 4 * 5).reshape(3, 4, 5))


def test_another_process_gets_the_same_number() -> None:
    script = """
import torch
from mmalign.media import Image
from mmalign.rewards.placebo import hash_number
print(repr(hash_number("a red circle", Image(torch.linspace(0, 1, 3 * 4 * 5).reshape(3, 4, 5)))))
"""
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(other.stdout) == hash_number("a red circle", PICTURE)


def test_a_saved_picture_keeps_its_number(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "picture.png")
    assert hash_number("a", Image.load(tmp_path / "picture.png")) == hash_number("a", PICTURE)


def test_every_part_of_the_content_counts() -> None:
    changed = PICTURE.pixels.clone()
    changed[0, 0, 0] += 1 / 255
    numbers = {
        hash_number("a", PICTURE),
        hash_number("b", PICTURE),
        hash_number("a", Image(changed)),
        hash_number("a", Image(PICTURE.pixels.reshape(3, 5, 4))),
    }
    assert len(numbers) == 4


def test_numbers_are_standard_normal() -> None:
    samples = [Sample(f"prompt {i}", PICTURE) for i in range(2_000)]
    values = load_reward("placebo").score(samples).value
    # The error of a mean of 2,000 is 0.022, of a standard deviation 0.016, of a share 0.011.
    assert abs(values.mean()) < 0.07
    assert abs(values.std() - 1) < 0.05
    assert abs((values.abs() < 1).float().mean() - 0.683) < 0.035
