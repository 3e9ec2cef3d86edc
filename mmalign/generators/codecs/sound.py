"""Latents to sound and back: of a VAE that codes waveforms, or one that codes spectrograms beside a vocoder."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.generators.codecs.mel import log_mel
from mmalign.generators.codecs.vae import VAELatents
from mmalign.media import Modality


@dataclass(frozen=True, eq=False)
class SoundCodec(ABC):
    """Between the denoiser's latents and waveforms; ``decode`` and ``encode`` carry gradient.

    Args:
        latents: the VAE and how its latents are used.
        media_shape: (C, N) of one sample. The latents may reach further: pipelines draw whole latent cells, some
            always as many, and cut; ``encode`` fills the rest with silence.
        latent_shape: of one sample's latents, as the denoiser sees them.
    """

    latents: VAELatents
    media_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]

    modality: Modality = "audio"

    def given_to_decoder(self, latents: Tensor) -> Tensor:
        """What the VAE decodes for the denoiser's latents."""
        return self.latents.unpack(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Sound [B, C, N] in [-1, 1] of the denoiser's latents."""
        waveform = self.waveform(self.latents.decoded(self.given_to_decoder(latents)))
        return waveform[..., : self.media_shape[-1]].float().clamp(-1, 1)

    def encode(self, media: Tensor) -> Tensor:
        """The denoiser's latents, fp32, of sound [B, C, n], n at most what the latents hold.

        Raises:
            ShapeError: other channels, or longer than the latents.
        """
        if media.ndim != 3 or media.shape[1] != self.media_shape[0] or media.shape[2] > self.samples:
            raise ShapeError(
                f"encode: expected sound [B, {self.media_shape[0]}, N] with N at most {self.samples}, "
                f"got {list(media.shape)}"
            )
        padded = torch.nn.functional.pad(media, (0, self.samples - media.shape[2]))
        return self.latents.pack(self.latents.encoded(self.seen(padded)))

    @property
    @abstractmethod
    def samples(self) -> int:
        """How long a waveform the latents hold in all."""

    @abstractmethod
    def waveform(self, decoded: Tensor) -> Tensor:
        """[B, C, ``samples``], of what the VAE decoded."""

    @abstractmethod
    def seen(self, media: Tensor) -> Tensor:
        """What the VAE encodes for sound [B, C, ``samples``]."""


@dataclass(frozen=True, eq=False)
class WaveformCodec(SoundCodec):
    """Of a VAE that codes waveforms, as Stable Audio's does."""

    @property
    def samples(self) -> int:
        """Of whole latent cells."""
        return self.latents.packing.grid[-1] * int(self.latents.vae.hop_length)

    def waveform(self, decoded: Tensor) -> Tensor:
        """The VAE's own."""
        return decoded

    def seen(self, media: Tensor) -> Tensor:
        """The waveform itself."""
        return media


@dataclass(frozen=True, eq=False)
class SpectrogramCodec(SoundCodec):
    """Of a VAE that codes log-mel spectrograms [B, 1, frames, bands], as AudioLDM's do.

    Args:
        vocoder: spectrograms [B, frames, bands] to waveforms [B, N]; its configuration says how they were computed.
    """

    vocoder: Any = None

    @property
    def bands(self) -> int:
        """Of a spectrogram."""
        return int(self.vocoder.config.model_in_dim)

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return math.prod(self.vocoder.config.upsample_rates)

    @property
    def samples(self) -> int:
        """Of whole latent cells, which are as many frames long as they are bands high."""
        frames, bands = self.latents.packing.grid
        return frames * (self.bands // bands) * self.hop

    def waveform(self, decoded: Tensor) -> Tensor:
        """The vocoder's."""
        sound: Tensor = self.vocoder(decoded.squeeze(1))
        return sound.unsqueeze(1)

    def seen(self, media: Tensor) -> Tensor:
        """HiFi-GAN's log-mel spectrogram.

        Raises:
            ConfigError: the vocoder is of another class; nothing says which spectrogram it was trained on.
        """
        if type(self.vocoder).__name__ != "SpeechT5HifiGan":
            raise ConfigError(
                f"encode: no spectrogram is known for a vocoder of class {type(self.vocoder).__name__}; "
                "sounds can be drawn and decoded, but not encoded"
            )
        rate = int(self.vocoder.config.sampling_rate)
        mel = log_mel(media[:, 0].float(), sample_rate_hz=rate, hop=self.hop, bands=self.bands)
        return mel.unsqueeze(1)
