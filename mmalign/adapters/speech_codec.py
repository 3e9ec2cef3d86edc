"""A codec small enough to read: a frame of speech is one of a few spectra, and Griffin-Lim finds the waveform."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.files import whole_file
from mmalign.media import Audio
from mmalign.weights import write_weights

SETTINGS_NAME, WEIGHTS_NAME = "codec.json", "codec.safetensors"
QUIETEST = 1e-5
"""Magnitude below which everything is silence: -100 dB of a full-scale band."""


@dataclass(frozen=True, kw_only=True)
class CodecSettings:
    """What a frame is.

    Args:
        sample_rate_hz: of the waveform.
        frames_per_second: tokens a second.
        bands: mel bands of a frame.
        window: samples that a frame looks at.
        iterations: of Griffin-Lim.

    Raises:
        ConfigError: frames that are no whole number of samples, or that leave samples out.
    """

    sample_rate_hz: int = 16_000
    frames_per_second: int = 40
    bands: int = 64
    window: int = 1024
    iterations: int = 60

    def __post_init__(self) -> None:
        if self.sample_rate_hz % self.frames_per_second or self.hop > self.window:
            raise ConfigError(
                f"{self.frames_per_second} frames a second at {self.sample_rate_hz} Hz: expected a whole number of "
                f"samples a frame, at most window = {self.window}"
            )

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.sample_rate_hz // self.frames_per_second


class SpeechCodec:
    """Whole frames of log-mel bands, each the nearest of some centroids.

    Args:
        centroids: [V, bands], log magnitudes.
        settings: of the frames.

    Raises:
        ShapeError: the centroids have another number of bands.
    """

    def __init__(self, centroids: Tensor, settings: CodecSettings | None = None) -> None:
        self.settings = settings or CodecSettings()
        if centroids.ndim != 2 or centroids.shape[1] != self.settings.bands:
            raise ShapeError(f"centroids: expected [V, {self.settings.bands}], got {list(centroids.shape)}")
        self.centroids = centroids.float().cpu()
        self._filters = mel_filters(self.settings)
        # Few bands cannot say all frequencies; the pseudo-inverse gives the smallest spectrum that has these bands.
        self._inverse = torch.linalg.pinv(self._filters.double()).float()

    @classmethod
    def fit(
        cls,
        sounds: Sequence[Audio],
        *,
        codes: int = 512,
        seed: int = 0,
        settings: CodecSettings | None = None,
    ) -> "SpeechCodec":
        """Find the centroids of some speech by k-means.

        Args:
            sounds: mono, at the settings' rate.
            codes: V.
            seed: of the frames that the search begins with.
            settings: of the frames.

        Raises:
            ConfigError: there are fewer different frames than codes.
        """
        settings = settings or CodecSettings()
        frames = torch.cat([log_mel(sound, settings) for sound in sounds])
        return cls(k_means(frames, codes, seed=seed), settings)

    @property
    def codes(self) -> int:
        """V."""
        return len(self.centroids)

    def encode(self, sound: Audio) -> Tensor:
        """Tokens [T] of a mono sound, the nearest centroid of each frame; T = N // hop + 1.

        Raises:
            ConfigError: the sound has another rate or several channels.
        """
        return torch.cdist(log_mel(sound, self.settings), self.centroids).argmin(1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Waveform [1, N] in [-1, 1] of tokens [T]; N = (T - 1) * hop, and one frame of silence for fewer than two.

        The phase begins at zero, so that equal tokens are equal sound.

        Raises:
            ConfigError: a token is none of the codes.

        Source: Griffin and Lim 1984, Signal Estimation from Modified Short-Time Fourier Transform, section III.
        """
        from torchaudio.functional import griffinlim

        tokens = tokens.cpu()
        if len(tokens) and not (int(tokens.min()) >= 0 and int(tokens.max()) < self.codes):
            raise ConfigError(
                f"tokens: expected 0 to {self.codes - 1}, got {int(tokens.min())} to {int(tokens.max())}"
            )
        settings, length = self.settings, (len(tokens) - 1) * self.settings.hop
        if length < 1:
            return torch.zeros(1, settings.hop)
        # Griffin-Lim mirrors half a window at either end, so the last frame of a very short sound is held that long.
        held = max(0, settings.window // (2 * settings.hop) + 2 - len(tokens))
        tokens = torch.cat([tokens, tokens[-1:].expand(held)])
        magnitude = (self.centroids[tokens].exp() @ self._inverse).clamp_min(0)
        waveform: Tensor = griffinlim(
            magnitude.T[None],
            window=torch.hann_window(settings.window),
            n_fft=settings.window,
            hop_length=settings.hop,
            win_length=settings.window,
            power=1.0,
            n_iter=settings.iterations,
            momentum=0.99,
            length=(len(tokens) - 1) * settings.hop,
            rand_init=False,
        )
        return waveform[:, :length].clamp(-1, 1)

    def save(self, folder: Path) -> None:
        """Write ``codec.json`` and ``codec.safetensors``."""
        with whole_file(folder / SETTINGS_NAME) as unfinished:
            unfinished.write_text(json.dumps(asdict(self.settings), indent=2) + "\n")
        write_weights(folder / WEIGHTS_NAME, {"centroids": self.centroids})

    @classmethod
    def load(cls, folder: Path) -> "SpeechCodec":
        """Read what ``save`` wrote.

        Raises:
            ConfigError: a file is missing or is no such file.
        """
        try:
            settings = CodecSettings(**json.loads((folder / SETTINGS_NAME).read_text()))
            return cls(load_file(folder / WEIGHTS_NAME)["centroids"], settings)
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise ConfigError(f"{folder}: no speech codec that can be read ({error})") from None


def mel_filters(settings: CodecSettings) -> Tensor:
    """Weights [F, bands] of the frequencies F = window / 2 + 1 in each mel band."""
    from torchaudio.functional import melscale_fbanks

    filters: Tensor = melscale_fbanks(
        n_freqs=settings.window // 2 + 1,
        f_min=0.0,
        f_max=settings.sample_rate_hz / 2,
        n_mels=settings.bands,
        sample_rate=settings.sample_rate_hz,
        norm=None,
        mel_scale="htk",
    )
    return filters


def log_mel(sound: Audio, settings: CodecSettings) -> Tensor:
    """Logarithms [T, bands] of the magnitudes in each band and frame; T = N // hop + 1.

    Raises:
        ConfigError: the sound has another rate or several channels.
    """
    waveform = sound.at(settings.sample_rate_hz, channels=1).waveform[0].float().cpu()
    spectrum = torch.stft(
        waveform,
        settings.window,
        settings.hop,
        window=torch.hann_window(settings.window),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    return (spectrum.abs().T @ mel_filters(settings)).clamp_min(QUIETEST).log()


def k_means(points: Tensor, count: int, *, seed: int, iterations: int = 50) -> Tensor:
    """Centroids [count, D] of points [N, D] by Lloyd's algorithm; one without points moves to the farthest point.

    Raises:
        ConfigError: there are fewer different points than centroids.
    """
    different = points.unique(dim=0)
    if len(different) < count:
        raise ConfigError(f"{count} codes, but there are {len(different)} different frames; give more sound")
    random = torch.Generator().manual_seed(seed)
    centroids = different[torch.randperm(len(different), generator=random)[:count]]
    owner = torch.full((len(points),), -1)
    for _ in range(iterations):
        distance, nearest = torch.cdist(points, centroids).min(1)
        if (nearest == owner).all():
            break
        owner = nearest
        size = owner.bincount(minlength=count)
        centroids = torch.zeros_like(centroids).index_add_(0, owner, points) / size.clamp_min(1)[:, None]
        lost = (size == 0).nonzero()[:, 0]
        if len(lost):
            centroids[lost] = points[distance.topk(len(lost)).indices]
    return centroids
