"""Small random pipelines of real classes that make videos."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)

from tests.generators.small_pipelines import t5_encoder, t5_tokenizer


def wan_transformer() -> WanTransformer3DModel:
    """Patches of 2 x 2 latent cells, made inside the model."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=32,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    ).eval()


def wan_vae() -> AutoencoderKLWan:
    """A mean and a deviation for each channel; one latent cell is 8 x 8 pixels and, after the first, 4 frames."""
    return AutoencoderKLWan(
        base_dim=3,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.5, 2.0, 1.0],
    ).eval()


def wan(*, scheduler: Any = None) -> WanPipeline:
    """Its own scheduler is a multistep solver of a flow."""
    torch.manual_seed(0)
    return WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=wan_vae(),
        scheduler=scheduler
        or UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
        ),
        transformer=wan_transformer(),
    )


def ltx(*, timestep_conditioning: bool = False) -> LTXPipeline:
    """Latents as a sequence; its decoder may be told a time."""
    torch.manual_seed(0)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False, False, False, False, False),
        upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=timestep_conditioning,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    ).eval()
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, 8))
    vae.latents_std.copy_(torch.linspace(0.5, 2.0, 8))
    return LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1
        ),
        vae=vae,
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        transformer=LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            patch_size=1,
            patch_size_t=1,
            num_attention_heads=4,
            attention_head_dim=8,
            cross_attention_dim=32,
            num_layers=1,
            caption_channels=32,
        ).eval(),
    )


def cogvideox() -> CogVideoXPipeline:
    """Latents with the frames before the channels; velocity prediction of a schedule that ends in pure noise."""
    torch.manual_seed(0)
    return CogVideoXPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
            scaling_factor=0.7,
        ).eval(),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            time_embed_dim=2,
            text_embed_dim=32,
            num_layers=1,
            sample_width=2,
            sample_height=2,
            sample_frames=9,
            patch_size=2,
            temporal_compression_ratio=4,
            max_text_seq_length=16,
        ).eval(),
        scheduler=CogVideoXDDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            snr_shift_scale=3.0,
            rescale_betas_zero_snr=True,
            set_alpha_to_one=True,
            clip_sample=False,
        ),
    )


VIDEO_PIPELINES = {
    "cogvideox": (cogvideox, {"height": 16, "width": 16, "num_frames": 8, "max_sequence_length": 16}),
    "ltx": (ltx, {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 16}),
    "ltx-timed": (
        lambda: ltx(timestep_conditioning=True),
        {
            "height": 32,
            "width": 32,
            "num_frames": 9,
            "max_sequence_length": 16,
            "decode_timestep": 0.05,
            "decode_noise_scale": 0.025,
        },
    ),
    "wan": (wan, {"height": 16, "width": 16, "num_frames": 9, "max_sequence_length": 16}),
}
"""A builder, and the options of a run, by name."""
