"""BLIP's image-grounded text encoder, built from a checkpoint in the layout of its authors."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.errors import ConfigError
from mmalign.rewards.weights import fill

HEAD_WIDTH = 64
"""Of every attention head, in both towers and both sizes of BLIP; a state dict does not tell it."""

# The authors' names in the vision tower, and those of transformers' class. The text tower's are the same in both.
VISION_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)


class Blip(nn.Module):
    """A vision transformer, and a BERT that attends to its patches in every layer.

    Source: Li et al. 2022, BLIP, section 3.1 (arXiv:2201.12086). The layer norms of the vision tower use the authors'
    1e-6; transformers' default for its converted checkpoints is 1e-5.

    Args:
        state: the authors' tensors, ``visual_encoder.*`` and ``text_encoder.*`` under ``prefix``; the sizes are theirs.
        prefix: before those names.
        origin: of the tensors, for messages.

    Raises:
        ConfigError: tensors of another model.
    """

    def __init__(self, state: Mapping[str, Tensor], *, prefix: str = "", origin: Path) -> None:
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        super().__init__()
        vision = {rename(name): tensor for name, tensor in below(state, f"{prefix}visual_encoder.").items()}
        text = below(state, f"{prefix}text_encoder.")
        text.pop("embeddings.position_ids", None)  # a buffer that older transformers saved
        try:
            sizes = vision_sizes(vision)
            self.vision = BlipVisionModel(
                BlipVisionConfig(**sizes, hidden_act="gelu", layer_norm_eps=1e-6, attention_dropout=0.0)
            )
            self.text = BlipTextModel(
                BlipTextConfig(
                    **text_sizes(text),
                    encoder_hidden_size=sizes["hidden_size"],
                    hidden_act="gelu",
                    layer_norm_eps=1e-12,
                    is_decoder=True,  # so that every layer has its cross-attention
                ),
                add_pooling_layer=False,
            )
        except (KeyError, ValueError, ZeroDivisionError) as error:
            raise ConfigError(f"'{origin}' is no BLIP: nothing of the right size called {error}") from error
        fill(self.vision, vision, origin=origin)
        fill(self.text, text, origin=origin)

    @property
    def image_size(self) -> int:
        """Side of the pictures that it takes, in pixels."""
        return int(self.vision.config.image_size)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """What the text encoder makes of prompts, seeing the pictures.

        Args:
            pixels: [B, 3, h, w], normalised.
            ids: [B, L], tokens.
            mask: [B, L], 1 on tokens and 0 on padding.

        Returns:
            [B, D], the last hidden state at the first token.
        """
        patches = self.vision(pixel_values=pixels).last_hidden_state
        seen = torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device)
        hidden: Tensor = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=patches,
            encoder_attention_mask=seen,
            is_decoder=False,
        ).last_hidden_state
        return hidden[:, 0]


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it.

    >>> below({"a.b": torch.zeros(1), "c": torch.zeros(1)}, "a.")
    {'b': tensor([0.])}
    """
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def rename(name: str) -> str:
    """A name of the authors' vision tower in transformers' class.

    >>> rename("blocks.3.attn.proj.weight")
    'encoder.layers.3.self_attn.projection.weight'
    """
    for pattern, replacement in VISION_NAMES:
        name, changed = re.subn(pattern, replacement, name)
        if changed:
            break
    return name


def vision_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration that vision tensors, by transformers' names, belong to."""
    width, _, patch, _ = state["embeddings.patch_embedding.weight"].shape
    patches = state["embeddings.position_embedding"].shape[1] - 1
    return {
        "hidden_size": width,
        "intermediate_size": state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _depth(state, r"encoder\.layers\.(\d+)\."),
        "num_attention_heads": width // HEAD_WIDTH,
        "patch_size": patch,
        "image_size": patch * round(patches**0.5),
    }


def text_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration that text tensors belong to."""
    vocabulary, width = state["embeddings.word_embeddings.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": state["encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": _depth(state, r"encoder\.layer\.(\d+)\."),
        "num_attention_heads": width // HEAD_WIDTH,
        "max_position_embeddings": state["embeddings.position_embeddings.weight"].shape[0],
    }


def _depth(state: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(match[1]) for name in state if (match := re.match(pattern, name)))
