"""How loud a sound is, as broadcasters measure it, and how near that is to a wanted loudness."""

import math
from typing import Any

import torch
from torch import Tensor
from torchaudio.functional import lfilter

from mmalign.errors import ShapeError
from mmalign.media import Audio, Sample
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.measured import MeasuredReward, Measurement, Unmeasurable

BLOCK_S, HOP_S = 0.4, 0.1
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0
SURROUND_WEIGHTS = (1.0, 1.0, 1.0, 1.41, 1.41)
"""Of left, right, centre, left surround, right surround."""


def k_weighting(
    sample_rate_hz: int,
) -> tuple[tuple[list[float], list[float]], tuple[list[float], list[float]]]:
    """The two filters of K-weighting at any rate, each as (b, a) with a[0] = 1: a high shelf, then a high pass.

    The standard gives coefficients at 48 kHz only; these are the analogue filters behind them, through the bilinear
    transform, and equal the standard's at 48 kHz to nine digits.

    Source: ITU-R BS.1770-4, annex 1, tables 1 and 2; the analogue parameters are those of De Man 2014, Evaluation of
    implementations of the EBU R128 loudness measurement.
    """
    k = math.tan(math.pi * 1681.974450955533 / sample_rate_hz)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    scale = 1 + k / q + k * k
    shelf_b = [high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k]
    shelf = [b / scale for b in shelf_b], [1.0, 2 * (k * k - 1) / scale, (1 - k / q + k * k) / scale]
    k, q = math.tan(math.pi * 38.13547087602444 / sample_rate_hz), 0.5003270373238773
    scale = 1 + k / q + k * k
    return shelf, ([1.0, -2.0, 1.0], [1.0, 2 * (k * k - 1) / scale, (1 - k / q + k * k) / scale])


def loudness_lufs(waveform: Tensor, sample_rate_hz: int) -> float:
    """Integrated loudness of a whole sound.

        L(blocks) = -0.691 + 10 log10 sum_c G_c mean over blocks of mean over samples of (K-weighted waveform_c)^2

    over blocks of 0.4 s that start every 0.1 s; only those louder than -70 LUFS count, and of these only those above
    their own loudness less 10 LU.

    Args:
        waveform: [C, N] in [-1, 1] with 1 to 5 channels: mono, stereo, and then centre and two surrounds (no bass
            channel), at least 0.4 s long.
        sample_rate_hz: samples per second.

    Returns:
        LUFS; a sine of 997 Hz and amplitude 1 in one channel has -3.01. Minus infinity where no block is louder than
        -70.

    Raises:
        ShapeError: more channels than the standard weighs, or shorter than a block.

    Source: ITU-R BS.1770-4, annex 1.
    """
    channels, samples = waveform.shape
    block, hop = round(BLOCK_S * sample_rate_hz), round(HOP_S * sample_rate_hz)
    if channels > len(SURROUND_WEIGHTS) or samples < block:
        raise ShapeError(
            f"waveform: expected [C, N] with C at most 5 and N at least {block}, got {[channels, samples]}"
        )
    power = k_weighted(waveform, sample_rate_hz).square_().unfold(1, block, hop).mean(2)
    power = (power * power.new_tensor(SURROUND_WEIGHTS[:channels])[:, None]).sum(0)
    power = power[_lufs(power) > ABSOLUTE_GATE_LUFS]
    power = power[_lufs(power) > _lufs(power.mean()) + RELATIVE_GATE_LU]
    return float(_lufs(power.mean())) if len(power) else -math.inf


def k_weighted(waveform: Tensor, sample_rate_hz: int) -> Tensor:
    """[C, N] in float64 after the filters of the standard.

    A long sound is filtered a minute at a time, each after two seconds of what goes before it, which the filters have
    forgotten by then: their slowest pole, at 38 Hz, is down by e^-477.
    """
    length, before = 60 * sample_rate_hz, 2 * sample_rate_hz
    whole = torch.empty(waveform.shape, dtype=torch.float64)
    for start in range(0, waveform.shape[1], length):
        begin = max(0, start - before)
        part = waveform[:, begin : start + length].detach().double().cpu()
        for b, a in k_weighting(sample_rate_hz):
            part = lfilter(part, part.new_tensor(a), part.new_tensor(b), clamp=False)
        whole[:, start : start + length] = part[:, start - begin :]
    return whole


def _lufs(power: Tensor) -> Tensor:
    return -0.691 + 10 * power.log10()


class Loudness(MeasuredReward):
    """How near the loudness of a sound is to a target; see :func:`loudness_lufs`.

        value = |loudness - target|

    Unit: LU, range [0, inf), lower is better. The aspect ``lufs`` is the loudness itself. Silence has no loudness,
    and no score.

    Args:
        card: says what it takes.
        device: ignored, it is computed on the CPU.
        target_lufs: -23 is the European broadcasters' (EBU R 128).
    """

    aspects = ("lufs",)

    def __init__(self, card: RewardCard, *, device: str = "cpu", target_lufs: float = -23.0) -> None:
        super().__init__(card, device=device)
        self.target_lufs = target_lufs

    def measure(self, sample: Sample) -> Measurement:
        """The loudness of one sound."""
        sound: Any = sample.media
        assert isinstance(sound, Audio)
        if len(sound.waveform) > len(SURROUND_WEIGHTS):
            raise Unmeasurable(f"{len(sound.waveform)} channels; loudness is defined for up to 5")
        if sound.waveform.shape[1] < round(BLOCK_S * sound.sample_rate_hz):
            raise Unmeasurable(f"{sound.duration_s:.2f} s long; loudness needs {BLOCK_S} s")
        lufs = loudness_lufs(sound.waveform, sound.sample_rate_hz)
        if lufs == -math.inf:
            raise Unmeasurable("silence: nothing is louder than -70 LUFS")
        return Measurement(abs(lufs - self.target_lufs), {"lufs": lufs})
