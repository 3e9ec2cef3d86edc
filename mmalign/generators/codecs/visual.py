"""Latents to pictures or videos and back."""

from dataclasses import dataclass

from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.generators.codecs.vae import VAELatents
from mmalign.media import Modality


@dataclass(frozen=True, eq=False)
class VisualCodec:
    """Between the denoiser's latents and pixels; ``decode`` and ``encode`` carry gradient.

    Args:
        latents: the VAE and how its latents are used.
        media_shape: of one sample, (3, H, W) or (T, 3, H, W).
        latent_shape: of one sample's latents, as the denoiser sees them.
        sees_time: whether the VAE takes [B, 3, T, H, W] rather than pictures. One that does takes a picture as a
            video of one frame; one that does not takes a video frame by frame.
    """

    latents: VAELatents
    media_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]
    sees_time: bool

    @property
    def modality(self) -> Modality:
        """What is decoded."""
        return "video" if len(self.media_shape) == 4 else "image"

    def given_to_decoder(self, latents: Tensor) -> Tensor:
        """What the VAE decodes for the denoiser's latents."""
        unpacked = self.latents.unpack(latents)
        return unpacked.transpose(1, 2).flatten(0, 1) if self._frame_by_frame else unpacked

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] or videos [B, T, 3, H, W] in [0, 1] of the denoiser's latents."""
        decoded = self.latents.decoded(self.given_to_decoder(latents))
        pixels = (decoded.float() / 2 + 0.5).clamp(0, 1)
        if self._frame_by_frame:
            return pixels.unflatten(0, (len(latents), -1))
        if not self.sees_time:
            return pixels
        return pixels.transpose(1, 2) if self.modality == "video" else pixels[:, :, 0]

    def encode(self, media: Tensor) -> Tensor:
        """The denoiser's latents, fp32, of pictures or videos as ``decode`` gives them.

        Raises:
            ShapeError: pictures where videos are wanted, or the other way round.
        """
        if media.ndim != len(self.media_shape) + 1:
            wanted = ", ".join(str(n) for n in self.media_shape)
            raise ShapeError(f"encode: expected a {self.modality} [B, {wanted}], got {list(media.shape)}")
        pixels = 2 * media - 1
        if self._frame_by_frame:
            encoded = self.latents.encoded(pixels.flatten(0, 1))
            return self.latents.pack(encoded.unflatten(0, (len(media), -1)).transpose(1, 2))
        if self.sees_time:
            pixels = pixels.transpose(1, 2) if self.modality == "video" else pixels.unsqueeze(2)
        return self.latents.pack(self.latents.encoded(pixels))

    @property
    def _frame_by_frame(self) -> bool:
        return self.modality == "video" and not self.sees_time
