"""How good speech sounds, as listeners would rate it, by Microsoft's DNSMOS; only where somebody speaks."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.media import Audio, Sample
from mmalign.rewards.measured import MeasuredReward, Measurement, Unmeasurable
from mmalign.rewards.voice_activity import RATE_HZ, onnx_model, samples_16k, spoken_s

WINDOW_S = 9.01
LEAST_SPEECH_S = 0.25
POLYNOMIALS = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}
"""Of degree 2, the highest power first: what the model says to what listeners said."""


def dnsmos_polynomial(raw: float, kind: str) -> float:
    """The rating that belongs to a raw output of the model.

    >>> [round(dnsmos_polynomial(3.0, kind), 5) for kind in ("signal", "background", "overall")]
    [2.91201, 3.2464, 2.78345]
    """
    square, slope, offset = POLYNOMIALS[kind]
    return square * raw**2 + slope * raw + offset


def windows(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """The stretches of 9.01 s that are rated, a second apart.

    A shorter sound is doubled until it is long enough.

    Args:
        waveform: [N] at 16 kHz, N at least 1.

    Returns:
        [n, 144160].

    Source: microsoft/DNS-Challenge, DNSMOS/dnsmos_local.py, whose count of windows, trunc(floor(s) - 9.01) + 1, this
    is.
    """
    length = int(WINDOW_S * RATE_HZ)
    while len(waveform) < length:
        waveform = np.concatenate([waveform, waveform])
    count = int(len(waveform) // RATE_HZ - WINDOW_S) + 1
    starts = [RATE_HZ * start for start in range(count)]
    return np.stack([waveform[start : start + length] for start in starts if start + length <= len(waveform)])


class Dnsmos(MeasuredReward):
    """The overall quality of speech on the scale of listeners, 1 (bad) to 5 (excellent), mean over its windows.

    Range: [1, 5] nominally, higher is better; clean synthetic speech has about 3. Aspects: ``signal`` and
    ``background`` on the same scale, and ``speech``, the share of the time in which somebody speaks. The model gives
    silence 1.8 and a tone 1.5, more than noisy speech, so a sound with less than 0.25 s of speech has no score.

    Source: Reddy et al. 2022, DNSMOS P.835 (arXiv:2110.01763); the model in the package speechmos, whose code is not
    used.

    Raises:
        MissingExtraError: the extra ``speech`` is not installed.
    """

    aspects = ("signal", "background", "speech")

    @cached_property
    def _model(self) -> Any:
        return onnx_model("speechmos", "dnsmos_models/sig_bak_ovr.onnx", extra="speech")

    def measure(self, sample: Sample) -> Measurement:
        """Rate one sound."""
        assert isinstance(sample.media, Audio)
        waveform = samples_16k(sample.media)
        spoken = spoken_s(waveform)
        if spoken < LEAST_SPEECH_S:
            raise Unmeasurable(f"nobody speaks ({spoken:.2f} s of speech, {LEAST_SPEECH_S} s are needed)")
        raw = [self._model.run(None, {"input_1": window[None]})[0][0] for window in windows(waveform)]
        signal, background, overall = (
            float(np.mean([dnsmos_polynomial(float(row[column]), kind) for row in raw]))
            for column, kind in enumerate(POLYNOMIALS)
        )
        share = min(1.0, spoken * RATE_HZ / len(waveform))
        return Measurement(overall, {"signal": signal, "background": background, "speech": share})
