"""SI-SDR and STOI: by hand, against torchmetrics and pystoi on spoken sentences, and their gradients."""

from dataclasses import replace

import pystoi
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from mmalign.errors import ShapeError
from mmalign.media import Audio, Image, Media, Sample
from mmalign.rewards.base import DifferentiableReward
from mmalign.rewards.cards import load_reward
from mmalign.rewards.si_sdr import si_sdr_db
from mmalign.rewards.stoi import stoi
from tests.rewards.espeak import spoken

TEXT = "open the door and stop the music"


def with_noise(clean: Tensor, noise_db: float) -> Tensor:
    """White noise this many decibels over the sound."""
    noise = torch.randn(clean.shape, dtype=clean.dtype, generator=torch.Generator().manual_seed(0))
    return clean + 10 ** (noise_db / 20) * clean.square().mean().sqrt() * noise


@pytest.fixture(scope="module")
def clean() -> Tensor:
    """[N] at 10 kHz, half a second of it silent."""
    return spoken(TEXT).resampled(10_000).waveform[0].double()


@pytest.mark.parametrize("noise_db", [-20.0, 0.0, 5.0])
def test_si_sdr_is_that_of_torchmetrics(clean: Tensor, noise_db: float) -> None:
    noisy = 0.3 * with_noise(clean, noise_db) + 0.1
    theirs = scale_invariant_signal_distortion_ratio(noisy, clean, zero_mean=True)
    assert_close(si_sdr_db(noisy, clean), theirs)


@pytest.mark.parametrize("scale", [1e-3, -1.0, 40.0])
def test_si_sdr_ignores_volume_and_sign(clean: Tensor, scale: float) -> None:
    noisy = with_noise(clean, -10.0)
    assert_close(si_sdr_db(scale * noisy, clean), si_sdr_db(noisy, clean))
    assert_close(si_sdr_db(noisy, scale * clean), si_sdr_db(noisy, clean))


def test_si_sdr_of_noise_is_its_own_level(clean: Tensor) -> None:
    assert si_sdr_db(with_noise(clean, -30.0), clean).item() == pytest.approx(30.0, abs=0.1)


def test_si_sdr_has_the_gradient_of_finite_differences() -> None:
    estimate, reference = torch.randn(
        2, 3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    assert torch.autograd.gradcheck(si_sdr_db, (estimate.requires_grad_(), reference.requires_grad_()))


def test_sounds_of_other_lengths_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"estimate: expected \[9\], got \[1\]"):
        si_sdr_db(torch.zeros(1), torch.zeros(9))
    with pytest.raises(ShapeError, match=r"sounds: expected two of \[N\]"):
        stoi(torch.zeros(2, 9), torch.zeros(2, 9))


@pytest.mark.parametrize("noise_db", [-20.0, 0.0, 10.0])
def test_stoi_is_that_of_pystoi(clean: Tensor, noise_db: float) -> None:
    noisy = with_noise(clean, noise_db)
    theirs = pystoi.stoi(clean.numpy(), noisy.numpy(), 10_000)
    assert stoi(noisy, clean).item() == pytest.approx(theirs, abs=1e-9)


def test_stoi_ignores_volume_is_one_for_a_copy_and_falls_with_noise(clean: Tensor) -> None:
    assert stoi(0.2 * clean, clean).item() == pytest.approx(1.0, abs=1e-6)
    noisy = [stoi(with_noise(clean, level), clean).item() for level in (-20.0, -5.0, 5.0)]
    assert noisy == sorted(noisy, reverse=True)
    assert stoi(0.2 * with_noise(clean, -5.0), clean).item() == pytest.approx(noisy[1], abs=1e-6)


def test_stoi_rises_along_its_gradient(clean: Tensor) -> None:
    noisy = with_noise(clean, 0.0).requires_grad_()
    value = stoi(noisy, clean)
    (gradient,) = torch.autograd.grad(value, noisy)
    step = 1e-4 * gradient / gradient.norm()
    with torch.no_grad():
        slope = (stoi(noisy + step, clean) - stoi(noisy - step, clean)) / (2 * step.norm())
    assert_close(slope, gradient.norm(), rtol=1e-4, atol=0)


def test_stoi_of_a_sound_too_short_is_no_number() -> None:
    short = torch.randn(2, 4_100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = pystoi.stoi(short[1].numpy(), short[0].numpy(), 10_000)
    assert stoi(short[0], short[1]).item() == pytest.approx(theirs, abs=1e-9)
    assert stoi(
        short[0, :4_000], short[1, :4_000]
    ).isnan()  # one frame less, where pystoi warns and says 1e-5


@pytest.mark.parametrize("name", ["si-sdr", "stoi"])
def test_a_sound_is_brought_to_the_rate_of_its_reference(name: str) -> None:
    narrow = spoken(TEXT).resampled(8_000)  # what lies at the upper edge would be lost in filters
    reference = narrow.resampled(16_000)
    sound = replace(narrow, waveform=with_noise(narrow.waveform, -5.0)).resampled(16_000)
    upsampled = sound.resampled(32_000)
    stereo = replace(upsampled, waveform=upsampled.waveform.expand(2, -1))
    reward = load_reward(name)
    assert isinstance(reward, DifferentiableReward)
    context = {"reference": reference}
    value = reward.score([Sample("", stereo, context), Sample("", sound, context)]).value
    assert value[0].item() == pytest.approx(value[1].item(), abs=0.01)
    assert_close(reward.score_with_grad(sound.waveform[None], [Sample("", None, context)]), value[1:])


@pytest.mark.parametrize("name", ["si-sdr", "stoi"])
def test_what_cannot_be_compared_is_a_status(name: str) -> None:
    sound = Audio(0.1 * torch.randn(1, 8_000, generator=torch.Generator().manual_seed(0)), 8_000)
    silence, long = Audio(torch.zeros(1, 8_000), 8_000), Audio(sound.waveform.repeat(1, 2), 8_000)
    cases: list[tuple[Audio, dict[str, Media | str], str]] = [
        (sound, {}, "no reference"),
        (sound, {"reference": Image(torch.zeros(3, 2, 2))}, "the reference is no sound"),
        (silence, {"reference": sound}, "the sound is silent"),
        (sound, {"reference": silence}, "the reference is silent"),
        (long, {"reference": sound}, "the sound is 2.00 s long, the reference 1.00 s"),
        (sound, {"reference": long}, "the sound is 1.00 s long, the reference 2.00 s"),
    ]
    score = load_reward(name).score([Sample("", media, context) for media, context, _ in cases])
    assert score.status == [status for _, _, status in cases]
    assert score.value.isnan().all()
