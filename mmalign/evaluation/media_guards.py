"""Plain statistics of any medium, compared before and after a run; those of pictures are in ``image_statistics``."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from mmalign.evaluation.image_statistics import THUMBNAIL_PX, diversity, picture_guards
from mmalign.media import Audio, Image, Media, Scene3D, Video

SILENT_DB = -60.0
"""A stretch of sound below this level, against full scale, counts as silence."""
STRETCH_S = 0.02
BANDS, TIMES = 24, 16
"""Size of the small spectrograms that ``diversity`` of sounds compares."""


def media_guards(media: Sequence[Media], groups: Sequence[Hashable]) -> dict[str, float]:
    """Means of all statistics of B media of one kind.

    Args:
        media: pictures, videos, scenes with views, or sounds, all of one size.
        groups: B prompt ids.

    Returns:
        For what is seen, ``picture_guards`` of all frames or views, and ``motion`` of videos; for sounds ``level_db``
        and ``silence``; ``diversity`` where a prompt has two samples.
    """
    first = media[0]
    if isinstance(first, Image):
        return picture_guards(torch.stack([m.pixels for m in media if isinstance(m, Image)]), groups)
    if isinstance(first, Audio):
        return _sound_guards([m for m in media if isinstance(m, Audio)], groups)
    pictures = torch.stack([_pictures(medium) for medium in media])
    guards = picture_guards(pictures.flatten(0, 1), range(pictures.shape[0] * pictures.shape[1]))
    if isinstance(first, Video):
        guards["motion"] = float(pictures.diff(dim=1).abs().mean()) if pictures.shape[1] > 1 else 0.0
    small = torch.nn.functional.interpolate(pictures.flatten(0, 1), (THUMBNAIL_PX, THUMBNAIL_PX), mode="area")
    return _with_diversity(guards, small.unflatten(0, pictures.shape[:2]).flatten(1), groups)


def level_db(waveform: Tensor) -> float:
    """Root mean square of a waveform [C, N], in dB against full scale, at least -120.

    >>> round(level_db(torch.full((1, 8), 0.1)), 3)
    -20.0
    """
    return float(10 * waveform.double().square().mean().clamp_min(1e-12).log10())


def silence(waveform: Tensor, sample_rate_hz: int) -> float:
    """The share of stretches of 20 ms of a waveform [C, N] below -60 dB; an incomplete last one counts too.

    >>> silence(torch.cat([torch.ones(1, 160), torch.zeros(1, 480)], dim=1), 8_000)
    0.75
    """
    length = max(1, round(STRETCH_S * sample_rate_hz))
    loud = [level_db(part) > SILENT_DB for part in waveform.split(length, dim=1)]
    return 1 - sum(loud) / len(loud)


def small_spectrogram(waveform: Tensor) -> Tensor:
    """Log magnitudes of a waveform [C, N], averaged to 24 bands by 16 times, flat [384]; in units of 20 dB.

    The mean of the channels, at any length and rate.
    """
    sound = waveform.float().mean(0)
    window = min(512, max(32, len(sound)))
    sound = torch.nn.functional.pad(sound, (0, max(0, window - len(sound))))
    spectrum = torch.stft(
        sound, window, window=torch.hann_window(window), pad_mode="constant",
        return_complex=True,
    )  # fmt: skip
    level = spectrum.abs().clamp_min(1e-3 * window**0.5).log10()
    return torch.nn.functional.adaptive_avg_pool2d(level[None], (BANDS, TIMES)).flatten()


def _sound_guards(sounds: Sequence[Audio], groups: Sequence[Hashable]) -> dict[str, float]:
    levels = [level_db(sound.waveform) for sound in sounds]
    silences = [silence(sound.waveform, sound.sample_rate_hz) for sound in sounds]
    guards = {"level_db": sum(levels) / len(levels), "silence": sum(silences) / len(silences)}
    return _with_diversity(
        guards, torch.stack([small_spectrogram(sound.waveform) for sound in sounds]), groups
    )


def _with_diversity(
    guards: dict[str, float], vectors: Tensor, groups: Sequence[Hashable]
) -> dict[str, float]:
    """The root mean square difference of vectors [B, D] inside a prompt's group, where one has two samples."""
    spread = diversity(vectors / vectors.shape[1] ** 0.5, groups)
    return guards if spread != spread else {**guards, "diversity": spread}


def _pictures(medium: Media) -> Tensor:
    """Frames or views [T, 3, H, W]."""
    if isinstance(medium, Video):
        return medium.frames
    views = medium.views if isinstance(medium, Scene3D) else None
    assert views is not None, "judged scenes have views"
    return views
