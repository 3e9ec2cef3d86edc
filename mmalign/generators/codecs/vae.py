"""Between a denoiser's latents and what its VAE encodes to and decodes from: packing, and one mean and deviation."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmalign.generators.capture import prediction_of
from mmalign.generators.codecs.packing import Packing


def latent_moments(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a VAE's latents, [C] or scalars.

        mean = latents_mean, else shift_factor, else 0;  deviation = (latents_std, else 1) / (scaling_factor, else 1)

    This reads AutoencoderKL, AutoencoderTiny, AutoencoderDC and the VAEs of CogVideoX and HunyuanVideo, which have a
    scale; those of Wan and QwenImage, which have moments per channel; those of LTX and Mochi, which have both; and
    AutoencoderOobleck, which has neither. Whether a pipeline uses them so is checked at load.
    """

    def own(name: str) -> Any:
        """LTX keeps its moments as buffers and not in its config."""
        return (
            vae.get_buffer(name) if name in dict(vae.named_buffers(recurse=False)) else vae.config.get(name)
        )

    mean, std = own("latents_mean"), own("latents_std")
    if mean is None or std is None:
        mean, std = vae.config.get("shift_factor") or 0.0, 1.0
    scale = float(vae.config.get("scaling_factor") or 1.0)
    return torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(std, dtype=torch.float32) / scale


@dataclass(frozen=True, eq=False)
class VAELatents:
    """A VAE as its pipeline uses it.

    Args:
        vae: the pipeline's own.
        packing: of the denoiser's latents.
        extra: further tensors that its decoder is given, by name, for one sample (the time of LTX's decoder).
    """

    vae: Any
    packing: Packing
    extra: dict[str, Tensor] = field(default_factory=dict)

    def _moments(self, ndim: int) -> tuple[Tensor, Tensor]:
        mean, std = (moment.to(self.vae.device, self.vae.dtype) for moment in latent_moments(self.vae))
        return tuple(m.reshape(1, -1, *[1] * (ndim - 2)) for m in (mean, std))  # type: ignore[return-value]

    def unpack(self, latents: Tensor) -> Tensor:
        """What the decoder is given, [B, C, *grid] in the VAE's dtype, of the denoiser's latents."""
        unpacked = self.packing.unpack(latents.to(self.vae.device, self.vae.dtype))
        mean, std = self._moments(unpacked.ndim)
        return unpacked * std + mean

    def pack(self, encoded: Tensor) -> Tensor:
        """The denoiser's latents, fp32, of what the encoder gave."""
        mean, std = self._moments(encoded.ndim)
        return self.packing.pack((encoded - mean) / std).float()

    def decoded(self, unpacked: Tensor) -> Tensor:
        """What the decoder makes of ``unpack``'s result."""
        extra = {name: t.expand(len(unpacked), *t.shape[1:]) for name, t in self.extra.items()}
        return prediction_of(self.vae.decode(unpacked, **extra))

    def encoded(self, media: Tensor) -> Tensor:
        """The encoder's latents of what the VAE sees; of an encoder with a posterior, its mode."""
        output = self.vae.encode(media.to(self.vae.device, self.vae.dtype))
        posterior = getattr(output, "latent_dist", None)
        encoded: Tensor = prediction_of(output) if posterior is None else posterior.mode()
        return encoded
