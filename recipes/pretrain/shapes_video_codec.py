"""The VAE of ``embedded/shapes-video``: an AutoencoderKLLTXVideo that begins as a principal component analysis.

Trained from random weights it drew nothing but the background for 500 steps, and after 1,000 a dark blot where the
shape is. So its weights are computed first: the encoder gives the leading components of small patches, then of blocks
of 2 x 2 x 2 of those, twice, and the decoder is the transpose, blurred but right in place and colour. Then both are
trained; what their residual blocks add begins at zero.

Both ends have a norm over channels and a SiLU, which a large offset of all channels makes as good as linear:

    silu((K + p) / rms(K + p)) ~ silu(1) + silu'(1) (p - mean p) / K
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor, nn

CHANNELS = 48
"""Of the latents."""
ENCODER_WIDTH, MIDDLE_WIDTH = 56, 36
PATCH_PARTS, BLOCK_PARTS = 24, 32
"""Components kept of a patch of 4 x 4 pixels and of a block of 2 x 2 x 2 patches; the last are ``CHANNELS``."""
PATCH = 4
BACKGROUND = 0.86
"""The world's mean one, in [-1, 1]."""
ENCODER_OFFSET, DECODER_OFFSET = 30.0, 12.0
"""K: a few times the components; more would cost digits in sixteen bits."""
LOG_VARIANCE = -4.0
SILU_SLOPE = 0.9277
"""silu'(1)."""


@dataclass(frozen=True)
class Components:
    """Orthonormal columns: [48, 24] of patches, [192, 32] of blocks of them, [256, 48] of blocks of those."""

    patch: Tensor
    block: Tensor
    whole: Tensor


def as_patches(videos: Tensor) -> Tensor:
    """[B, 3, T, H, W] to [B, 48, T, H / 4, W / 4], in LTX's order: channel, column, row."""
    return (
        videos.unflatten(4, (-1, PATCH)).unflatten(3, (-1, PATCH)).permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)
    )


def as_blocks(cells: Tensor) -> Tensor:
    """[B, C, T, H, W] to [B, 8 C, (T + 1) / 2, H / 2, W / 2]; the first frame counts twice, as the encoder pads it."""
    cells = torch.cat([cells[:, :, :1], cells], 2)
    cells = cells.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return cells.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def leading(cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The leading components [C, count] of cells [B, C, T, H, W], and the cells in them."""
    flat = cells.movedim(1, -1).flatten(0, -2).double()
    _, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    found = vectors.flip(1)[:, :count].float()
    return found, torch.einsum("bcthw,cq->bqthw", cells, found)


def components(videos: Tensor) -> Components:
    """Of videos [B, 3, T, H, W] in [-1, 1]."""
    patch, cells = leading(as_patches(videos - BACKGROUND), PATCH_PARTS)
    block, cells = leading(as_blocks(cells), BLOCK_PARTS)
    whole, _ = leading(as_blocks(cells), CHANNELS)
    return Components(patch, block, whole)


def build_vae() -> AutoencoderKLLTXVideo:
    """Untrained, of videos of 9 x 32 x 32 to latents of 3 x 2 x 2; wide enough for all components and a constant."""
    return AutoencoderKLLTXVideo(
        latent_channels=CHANNELS,
        block_out_channels=(ENCODER_WIDTH, ENCODER_WIDTH),
        down_block_types=("LTXVideoDownBlock3D",) * 2,
        downsample_type=("conv",) * 2,
        layers_per_block=(0, 1, 1),
        spatio_temporal_scaling=(True, True),
        decoder_block_out_channels=(MIDDLE_WIDTH, 2 * MIDDLE_WIDTH),
        decoder_layers_per_block=(1, 2, 0),
        decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False,) * 3,
        upsample_residual=(False, False),
        upsample_factor=(1, 2),
        patch_size=PATCH,
    )


@torch.no_grad()
def set_encoder(vae: AutoencoderKLLTXVideo, found: Components) -> None:
    """Make the encoder begin with the components, and give a small constant variance."""
    encoder = vae.encoder
    first = _zeroed(encoder.conv_in.conv)
    # The last of three frames, the others being padding and the past; the middle of 3 x 3 pixels.
    first.weight[:PATCH_PARTS, :, 2, 1, 1] = found.patch.T
    first.bias[:PATCH_PARTS] = -BACKGROUND * found.patch.sum(0)
    for block, parts in zip(encoder.down_blocks, (found.block, found.whole), strict=True):
        for resnet in block.resnets:
            _zeroed(resnet.conv2.conv)
        down = _zeroed(block.downsamplers[0].conv)
        inside = parts.T.unflatten(1, (-1, 2, 2, 2))
        down.weight[: inside.shape[0], : inside.shape[1], 1:, 1:, 1:] = inside
    for resnet in encoder.mid_block.resnets:
        _zeroed(resnet.conv2.conv)
    encoder.mid_block.resnets[-1].conv2.conv.bias.fill_(ENCODER_OFFSET)
    last = _zeroed(encoder.conv_out.conv)
    _read_offset(last.weight[:CHANNELS, :, 2, 1, 1], torch.eye(CHANNELS), offset=ENCODER_OFFSET)
    last.bias[CHANNELS] = LOG_VARIANCE


@torch.no_grad()
def set_decoder(vae: AutoencoderKLLTXVideo, found: Components) -> None:
    """Make the decoder begin as the transpose of the encoder; its channels to spare are constant."""
    decoder = vae.decoder
    first = _zeroed(decoder.conv_in.conv)
    first.weight[:CHANNELS, :, 1, 1, 1] = torch.eye(CHANNELS)
    for block, parts, kept in zip(
        decoder.up_blocks, (found.whole, found.block), (BLOCK_PARTS, PATCH_PARTS), strict=True
    ):
        up = _zeroed(block.upsamplers[0].conv.conv)
        up.weight[: 8 * kept, : parts.shape[1], 1, 1, 1] = parts
        up.bias[8 * kept :] = 1.0
        for resnet in block.resnets:
            _zeroed(resnet.conv2.conv)
    offset = decoder.up_blocks[-1].resnets[-1].conv2.conv.bias.fill_(DECODER_OFFSET)
    offset[PATCH_PARTS:] -= 1.0
    last = _zeroed(decoder.conv_out.conv)
    _read_offset(last.weight[:, :, 1, 1, 1], found.patch, offset=DECODER_OFFSET)
    last.bias.fill_(BACKGROUND)


def trained_parts(vae: AutoencoderKLLTXVideo) -> nn.ModuleList:
    """All but the two ends: a small step of weights that see the offset is a large one."""
    encoder, decoder = vae.encoder, vae.decoder
    return nn.ModuleList(
        [encoder.conv_in, encoder.down_blocks, encoder.mid_block, decoder.conv_in, decoder.up_blocks]
    )


def _zeroed(conv: Any) -> Any:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _read_offset(weight: Tensor, mixed: Tensor, *, offset: float) -> None:
    """Let [O, C] weights read p of silu((offset + p) / rms), mixed by [O, P]: less the channels where p is 0."""
    parts, scale = mixed.shape[1], offset / SILU_SLOPE
    weight[:, :parts] = scale * mixed
    weight[:, parts:] = -scale * mixed.sum(1, keepdim=True) / (weight.shape[1] - parts)
