"""Sound: a waveform in [-1, 1] with its rate; speech is sound that also knows its words and its voice."""

from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from typing import ClassVar, Self

from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.files import whole_file
from mmalign.media import sound_files
from mmalign.media.checks import MAX_SOUND_VALUES, Modality, check_values, to_16_bits
from mmalign.media.reading import check_suffix, reading
from mmalign.suffixes import AUDIO_SUFFIXES as AUDIO_SUFFIXES

MAX_CHANNELS = 32
LARGEST_KERNEL = 2**24
"""Entries of a resampling filter: 64 MB. Rates that share a divisor, as all usual ones do, need far fewer."""


@dataclass(frozen=True, eq=False)
class Audio:
    """A sound.

    Args:
        waveform: [C, N] in [-1, 1], C channels of N samples.
        sample_rate_hz: samples per second and channel, a whole number.

    Raises:
        ShapeError: ``waveform`` is not [C, N], is empty, has its axes swapped, or is in another unit.
        NonFiniteError: a sample is NaN or infinite.
        ConfigError: the rate is no positive whole number.
    """

    modality: ClassVar[Modality] = "audio"

    waveform: Tensor
    sample_rate_hz: int

    def __post_init__(self) -> None:
        check_values("waveform", self.waveform, "C, N", low=-1.0)
        channels, samples = self.waveform.shape
        if channels > MAX_CHANNELS:
            raise ShapeError(
                f"waveform: expected [C, N] with at most {MAX_CHANNELS} channels, got [{channels}, {samples}]; "
                "is it transposed?"
            )
        if not isinstance(self.sample_rate_hz, int) or self.sample_rate_hz < 1:
            raise ConfigError(f"sample_rate_hz = {self.sample_rate_hz!r}, expected a positive whole number")

    @property
    def duration_s(self) -> float:
        """Seconds: N / sample_rate_hz."""
        return self.waveform.shape[1] / self.sample_rate_hz

    def mono(self) -> Self:
        """The mean of the channels, as one channel."""
        return replace(self, waveform=self.waveform.mean(0, keepdim=True))

    def resampled(self, sample_rate_hz: int) -> Self:
        """The same sound at another rate, band-limited (windowed sinc); differentiable, and N scales with the rate.

        Raises:
            ConfigError: the two rates share no divisor that a filter of moderate size could use.
        """
        if sample_rate_hz == self.sample_rate_hz:
            return self
        divisor = gcd(sample_rate_hz, self.sample_rate_hz)
        if (sample_rate_hz // divisor) * (self.sample_rate_hz // divisor) > LARGEST_KERNEL:
            raise ConfigError(
                f"{self.sample_rate_hz} Hz cannot become {sample_rate_hz} Hz with a filter of moderate size; choose a "
                "rate that shares a divisor with it"
            )
        from torchaudio.functional import resample

        waveform = resample(self.waveform, self.sample_rate_hz, sample_rate_hz)
        return replace(self, waveform=waveform, sample_rate_hz=sample_rate_hz)

    def at(
        self,
        sample_rate_hz: int,
        *,
        channels: int | None = None,
        samples: int | None = None,
        resample: bool = False,
    ) -> Self:
        """This sound, if it is what somebody asks for.

        >>> import torch
        >>> Audio(torch.zeros(1, 8_000), 8_000).at(16_000, resample=True).waveform.shape
        torch.Size([1, 16000])

        Args:
            sample_rate_hz: the rate that is wanted.
            channels: C that is wanted; None for any.
            samples: N that is wanted, at the wanted rate; None for any.
            resample: convert another rate; otherwise it is refused.

        Raises:
            ConfigError: rate, channels or length differ; the message has both numbers.
        """
        if sample_rate_hz != self.sample_rate_hz and not resample:
            raise ConfigError(
                f"sample_rate_hz = {self.sample_rate_hz}, but {sample_rate_hz} is wanted; resample=True converts it"
            )
        sound = self.resampled(sample_rate_hz)
        found = tuple(sound.waveform.shape)
        if channels not in (None, found[0]):
            raise ConfigError(
                f"the sound has {found[0]} channels, but {channels} are wanted; .mono() makes one"
            )
        if samples not in (None, found[1]):
            raise ConfigError(
                f"the sound has {found[1]} samples at {sample_rate_hz} Hz, but {samples} are wanted; cut or pad it"
            )
        return sound

    def save(self, path: Path | str) -> None:
        """Write the sound, whole or not at all; the suffix names the format: .wav and .flac keep 16 bits exactly.

        Raises:
            ConfigError: no sound format has this suffix, or it cannot hold this rate or so many channels.
        """
        suffix = check_suffix(path, AUDIO_SUFFIXES, "sound")
        with whole_file(path) as unfinished:
            sound_files.write(unfinished, suffix, to_16_bits(self.waveform), self.sample_rate_hz)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        sample_rate_hz: int | None = None,
        resample: bool = False,
        max_samples: int = MAX_SOUND_VALUES,
    ) -> Self:
        """Read a whole sound, all its channels.

        Args:
            path: the content names the format, not the suffix.
            sample_rate_hz: the rate that is wanted; None for the file's own.
            resample: convert another rate; otherwise it is refused.
            max_samples: C x N above which a file is refused.

        Raises:
            DataError: the file is missing, is no sound, is empty, ends too early, is too long, has NaN in it, or has
                another rate.
        """
        with reading(path, "sound"):
            waveform, rate = sound_files.read(Path(path), max_samples=max_samples)
            check_values("waveform", waveform, "C, N", low=-1.0)
            # What lies above 1 is heard cut off: decoders of lossy formats overshoot, and so do files of fractions.
            sound = cls(waveform.clamp_(-1, 1), rate)
            return sound if sample_rate_hz is None else sound.at(sample_rate_hz, resample=resample)


@dataclass(frozen=True, eq=False)
class Speech(Audio):
    """Somebody, or something, speaking; whatever takes sound takes speech.

    Args:
        transcript: the words that were said or were to be said; None where they are not known.
        voice: the name of the voice.
    """

    modality: ClassVar[Modality] = "speech"

    transcript: str | None = None
    voice: str | None = None
