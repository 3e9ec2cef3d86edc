"""CLIP's towers, computed as far as they are read, against transformers' own forward pass."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPModel
from transformers.activations import QuickGELUActivation

from mmalign.rewards.clip_towers import (
    ACTIVATION_ROWS,
    QuickGelu,
    picture_vectors,
    prompt_vectors,
    use_less_memory,
)

B, L, END = 3, 9, 37
SMALL = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2}


@pytest.fixture(params=[END, 2], ids=["its end token", "the highest token, as before 2023"])
def clip(request: pytest.FixtureRequest) -> CLIPModel:
    """In double precision; an end token of 2 stands for the highest number in CLIP."""
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": END + 1, "eos_token_id": request.param, "max_position_embeddings": L}
    vision = {**SMALL, "image_size": 16, "patch_size": 4}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=5, attn_implementation="sdpa")
    return CLIPModel(config).double().eval().requires_grad_(False)


def tokens() -> tuple[Tensor, Tensor]:
    """Of three lengths, padded with the end token, which the second one has in its middle, too."""
    ids = torch.randint(3, END, (B, L), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([9, 6, 3])
    ids[torch.arange(L) >= lengths[:, None] - 1] = END
    ids[1, 2] = END
    return ids, (torch.arange(L) < lengths[:, None]).long()


def test_prompts_have_the_models_vectors(clip: CLIPModel) -> None:
    ids, mask = tokens()
    expected = clip.get_text_features(ids, attention_mask=mask).pooler_output
    assert_close(prompt_vectors(clip, ids, mask), expected)


def test_pictures_have_the_models_vectors_and_their_gradient(clip: CLIPModel) -> None:
    pixels = torch.randn(B, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    expected = clip.get_image_features(pixels).pooler_output
    wanted = torch.autograd.grad(expected.square().sum(), pixels)[0]
    use_less_memory(clip)
    found = picture_vectors(clip, pixels)
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found.square().sum(), pixels)[0], wanted)
    with torch.no_grad():
        assert_close(picture_vectors(clip, pixels), expected)


def test_every_activation_is_ours(clip: CLIPModel) -> None:
    use_less_memory(clip)
    kinds = [type(module) for module in clip.modules()]
    assert kinds.count(QuickGelu) == 2 * SMALL["num_hidden_layers"]
    assert QuickGELUActivation not in kinds


def test_quick_gelu_has_transformers_bits_and_takes_no_other_buffer() -> None:
    x = torch.randn(2, ACTIVATION_ROWS + 3, 5)
    expected = QuickGELUActivation()(x)
    found = QuickGelu()(x)
    assert torch.equal(found, expected)
    assert found.data_ptr() == x.data_ptr()


def test_quick_gelu_leaves_what_a_gradient_needs() -> None:
    x = torch.randn(4, 5, requires_grad=True)
    before = x.detach().clone()
    QuickGelu()(x).sum().backward()
    assert torch.equal(x.detach(), before)
    s = torch.sigmoid(1.702 * before)
    assert_close(x.grad, s + before * 1.702 * s * (1 - s))
