"""Small random pipelines of more real classes that draw pictures, each with something no other has."""

from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKLQwenImage,
    AutoencoderTiny,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    StableDiffusionPipeline,
)
from tokenizers import pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
)

from tests.generators.small_pipelines import ddim, stable_diffusion, t5_encoder, t5_tokenizer, vae


def tiny_autoencoder() -> StableDiffusionPipeline:
    """A VAE without a posterior."""
    pipeline = stable_diffusion()
    torch.manual_seed(0)
    pipeline.vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
        scaling_factor=0.9,
    ).eval()
    return pipeline


def pixart_transformer() -> PixArtTransformer2DModel:
    """Predicts a variance beside the noise."""
    return PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=24,
    ).eval()


def pixart(cls: Any, scheduler: Any) -> Any:
    """Alpha with the multistep solver that it ships with, or Sigma with DDIM."""
    torch.manual_seed(0)
    return cls(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae(4),
        transformer=pixart_transformer(),
        scheduler=scheduler,
    )


def gemma() -> Gemma2Model:
    """A decoder of width 16."""
    return Gemma2Model(
        Gemma2Config(
            vocab_size=200,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
        )
    ).eval()


def sana() -> SanaPipeline:
    """A deep-compression autoencoder; its own scheduler is a multistep solver of a flow."""
    torch.manual_seed(0)
    return SanaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=gemma(),
        vae=AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            scaling_factor=0.41407,
        ).eval(),
        transformer=SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=16,
            sample_size=8,
        ).eval(),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )


def lumina_2() -> Lumina2Pipeline:
    """The pipeline turns the network's output round, and its time runs from 0 to 1."""
    torch.manual_seed(0)
    return Lumina2Pipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=gemma(),
        vae=vae(4, shift_factor=0.1),
        transformer=Lumina2Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            hidden_size=16,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=2,
            multiple_of=16,
            axes_dim_rope=(4, 2, 2),
            axes_lens=(128, 16, 16),
            cap_feat_dim=16,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def aura_flow() -> AuraFlowPipeline:
    """Time from 1 to 0, prompts padded to a fixed length."""
    torch.manual_seed(0)
    return AuraFlowPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae(4),
        transformer=AuraFlowTransformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=32,
            pos_embed_max_size=64,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Every byte."""
    symbols = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    return Qwen2Tokenizer(vocab={s: i for i, s in enumerate(symbols)}, merges=[])


def qwen_image() -> QwenImagePipeline:
    """Pictures as videos of one frame, packed in patches; a vision-language model reads the prompts."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    language: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    pipeline = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[0.5, 1.5, 2.0, 1.0],
        ).eval(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=language, vision_config=vision)
        ).eval(),
        tokenizer=tokenizer,
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ).eval(),
    )
    pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx = "{}", 0
    return pipeline


SIZE = {"height": 16, "width": 16}
CLEAN = {"clean_caption": False, "use_resolution_binning": False}
PICTURE_PIPELINES: dict[str, Any] = {
    "aura-flow": (aura_flow, {**SIZE, "max_sequence_length": 16}),
    "lumina-2": (
        lumina_2,
        {
            "height": 32,
            "width": 32,
            "max_sequence_length": 16,
            "system_prompt": "draw",
            "cfg_normalization": False,
        },
    ),
    "pixart-alpha": (lambda: pixart(PixArtAlphaPipeline, DPMSolverMultistepScheduler()), {**SIZE, **CLEAN}),
    "pixart-sigma": (lambda: pixart(PixArtSigmaPipeline, ddim()), {**SIZE, **CLEAN}),
    "qwen-image": (qwen_image, SIZE),
    "sana": (sana, {"height": 32, "width": 32, **CLEAN, "complex_human_instruction": None}),
    "stable-diffusion-tiny-vae": (tiny_autoencoder, SIZE),
}
"""A builder, and the options of a run, by name."""
