"""Statistics of every medium say what they are named for."""

import math

import pytest
import torch

from mmalign.evaluation.image_statistics import picture_guards
from mmalign.evaluation.media_guards import level_db, media_guards, silence, small_spectrogram
from mmalign.media import Audio, Image, Scene3D, Video

RATE = 8_000


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def tone(hz: float, seconds: float = 0.5, level: float = 0.5) -> torch.Tensor:
    return level * torch.sin(2 * math.pi * hz * torch.arange(round(seconds * RATE)) / RATE)[None]


def test_pictures_have_what_picture_guards_says() -> None:
    drawn = pictures(4, 3, 20, 20)
    assert media_guards([Image(p) for p in drawn], ["a", "a", "b", "b"]) == picture_guards(
        drawn, ["a", "a", "b", "b"]
    )


def test_a_still_video_does_not_move_and_its_frames_are_judged_as_pictures() -> None:
    frames = pictures(2, 1, 3, 24, 24).expand(2, 5, 3, 24, 24)
    found = media_guards([Video(f, 8.0) for f in frames], ["a", "a"])
    alone = media_guards([Image(f[0]) for f in frames], ["a", "a"])
    assert found.pop("motion") == 0
    assert found == pytest.approx(alone, rel=1e-5)


def test_motion_is_the_mean_change_between_frames() -> None:
    blinking = torch.tensor([0.0, 0.25, 0.0])[:, None, None, None].expand(3, 3, 16, 16)
    assert media_guards([Video(blinking, 8.0)], ["a"])["motion"] == pytest.approx(0.25)


def test_views_are_judged_like_frames_but_do_not_move() -> None:
    views = pictures(2, 4, 3, 16, 16)
    scenes, videos = [Scene3D(v) for v in views], [Video(v, 8.0) for v in views]
    moving = media_guards(videos, ["a", "a"])
    assert moving.pop("motion") > 0
    assert media_guards(scenes, ["a", "a"]) == moving


def test_halving_a_sound_takes_six_decibels_and_changes_no_other_number() -> None:
    loud = [Audio(tone(440), RATE), Audio(tone(880), RATE)]
    soft = [Audio(sound.waveform / 2, RATE) for sound in loud]
    first, second = (media_guards(sounds, ["a", "a"]) for sounds in (loud, soft))
    assert first["level_db"] - second["level_db"] == pytest.approx(20 * math.log10(2))
    assert first["silence"] == second["silence"] == 0
    assert first["level_db"] == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=0.01)


def test_equal_sounds_have_no_diversity_and_different_ones_have() -> None:
    same = media_guards([Audio(tone(440), RATE)] * 2, ["a", "a"])
    other = media_guards([Audio(tone(440), RATE), Audio(tone(2000), RATE)], ["a", "a"])
    assert same["diversity"] == 0 < other["diversity"]
    assert "diversity" not in media_guards([Audio(tone(440), RATE)], ["a"])


def test_silence_is_a_share_of_time() -> None:
    sound = torch.cat([tone(440, 0.5), torch.zeros(1, RATE // 2)], dim=1)
    assert silence(sound, RATE) == pytest.approx(0.5)
    assert silence(torch.zeros(2, 100), RATE) == 1
    assert level_db(torch.zeros(1, 4)) == -120


def test_a_spectrogram_has_one_size_whatever_the_sound() -> None:
    for length in (3, 700, 30_000):
        assert small_spectrogram(torch.randn(2, length)).shape == (24 * 16,)
    low, high = small_spectrogram(tone(200)), small_spectrogram(tone(3500))
    assert low.unflatten(0, (24, 16)).mean(1).argmax() < high.unflatten(0, (24, 16)).mean(1).argmax()
