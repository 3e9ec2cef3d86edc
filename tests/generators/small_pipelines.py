"""Small random pipelines of real classes, built from configs with no file and no network."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)


def clip_tokenizer(length: int = 16) -> CLIPTokenizer:
    """Every byte, inside a word and at its end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = alphabet + [f"{c}</w>" for c in alphabet] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={s: i for i, s in enumerate(symbols)}, merges=[], model_max_length=length)


def t5_tokenizer() -> T5Tokenizer:
    """A few whole words, and every letter; not learned, since learned pieces differ from one process to the next."""
    words = ["a", "small", "red", "circle", "on", "the", "left", "one", "large", "blue", "star", "at", "top"]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocab += [(f"▁{word}", -3.0) for word in words]
    vocab += [(chr(c), -12.0) for c in range(32, 127)]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=64)


def clip_encoder(tokenizer: CLIPTokenizer, cls: Any = CLIPTextModelWithProjection) -> Any:
    """A CLIP text tower of width 32."""
    return cls(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=32,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


def t5_encoder() -> T5EncoderModel:
    """A T5 encoder of width 32."""
    config = T5Config(
        vocab_size=200, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config).eval()


def vae(latent_channels: int, **options: Any) -> AutoencoderKL:
    """Two levels: one latent cell is two pixels wide."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=16,
        **options,
    ).eval()


def unet(**options: Any) -> UNet2DConditionModel:
    """A UNet of two levels with cross attention."""
    values: dict[str, Any] = dict(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    return UNet2DConditionModel(**{**values, **options}).eval()


def ddim(**options: Any) -> DDIMScheduler:
    """DDIM on Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **options,
    )


def stable_diffusion(**scheduler_options: Any) -> StableDiffusionPipeline:
    """UNet, epsilon, DDIM."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    return StableDiffusionPipeline(
        vae=vae(4),
        text_encoder=clip_encoder(tokenizer, CLIPTextModel),
        tokenizer=tokenizer,
        unet=unet(),
        scheduler=ddim(**scheduler_options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    """UNet with added conditions; its Euler scheduler holds latents in another scale than the denoiser sees."""
    torch.manual_seed(0)
    tokenizers = clip_tokenizer(), clip_tokenizer()
    return StableDiffusionXLPipeline(
        vae=vae(4),
        text_encoder=clip_encoder(tokenizers[0], CLIPTextModel),
        text_encoder_2=clip_encoder(tokenizers[1]),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet(
            cross_attention_dim=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=32 + 6 * 8,
            transformer_layers_per_block=(1, 1),
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    """MMDiT, rectified flow, two CLIP encoders and a T5."""
    torch.manual_seed(0)
    tokenizers = clip_tokenizer(), clip_tokenizer()
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=64,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            out_channels=4,
            pos_embed_max_size=8,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(4, shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_encoder(tokenizers[0]),
        tokenizer=tokenizers[0],
        text_encoder_2=clip_encoder(tokenizers[1]),
        tokenizer_2=tokenizers[1],
        text_encoder_3=t5_encoder_wide(),
        tokenizer_3=t5_tokenizer(),
    )


def t5_encoder_wide() -> T5EncoderModel:
    """A T5 encoder as wide as the two CLIP encoders together, or wider."""
    config = T5Config(
        vocab_size=200, d_model=64, d_kv=8, d_ff=37, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config).eval()


def flux(*, guidance_embeds: bool = False) -> FluxPipeline:
    """Packed latents, model time divided by 1000, no second branch."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guidance_embeds),
        vae=vae(4, shift_factor=0.1, scaling_factor=0.36, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_encoder(tokenizer, CLIPTextModel),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        ).eval(),
    )


PIPELINES = {
    "flux": flux,
    "flux-guidance": lambda: flux(guidance_embeds=True),
    "stable-diffusion": stable_diffusion,
    "stable-diffusion-3": stable_diffusion_3,
    "stable-diffusion-v": lambda: stable_diffusion(prediction_type="v_prediction"),
    "stable-diffusion-xl": stable_diffusion_xl,
}
