"""Small randomly weighted copies of transformers' own classes that generate media tokens."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    ByT5Tokenizer,
    CsmConfig,
    CsmForConditionalGeneration,
    DiaConfig,
    DiaForConditionalGeneration,
    JanusConfig,
    JanusForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    MusicgenConfig,
    MusicgenForConditionalGeneration,
    OPTConfig,
    OPTForCausalLM,
)

from mmalign.generators.token_causal import CausalTokens
from mmalign.generators.tokens import TokenGenerator

TEXT = 384  # entries of the byte tokenizer
CODES = 12
FIRST = 400  # id of code 0 in the language model
END = 399


def seeded(build: Callable[[], Any], *, spread: float = 4.0) -> Any:
    """A model of fixed random weights, large enough that its choices are neither even nor certain."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= spread
    return model.eval()


def llama(*, codebooks: int = 1) -> Any:
    config = LlamaConfig(
        vocab_size=FIRST + codebooks * CODES,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
    )
    return seeded(lambda: LlamaForCausalLM(config))


def opt() -> Any:
    """A language model whose positions are absolute, where rotary ones only know distances."""
    config = OPTConfig(
        vocab_size=FIRST + CODES,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    return seeded(lambda: OPTForCausalLM(config), spread=8.0)


def musicgen(*, audio_channels: int = 1) -> Any:
    config = MusicgenConfig(
        text_encoder={
            "model_type": "t5",
            "vocab_size": TEXT,
            "d_model": 20,
            "d_kv": 8,
            "d_ff": 24,
            "num_layers": 2,
            "num_heads": 2,
        },
        audio_encoder={
            "model_type": "encodec",
            "target_bandwidths": [2.4],
            "sampling_rate": 1600,
            "upsampling_ratios": [4, 4],
            "codebook_size": 64,
            "codebook_dim": 8,
            "hidden_size": 8,
            "num_filters": 4,
            "num_lstm_layers": 1,
        },
        decoder={
            "vocab_size": 64,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ffn_dim": 24,
            "num_codebooks": 4,
            "audio_channels": audio_channels,
            "pad_token_id": 64,
            "bos_token_id": 64,
        },
    )
    model = seeded(lambda: MusicgenForConditionalGeneration(config), spread=12.0)
    for name in ("pad_token_id", "bos_token_id", "decoder_start_token_id"):
        setattr(model.generation_config, name, 64)
    return model


def csm() -> Any:
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    config = CsmConfig(
        num_codebooks=4,
        vocab_size=11,
        text_vocab_size=TEXT,
        num_hidden_layers=2,
        max_position_embeddings=128,
        codebook_pad_token_id=10,
        codebook_eos_token_id=0,
        bos_token_id=1,
        pad_token_id=2,
        eos_token_id=None,
        rope_parameters=rope,
        depth_decoder_config={
            "num_codebooks": 4,
            "vocab_size": 11,
            "backbone_hidden_size": 16,
            "num_hidden_layers": 2,
            "max_position_embeddings": 8,
            "rope_parameters": rope,
            **sizes,
        },
        codec_config={
            "model_type": "mimi",
            "codebook_size": 16,
            "hidden_size": 8,
            "num_filters": 4,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 4,
            "intermediate_size": 8,
            "codebook_dim": 4,
            "vector_quantization_hidden_dimension": 4,
            "num_quantizers": 4,
            "num_semantic_quantizers": 1,
            "upsampling_ratios": [4, 2],
            "upsample_groups": 8,
        },
        **sizes,
    )
    return seeded(lambda: CsmForConditionalGeneration(config))


def dia() -> Any:
    heads = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 24,
    }
    config = DiaConfig(
        encoder_config={**heads, "num_hidden_layers": 1, "vocab_size": TEXT, "max_position_embeddings": 64},
        decoder_config={
            **heads,
            "num_hidden_layers": 2,
            "num_channels": 3,
            "vocab_size": 14,
            "eos_token_id": 11,
            "pad_token_id": 12,
            "bos_token_id": 13,
            "cross_hidden_size": 16,
            "cross_num_attention_heads": 2,
            "cross_head_dim": 8,
            "cross_num_key_value_heads": 2,
            "max_position_embeddings": 64,
        },
        delay_pattern=[0, 2, 3],
    )
    return seeded(lambda: DiaForConditionalGeneration(config))


def janus() -> Any:
    config = JanusConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": TEXT,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
        },
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 2,
            "projection_dim": 16,
            "mlp_ratio": 1.0,
            "depth": 1,
            "num_image_tokens": 16,
        },
        vq_config={
            "embed_dim": 4,
            "num_embeddings": 20,
            "latent_channels": 4,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "num_patches": 4,
            "projection_dim": 16,
            "image_token_embed_dim": 16,
            "num_groups": 4,
        },
        image_token_id=TEXT - 1,
    )
    model = seeded(lambda: JanusForConditionalGeneration(config), spread=12.0)
    model.generation_config.update(bos_token_id=3, pad_token_id=0, eos_token_id=1)
    model.generation_config.generation_kwargs = {"boi_token_id": 1}  # what the byte tokenizer writes last
    return model


def generator(kind: str) -> TokenGenerator:
    """A generator of each kind, by name."""
    tokenizer = ByT5Tokenizer()
    if kind in ("llama", "opt"):
        model = llama() if kind == "llama" else opt()
        return TokenGenerator(
            model, tokenizer, layout=CausalTokens(model, first_code=FIRST, codes=CODES, end_id=END)
        )
    if kind == "llama_codebooks":
        model = llama(codebooks=3)
        layout = CausalTokens(model, first_code=FIRST, codes=CODES, codebooks=3, end_id=END)
        return TokenGenerator(model, tokenizer, layout=layout)
    if kind == "musicgen_stereo":
        return TokenGenerator(musicgen(audio_channels=2), tokenizer)
    return TokenGenerator({"csm": csm, "dia": dia, "janus": janus, "musicgen": musicgen}[kind](), tokenizer)


KINDS = ["csm", "dia", "janus", "llama", "llama_codebooks", "musicgen", "musicgen_stereo", "opt"]
GUIDED = [kind for kind in KINDS if kind != "csm"]  # CSM has no unconditional branch
