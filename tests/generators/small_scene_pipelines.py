"""A small random pipeline of a real class that makes scenes."""

import torch
from diffusers import HeunDiscreteScheduler, PriorTransformer, ShapEPipeline
from diffusers.pipelines.shap_e import ShapERenderer

from tests.generators.small_pipelines import clip_encoder, clip_tokenizer


def shap_e() -> ShapEPipeline:
    """Latents are the weights of a radiance field, which a renderer without gradient and without inverse shows."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    return ShapEPipeline(
        prior=PriorTransformer(
            num_attention_heads=2,
            attention_head_dim=16,
            embedding_dim=16,
            num_embeddings=32,
            embedding_proj_dim=32,
            time_embed_dim=64,
            num_layers=1,
            clip_embed_dim=32,
            additional_embeddings=0,
            time_embed_act_fn="gelu",
            norm_in_type="layer",
            encoder_hid_proj_type=None,
            added_emb_type=None,
        ).eval(),
        text_encoder=clip_encoder(tokenizer),
        tokenizer=tokenizer,
        scheduler=HeunDiscreteScheduler(
            beta_schedule="exp", prediction_type="sample", use_karras_sigmas=True
        ),
        shap_e_renderer=ShapERenderer(
            param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)),
            d_latent=16,
            d_hidden=8,
            n_output=12,
            background=(0.1, 0.1, 0.1),
        ).eval(),
    )
