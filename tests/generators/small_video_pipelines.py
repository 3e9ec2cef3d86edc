"""Small random pipelines of real classes that make videos."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LattePipeline,
    LatteTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import CLIPTextModel, LlamaConfig, LlamaModel

from tests.generators.small_pipelines import clip_encoder, clip_tokenizer, ddim, t5_encoder, t5_tokenizer, vae


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


def wan(*, denoisers: int = 1) -> WanPipeline:
    """Its own scheduler is a multistep solver of a flow; the larger Wan 2.2 have a second denoiser for little noise."""
    torch.manual_seed(0)
    return WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=wan_vae(),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
        ),
        transformer=wan_transformer(),
        transformer_2=wan_transformer() if denoisers == 2 else None,
        boundary_ratio=0.875 if denoisers == 2 else None,
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


def hunyuan_video() -> HunyuanVideoPipeline:
    """Guidance as an argument of the network; a language model and a CLIP read the prompts."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(77)
    language = LlamaConfig(
        vocab_size=200,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
    )
    return HunyuanVideoPipeline(
        text_encoder=LlamaModel(language).eval(),
        tokenizer=t5_tokenizer(),
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=1,
            patch_size_t=1,
            guidance_embeds=True,
            text_embed_dim=16,
            pooled_projection_dim=32,
            rope_axes_dim=(2, 4, 4),
        ).eval(),
        vae=AutoencoderKLHunyuanVideo(
            latent_channels=4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            scaling_factor=0.476986,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=clip_encoder(tokenizer, CLIPTextModel),
        tokenizer_2=tokenizer,
    )


def latte() -> LattePipeline:
    """A VAE of pictures decodes frame by frame, some at a time; a variance is predicted and left out."""
    torch.manual_seed(0)
    return LattePipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae(4),
        transformer=LatteTransformer3DModel(
            sample_size=8,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            caption_channels=32,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=24,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            video_length=3,
        ).eval(),
        scheduler=ddim(),
    )


def mochi() -> MochiPipeline:
    """Its time runs backwards: the scheduler's sigma is the share of the clean latents."""
    torch.manual_seed(0)
    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=AutoencoderKLMochi(
            latent_channels=12,
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
            add_attention_block=(False, False, False, False, False),
        ).eval(),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        transformer=MochiTransformer3DModel(
            patch_size=2,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            in_channels=12,
            text_embed_dim=32,
            time_embed_dim=4,
            max_sequence_length=16,
        ).eval(),
    )


VIDEO_PIPELINES: dict[str, Any] = {
    "cogvideox": (cogvideox, {"height": 16, "width": 16, "num_frames": 8, "max_sequence_length": 16}),
    "hunyuan-video": (
        hunyuan_video,
        {
            "height": 16,
            "width": 16,
            "num_frames": 5,
            "max_sequence_length": 16,
            "prompt_template": {"template": "{}", "crop_start": 0},
        },
    ),
    "latte": (
        latte,
        {"height": 16, "width": 16, "video_length": 3, "decode_chunk_size": 4, "clean_caption": False},
    ),
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
    "mochi": (mochi, {"height": 16, "width": 16, "num_frames": 7, "max_sequence_length": 16}),
    "wan": (wan, {"height": 16, "width": 16, "num_frames": 9, "max_sequence_length": 16}),
}
"""A builder, and the options of a run, by name."""
