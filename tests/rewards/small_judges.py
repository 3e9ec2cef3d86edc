"""Small judges of random weights, of the classes that large ones are: Llava, Qwen2-VL and Qwen2-Audio."""

import re
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    WhisperFeatureExtractor,
)

from mmalign.rewards import vlm_questions

WORDS = sorted(
    {
        word
        for name, text in vars(vlm_questions).items()
        if name.isupper()
        for word in re.findall(r"[a-z]+|[0-9]|[^\w\s]", str(text).lower())
    }
    | {
        *"0123456789",
        "yes",
        "no",
        "red",
        "blue",
        "circle",
        "star",
        "on",
        "left",
        "right",
        "small",
        "large",
        "and",
    }
)
TEMPLATE = (
    "{{% for message in messages %}}<|{{{{ message['role'] }}}}|>"
    "{{% for part in message['content'] %}}"
    "{{% if part['type'] == 'image' %}}{image}{{% elif part['type'] == 'video' %}}{video}"
    "{{% elif part['type'] == 'audio' %}}{audio}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}<|end|>"
    "{{% endfor %}}{{% if add_generation_prompt %}}<|assistant|>{{% endif %}}"
)


def word_tokenizer(*media: str, named: dict[str, str] | None = None) -> PreTrainedTokenizerFast:
    """One token a word; ``media`` are the control tokens that stand for what is no text."""
    special = ["<pad>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", *media]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|end|>",
        extra_special_tokens=special[2:],
        padding_side="left",
    )


def text_config(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.3,  # so that logits differ by something
    }


def llava() -> tuple[Any, Any]:
    """Pictures of 16 x 16 in patches of 8."""
    tokenizer = word_tokenizer("<image>")
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"height": 16, "width": 16}, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=8,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.format(image="<image>", video="", audio=""),
    )
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
            projection_dim=16,
            initializer_factor=3.0,
        ),
        text_config=LlamaConfig(**text_config(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return LlavaForConditionalGeneration(config).eval(), processor


def qwen2_vl() -> tuple[Any, Any]:
    """Pictures and videos of any size, with rotary positions in three dimensions."""
    tokenizer = word_tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("vision_start", "vision_end", "image_pad", "video_pad")
    }
    pixels = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
    vision = "<|vision_start|><|{}_pad|><|vision_end|>"
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        video_processor=Qwen2VLVideoProcessor(**pixels),
        tokenizer=tokenizer,
        chat_template=TEMPLATE.format(image=vision.format("image"), video=vision.format("video"), audio=""),
    )
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config={
            **text_config(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]},
        },
        vision_config={"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "mlp_ratio": 2},
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    return Qwen2VLForConditionalGeneration(config).eval(), processor


def qwen2_audio() -> tuple[Any, Any]:
    """Sounds of up to two seconds."""
    tokenizer = word_tokenizer("<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>")
    processor = Qwen2AudioProcessor(
        feature_extractor=WhisperFeatureExtractor(feature_size=8, chunk_length=2),
        tokenizer=tokenizer,
        chat_template=TEMPLATE.format(image="", video="", audio="<|audio_bos|><|AUDIO|><|audio_eos|>"),
    )
    torch.manual_seed(0)
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "d_model": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "num_mel_bins": 8,
            "max_source_positions": 100,
        },
        text_config={**text_config(tokenizer), "model_type": "qwen2"},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    return Qwen2AudioForConditionalGeneration(config).eval(), processor
