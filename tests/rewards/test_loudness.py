"""Loudness by the sounds and numbers of the standards themselves."""

import math

import pytest
import torch
from torch import Tensor
from torchaudio.functional import lfilter

from mmalign.errors import ShapeError
from mmalign.media import Audio, Sample
from mmalign.rewards.cards import load_reward
from mmalign.rewards.loudness import k_weighted, k_weighting, loudness_lufs

RATE_HZ = 48_000


def tone(*levels_db: float, seconds: float = 1.0, hz: float = 997.0, rate_hz: int = RATE_HZ) -> Tensor:
    """[1, N] in float64: a sine whose amplitude has these levels one after the other."""
    time = torch.arange(round(seconds * rate_hz), dtype=torch.float64) / rate_hz
    wave = torch.sin(2 * math.pi * hz * time)
    return torch.cat([wave * 10 ** (level / 20) for level in levels_db])[None]


def test_the_filters_at_48_khz_are_those_of_the_standard() -> None:
    (shelf_b, shelf_a), (pass_b, pass_a) = k_weighting(RATE_HZ)
    assert shelf_b == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285], abs=1e-9)
    assert shelf_a == pytest.approx([1.0, -1.69065929318241, 0.73248077421585], abs=1e-9)
    assert pass_b == [1.0, -2.0, 1.0]
    assert pass_a == pytest.approx([1.0, -1.99004745483398, 0.99007225036621], abs=1e-9)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_a_full_sine_has_what_the_standard_says_at_any_rate(rate_hz: int) -> None:
    assert loudness_lufs(tone(0.0, rate_hz=rate_hz), rate_hz) == pytest.approx(-3.01, abs=0.1)


def test_the_signals_of_the_european_broadcasters_are_23_under() -> None:
    """EBU Tech 3341, cases 1, 3 and 4, shorter: one tone in both channels; quieter and silent parts do not count."""
    loud = (-23.0,) * 5
    for levels in (loud, (-36.0, *loud, -36.0), (-72.0, -36.0, *loud, -36.0, -72.0)):
        stereo = tone(*levels, seconds=4.0, hz=1000.0).expand(2, -1)
        assert loudness_lufs(stereo, RATE_HZ) == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize(("factor", "shift"), [(2.0, 6.0206), (0.1, -20.0), (-1.0, 0.0)])
def test_volume_shifts_loudness(factor: float, shift: float) -> None:
    noise = 0.05 * torch.randn(1, RATE_HZ, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    change = loudness_lufs(factor * noise, RATE_HZ) - loudness_lufs(noise, RATE_HZ)
    assert change == pytest.approx(shift, abs=1e-3)


def test_a_surround_channel_counts_more_than_a_front_one() -> None:
    front, back = torch.zeros(5, RATE_HZ), torch.zeros(5, RATE_HZ)
    front[0], back[4] = tone(-20.0)[0], tone(-20.0)[0]
    change = loudness_lufs(back, RATE_HZ) - loudness_lufs(front, RATE_HZ)
    assert change == pytest.approx(10 * math.log10(1.41), abs=1e-6)


def test_what_has_no_loudness_is_refused_by_the_function_and_a_status_of_the_reward() -> None:
    with pytest.raises(ShapeError, match="N at least 19200"):
        loudness_lufs(torch.zeros(1, 19_199), RATE_HZ)
    assert loudness_lufs(torch.zeros(1, RATE_HZ), RATE_HZ) == -math.inf
    samples = [
        Sample("", Audio(waveform.float(), RATE_HZ))
        for waveform in (
            torch.zeros(1, RATE_HZ),
            tone(-90.0),
            torch.zeros(1, 9_600),
            torch.zeros(6, RATE_HZ),
            tone(-30.0),
        )
    ]
    score = load_reward("loudness-bs1770").score(samples)
    silent = "silence: nothing is louder than -70 LUFS"
    assert score.status[:3] == [silent, silent, "0.20 s long; loudness needs 0.4 s"]
    assert score.status[3:] == ["6 channels; loudness is defined for up to 5", "ok"]
    assert score.aspects["lufs"][4].item() == pytest.approx(-33.01, abs=0.02)
    assert score.value[4].item() == pytest.approx(10.01, abs=0.02)


def test_a_long_sound_is_filtered_in_parts_as_if_it_were_whole() -> None:
    rate = 8_000
    sound = torch.rand(2, 150 * rate, generator=torch.Generator().manual_seed(0)) - 0.5
    whole = sound.double()
    for b, a in k_weighting(rate):
        whole = lfilter(whole, whole.new_tensor(a), whole.new_tensor(b), clamp=False)
    torch.testing.assert_close(k_weighted(sound, rate), whole, rtol=0, atol=1e-12)
