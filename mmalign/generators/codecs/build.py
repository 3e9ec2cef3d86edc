"""Finds out how a pipeline decodes, from what its decoder was given in a captured run and what came out."""

import math
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import UnsupportedPipelineError
from mmalign.generators.capture import DecoderCall
from mmalign.generators.codecs.packing import possible_packings
from mmalign.generators.codecs.sound import SpectrogramCodec, WaveformCodec
from mmalign.generators.codecs.vae import VAELatents
from mmalign.generators.codecs.visual import VisualCodec

Codec = VisualCodec | SpectrogramCodec | WaveformCodec


def decodes(pipeline: Any) -> Any:
    """The pipeline's VAE.

    Raises:
        UnsupportedPipelineError: it has none that both encodes and decodes.
    """
    vae = getattr(pipeline, "vae", None)
    if not hasattr(vae, "decode") or not hasattr(vae, "encode"):
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} has no VAE that encodes and decodes (vae: {type(vae).__name__})"
        )
    return vae


@torch.no_grad()
def build_codec(
    pipeline: Any, *, latents: Tensor, media: Tensor, calls: list[DecoderCall]
) -> tuple[Codec, float]:
    """The codec of a pipeline.

    Args:
        pipeline: whose VAE it is.
        latents: [B, ...], what the scheduler ended with.
        media: what the pipeline returned, as ``media_of`` gives it.
        calls: what its VAE decoded in between.

    Returns:
        The codec, and how far what it gives the decoder is from what the pipeline gave it, relative to the largest.

    Raises:
        UnsupportedPipelineError: the latents are no packing of the decoder's that we know.
    """
    if not calls:
        raise UnsupportedPipelineError(f"{type(pipeline).__name__} does not call vae.decode")
    vae, given = decodes(pipeline), torch.cat([call.latents for call in calls])
    unpacked = tuple(given.shape[1:])
    if media.ndim == 5 and given.ndim == 4:  # frame by frame
        unpacked = (unpacked[0], len(given) // len(media), *unpacked[1:])
    extra = {name: tensor[:1] for name, tensor in calls[0].extra.items()}
    media_shape, latent_shape = tuple(media.shape[1:]), tuple(latents.shape[1:])

    def codec(form: VAELatents) -> Codec:
        if media.ndim >= 4:
            return VisualCodec(form, media_shape, latent_shape, sees_time=given.ndim == 5)
        if hasattr(pipeline, "vocoder"):
            return SpectrogramCodec(form, media_shape, latent_shape, vocoder=pipeline.vocoder)
        return WaveformCodec(form, media_shape, latent_shape)

    def error(codec: Codec) -> float:
        ours = codec.given_to_decoder(latents)
        if ours.shape != given.shape:
            return math.inf
        return float((ours - given).abs().max() / given.abs().max())

    found = [codec(VAELatents(vae, p, extra)) for p in possible_packings(latent_shape, unpacked)]
    best = min(found, key=error)
    return best, error(best)
