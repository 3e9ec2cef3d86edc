"""How intelligible speech is beside its clean reference: STOI, with gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.functional import resample

from mmalign.errors import ShapeError
from mmalign.media import Audio, Sample
from mmalign.rewards.si_sdr import ReferenceSoundReward

RATE_HZ = 10_000
FRAME, FFT = 256, 512
BANDS, LOWEST_HZ = 15, 150.0
SEGMENT = 30
"""Frames that are compared at once, 384 ms."""
CLIP_DB = 15.0
"""The lowest signal-to-distortion ratio that counts."""
SILENT_DB = 40.0
"""Frames of the reference this much under its loudest are left out of both."""


def stoi(estimate: Tensor, reference: Tensor) -> Tensor:
    """Short-time objective intelligibility of one sound.

    Frames of 25.6 ms become 15 one-third octave bands, X of the reference and Y of the estimate; over segments of 30
    frames Y is scaled to the energy of X and cut off where it is far too strong,

        Y' = min(|X| / |Y| Y, X (1 + 10^(15 / 20)))

    and STOI is the mean correlation of X and Y' over bands and segments.

    Args:
        estimate: [N] at 10 kHz.
        reference: [N], clean speech.

    Returns:
        A number in [-1, 1], 1 for an equal sound at any volume; NaN where less than 30 frames of the reference are
        not silent.

    Raises:
        ShapeError: not two of [N].

    Source: Taal et al. 2011, An algorithm for intelligibility prediction of time-frequency weighted noisy speech.
    """
    if estimate.ndim != 1 or estimate.shape != reference.shape:
        raise ShapeError(
            f"sounds: expected two of [N], got {list(estimate.shape)} and {list(reference.shape)}"
        )
    y, x = _without_silence(estimate, reference)
    if x is None or y is None:
        return estimate.sum() * torch.nan
    segments = _bands(torch.stack([x, y])).unfold(2, SEGMENT, 1)  # [2, bands, segments, frames]
    clean, heard = segments[0], segments[1]
    tiny = torch.finfo(clean.dtype).eps
    heard = heard * (clean.norm(dim=-1, keepdim=True) / (heard.norm(dim=-1, keepdim=True) + tiny))
    heard = torch.minimum(heard, clean * (1 + 10 ** (CLIP_DB / 20)))
    return (_standard(clean, tiny) * _standard(heard, tiny)).sum(-1).mean()


def _standard(values: Tensor, tiny: float) -> Tensor:
    centred = values - values.mean(-1, keepdim=True)
    return centred / (centred.norm(dim=-1, keepdim=True) + tiny)


def _window(like: Tensor) -> Tensor:
    """A Hann window without its two zeros."""
    return torch.hann_window(FRAME + 2, periodic=False, dtype=like.dtype, device=like.device)[1:-1]


def _without_silence(estimate: Tensor, reference: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Both, put together again from the frames where the reference is not silent; None where too few are left."""
    if len(reference) < FRAME + 1:
        return None, None
    # One frame less than would fit where the last ends with the sound, as in the authors' code.
    window, frames = _window(reference), (len(reference) - FRAME + FRAME // 2 - 1) // (FRAME // 2)
    x, y = (sound.unfold(0, FRAME, FRAME // 2)[:frames] * window for sound in (reference, estimate))
    level_db = 20 * (x.detach().norm(dim=1) + torch.finfo(x.dtype).eps).log10()
    kept = level_db > level_db.max() - SILENT_DB
    # The frames of the joined sound overlap by half as these do, so that as many come out, less the last.
    if int(kept.sum()) <= SEGMENT:
        return None, None
    return _joined(y[kept]), _joined(x[kept])


def _joined(frames: Tensor) -> Tensor:
    """Frames [F, 256] added up with half of each over the next."""
    first, second = frames.split(FRAME // 2, dim=1)
    return (pad(first, (0, 0, 0, 1)) + pad(second, (0, 0, 1, 0))).flatten()


def _bands(sounds: Tensor) -> Tensor:
    """Magnitudes [S, 15, F] of sounds [S, N] in bands of a third of an octave, from 150 Hz on."""
    frames = sounds.unfold(1, FRAME, FRAME // 2)
    frames = frames[:, : (sounds.shape[1] - FRAME + FRAME // 2 - 1) // (FRAME // 2)] * _window(sounds)
    power = torch.fft.rfft(frames, n=FFT).abs().square()
    frequency = torch.linspace(0, RATE_HZ / 2, FFT // 2 + 1, dtype=torch.float64)
    rows = []
    for band in range(BANDS):
        low, high = (LOWEST_HZ * 2 ** ((2 * band + side) / 6) for side in (-1, 1))
        start, stop = (int((frequency - edge).abs().argmin()) for edge in (low, high))
        rows.append(power[:, :, start:stop].sum(2))
    # A power of exactly 0 has no derivative under the root.
    return torch.stack(rows, 1).clamp_min(torch.finfo(power.dtype).tiny).sqrt()


class Stoi(ReferenceSoundReward):
    """STOI of speech to its clean reference; see :func:`stoi`.

    Range: [-1, 1], higher is better; 1 is the reference itself, noise as strong as the speech has about 0.8. Media for
    ``score_with_grad`` are at the rate of their reference. Silence, and references with less than 0.4 s of sound,
    have no score.
    """

    shortest_s = 0.5

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """STOI [B] of sounds [B, C, N], to the references of ``samples``."""
        references = self.references(media, samples)
        values = []
        for sound, reference, sample in zip(media.mean(1), references, samples, strict=True):
            owner = sample.context["reference"]
            assert isinstance(owner, Audio)
            both = resample(torch.stack([sound, reference]), owner.sample_rate_hz, RATE_HZ)
            values.append(stoi(both[0], both[1]))
        return torch.stack(values)
