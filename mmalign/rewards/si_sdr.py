"""How much of a sound is its reference, whatever the volume: scale-invariant signal-to-distortion ratio."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmalign.errors import ShapeError
from mmalign.media import Audio, Sample
from mmalign.rewards.measured import TensorReward, Unmeasurable

LONGEST_MISMATCH = 0.02
"""Share of the reference's length by which a sound may be longer or shorter; the rest of it is cut, or is silence."""


def si_sdr_db(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio.

        10 log10 (|a s|^2 / |a s - x|^2),   a = <x, s> / |s|^2,   x and s without their means

    Args:
        estimate: x, [..., N].
        reference: s, the same shape.

    Returns:
        [...], dB; infinite for an exact copy at any volume, NaN where the reference is constant, minus infinity where
        nothing of it is in the estimate.

    Raises:
        ShapeError: the shapes differ.

    Source: Le Roux et al. 2019, SDR - half-baked or well done?, equation 5 (arXiv:1811.02508), with the means taken off
    as is usual.

    >>> si_sdr_db(torch.tensor([1.0, -1.0, 0.1, -0.1]), torch.tensor([1.0, -1.0, 0.0, 0.0]))  # 10 log10 (2 / 0.02)
    tensor(20.)
    """
    if estimate.shape != reference.shape:
        raise ShapeError(f"estimate: expected {list(reference.shape)}, got {list(estimate.shape)}")
    x = estimate - estimate.mean(-1, keepdim=True)
    s = reference - reference.mean(-1, keepdim=True)
    target = (x * s).sum(-1, keepdim=True) / s.square().sum(-1, keepdim=True) * s
    return 10 * (target.square().sum(-1).log10() - (target - x).square().sum(-1).log10())


class ReferenceSoundReward(TensorReward):
    """What compares a sound with ``reference`` in its context: channels mixed down, at the rate of the reference."""

    shortest_s = 0.0

    def tensor(self, sample: Sample) -> Tensor:
        """[1, N], at the rate of the reference."""
        sound, reference = sample.media, sample.context["reference"]
        assert isinstance(sound, Audio)
        if not isinstance(reference, Audio):
            raise Unmeasurable("the reference is no sound")
        waveform = sound.mono().resampled(reference.sample_rate_hz).waveform
        wanted = reference.waveform.shape[1]
        if abs(waveform.shape[1] - wanted) > LONGEST_MISMATCH * wanted:
            raise Unmeasurable(
                f"the sound is {sound.duration_s:.2f} s long, the reference {reference.duration_s:.2f} s"
            )
        if reference.duration_s < self.shortest_s:
            raise Unmeasurable(
                f"the reference is {reference.duration_s:.2f} s long; it needs {self.shortest_s:g} s"
            )
        if _is_constant(reference.mono().waveform):
            raise Unmeasurable("the reference is silent")
        if _is_constant(waveform):
            raise Unmeasurable("the sound is silent")
        return fitted(waveform, wanted)

    def references(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """The references [B, N] of batched sounds [B, C, N].

        Raises:
            ShapeError: ``media`` has another shape, or a reference is missing or of another length.
        """
        found = [sample.context.get("reference") for sample in samples]
        waves = [sound.waveform.mean(0) for sound in found if isinstance(sound, Audio)]
        if media.ndim != 3 or len(media) != len(waves) or any(len(wave) != media.shape[2] for wave in waves):
            raise ShapeError(
                f"media: expected [B, C, N] with one reference of the same length for each, got {list(media.shape)} "
                f"and {[len(wave) for wave in waves]}"
            )
        return torch.stack(waves).to(media)


def fitted(waveform: Tensor, samples: int) -> Tensor:
    """A waveform [..., N] cut, or followed by silence, to a number of samples.

    >>> fitted(torch.tensor([1.0, 2.0, 3.0]), 4), fitted(torch.tensor([1.0, 2.0, 3.0]), 2)
    (tensor([1., 2., 3., 0.]), tensor([1., 2.]))
    """
    return pad(waveform[..., :samples], (0, max(0, samples - waveform.shape[-1])))


def _is_constant(waveform: Tensor) -> bool:
    low, high = torch.aminmax(waveform.detach())
    return float(high - low) < 1e-6  # under the smallest step of 16 bits


class SiSdr(ReferenceSoundReward):
    """SI-SDR of a sound to its reference; see :func:`si_sdr_db`.

    Unit: dB, no bounds, higher is better; 0 where signal and distortion are equally strong. Scores are cut at 100
    dB, which only copies reach. Media for ``score_with_grad`` are at the rate of their reference. Silence has no score.
    """

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """SI-SDR [B] in dB of sounds [B, C, N], to the references of ``samples``."""
        return si_sdr_db(media.mean(1), self.references(media, samples)).clamp(-100, 100)
