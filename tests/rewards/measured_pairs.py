"""For the suite over every card: two samples of which a measured reward has to prefer the first."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import torch
from torch.nn.functional import avg_pool2d

from mmalign.media import Audio, Image, Sample, Speech, Video
from tests.rewards.espeak import spoken
from tests.rewards.measured_samples import pictures_with_references, scenes, sentences, videos, written

Pair = tuple[Sample, Sample]


def texture() -> torch.Tensor:
    """[3, 32, 32] of a smooth picture."""
    media = videos()[0].media
    assert isinstance(media, Video)
    return media.frames[0]


def video(frames: list[torch.Tensor]) -> Sample:
    return Sample("noise", Video(torch.stack(frames), 8.0))


def still_and_flickering() -> Pair:
    """A still video, and one of which each second frame is dark."""
    one = texture()
    return video([one] * 4), video([one, 0.3 * one] * 2)


def moving_and_still() -> Pair:
    return video([texture().roll(2 * step, 2) for step in range(4)]), video([texture()] * 4)


def steady_and_shaking() -> Pair:
    """A texture that goes on and on, and one that goes to and fro."""
    return (
        video([texture().roll(step, 2) for step in range(5)]),
        video([texture().roll(step % 2, 2) for step in range(5)]),
    )


def flat_and_noise() -> Pair:
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    return Sample("grey", Image(torch.full((3, 64, 64), 0.5))), Sample("noise", Image(noise))


def noise_and_flat() -> Pair:
    flat, noise = flat_and_noise()
    return noise, flat


def sharp_and_blurred() -> Pair:
    """A photograph, and the mean over 5 x 5 of its pixels."""
    sharp = Image.load(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    blurred = avg_pool2d(sharp.pixels[None], 5, stride=1, padding=2, count_include_pad=False)[0]
    return Sample("a portrait", sharp), Sample("a portrait", Image(blurred))


def near_and_far() -> Pair:
    """A picture that is nearly its reference, and one that is mostly another."""
    near, *_, far = pictures_with_references(176)
    return near, far


def right_and_wrong_word() -> Pair:
    prompt = 'a sign that says "Open Late"'
    return Sample(prompt, written("OPEN LATE")), Sample(prompt, written("HELLO"))


def right_and_too_loud() -> Pair:
    """A tone of 997 Hz at -23 LUFS, which an amplitude of 0.1 has, and at -4."""
    wave = torch.sin(2 * torch.pi * 997 * torch.arange(48_000) / 48_000)[None]
    return two_sounds(Audio(0.1 * wave, 48_000), Audio(0.9 * wave, 48_000))


def two_sounds(better: Audio, worse: Audio) -> Pair:
    return Sample("a sound", better), Sample("a sound", worse)


def clean_and_noisy() -> Pair:
    """A sentence with hardly any noise, and with seven times as much."""
    clean, *_, noisy = sentences()
    return clean, noisy


def same_and_other_voice() -> Pair:
    reference = {"reference": spoken("stop the music")}
    same, other = (spoken("open the door", voice=voice) for voice in ("en-us", "en-us+f3"))
    return Sample("speech", same, reference), Sample("speech", other, reference)


def right_and_wrong_words() -> Pair:
    said = spoken("one two three four five")
    other: Speech = replace(said, transcript="open the door")
    return two_sounds(said, other)


def consistent_and_shifted() -> Pair:
    """Views of a ball, and views of it that are up to half a radius off."""
    right, *_, shifted = scenes()
    return right, shifted


def closed_and_open() -> Pair:
    """A tetrahedron, and one without a face."""
    closed, opened, *_ = scenes()
    return closed, opened


MEASURED_BETTER: dict[str, Callable[[], Pair]] = {
    "brightness-flicker": still_and_flickering,
    "dnsmos-p835": clean_and_noisy,
    "flicker": still_and_flickering,
    "jpeg-compressibility": flat_and_noise,
    "jpeg-incompressibility": noise_and_flat,
    "loudness-bs1770": right_and_too_loud,
    "mesh-soundness": closed_and_open,
    "motion-amount": moving_and_still,
    "motion-smoothness": steady_and_shaking,
    "ms-ssim": near_and_far,
    "ocr-anywhere-ppocr-v6": right_and_wrong_word,
    "ocr-ppocr-v6": right_and_wrong_word,
    "sharpness": sharp_and_blurred,
    "si-sdr": clean_and_noisy,
    "speaker-ge2e-v0.1.4": same_and_other_voice,
    "ssim": near_and_far,
    "stoi": clean_and_noisy,
    "view-consistency": consistent_and_shifted,
    "wer-pocketsphinx-v5": right_and_wrong_words,
}
"""By card: a sample that is better than another beyond doubt."""
