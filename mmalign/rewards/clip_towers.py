"""The two towers of transformers' CLIP, computed only as far as its vectors read them, to the same values."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import CLIPModel
from transformers.activations import QuickGELUActivation

ACTIVATION_ROWS = 128
"""Tokens that ``QuickGelu`` works on at a time: a few MB, which a processor's cache holds."""


def picture_vectors(model: CLIPModel, pixels: Tensor) -> Tensor:
    """[B, 3, h, w], normalised, to [B, D]: of the last layer, only the class token is read."""
    tower = model.vision_model
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    *layers, last = tower.encoder.layers
    for layer in layers:
        hidden = layer(hidden, None)
    first = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    vectors: Tensor = model.visual_projection(tower.post_layernorm(one_token(last, hidden, first)))
    return vectors


def prompt_vectors(model: CLIPModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Tokens and mask [B, L], padded behind, to [B, D]: of the last layer, only the first end token is read.

    A token sees none behind it, so padding needs no mask.
    """
    tower = model.text_model
    ends = ids.gather(1, mask.sum(1, keepdim=True) - 1)
    at = (ids == ends).int().argmax(1)
    hidden = tower.embeddings(ids)
    *layers, last = tower.encoder.layers
    for layer in layers:
        hidden = layer(hidden, None, is_causal=True)
    seen = torch.arange(ids.shape[1], device=ids.device) <= at[:, None]
    token = one_token(last, hidden, at, seen=seen[:, None, None])
    vectors: Tensor = model.text_projection(tower.final_layer_norm(token))
    return vectors


def one_token(layer: Any, hidden: Tensor, at: Tensor, *, seen: Tensor | None = None) -> Tensor:
    """What a ``CLIPEncoderLayer`` makes of one token of each row; that of the others would be thrown away.

    Args:
        layer: a ``CLIPEncoderLayer``.
        hidden: [B, L, D].
        at: [B], the token's place.
        seen: [B, 1, 1, L], which tokens it attends to; None for all.

    Returns:
        [B, D].
    """
    rows = torch.arange(len(hidden), device=hidden.device)
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)

    def heads(part: Tensor) -> Tensor:
        return part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    query, key, value = (
        heads(attention.q_proj(normed[rows, at, None])),
        heads(attention.k_proj(normed)),
        heads(attention.v_proj(normed)),
    )
    attended = scaled_dot_product_attention(query, key, value, attn_mask=seen).flatten(1)
    token = hidden[rows, at] + attention.out_proj(attended)
    vectors: Tensor = token + layer.mlp(layer.layer_norm2(token))
    return vectors


class QuickGelu(nn.Module):
    """The activation of OpenAI's CLIP; where no gradient is wanted, in the place of its argument.

        x * sigmoid(1.702 * x)

    transformers computes the same bits in three buffers of the size of a batch. On the CPU, the allocator then hands
    memory back to the system in every layer and asks for it again, which took a tenth of a forward pass.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        if torch.is_grad_enabled() and x.requires_grad:
            return x * (1.702 * x).sigmoid()
        for part in x.flatten(0, -2).split(ACTIVATION_ROWS):
            part.mul_((1.702 * part).sigmoid_())
        return x


def use_less_memory(model: CLIPModel) -> None:
    """Put ``QuickGelu`` in the place of transformers' own."""
    found = [name for name, module in model.named_modules() if isinstance(module, QuickGELUActivation)]
    for name in found:
        model.set_submodule(name, QuickGelu())
