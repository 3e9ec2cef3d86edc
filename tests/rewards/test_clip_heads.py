"""The aesthetic predictor against its authors' own module, and heads that are one affine map."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from mmalign.errors import ConfigError
from mmalign.media import Image
from mmalign.rewards.cards import find_card
from mmalign.rewards.linear_head import LinearHead, affine_mlp_head
from tests.rewards import small_models
from tests.rewards.factories import FACTORIES, load_small
from tests.rewards.photographs import crops, samples
from tests.rewards.test_clip_transformers import PICTURES, agree, by_torchvision, embed

HEAD = find_card("laion-aesthetic-v2").options["head"]


def authors_head(width: int) -> nn.Sequential:
    """Linear layers with dropout where the authors have it, under the names of their checkpoint."""
    sizes = (width, *small_models.MLP_SIZES)
    linear = [nn.Linear(before, after) for before, after in pairwise(sizes)]
    dropouts = [nn.Dropout(0.2), nn.Dropout(0.2), nn.Dropout(0.1)]
    return nn.Sequential(linear[0], dropouts[0], linear[1], dropouts[1], linear[2], dropouts[2], *linear[3:])


def test_the_score_is_the_authors_head_on_unit_vectors(tmp_path: Path) -> None:
    reward = FACTORIES["laion-aesthetic-v2"](tmp_path)
    head = authors_head(16).eval()
    state = torch.load(tmp_path / HEAD, weights_only=True)
    head.load_state_dict({name.removeprefix("layers."): tensor for name, tensor in state.items()})
    _, image, _ = embed(tmp_path / "backbone", [""], by_torchvision)
    with torch.no_grad():
        expected = head(image)[:, 0]
    found = reward.score(samples(["one", "", "other"], crops(*PICTURES))).value
    agree(found, expected, drift=0.2)


def test_a_head_is_affine() -> None:
    state = small_models.linear_head(16)
    head = LinearHead(state, origin="here")
    first, second = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        head((first + second) / 2), (head(first) + head(second)) / 2, atol=1e-5, rtol=0
    )
    assert head.width == 16


def test_a_head_by_hand() -> None:
    """(1, 2) -> (1 + 2 + 1, 2 - 1) = (4, 1) -> 3 * 4 - 1 + 0.5 = 11.5."""
    layers = [
        (torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.tensor([1.0, -1.0])),
        (torch.tensor([[3.0, -1.0]]), torch.tensor([0.5])),
    ]
    assert affine_mlp_head(torch.tensor([[1.0, 2.0]]), layers).tolist() == [[11.5]]


@pytest.mark.parametrize("fault", ["none", "bias", "sizes", "two numbers"])
def test_what_is_no_such_head_is_refused(fault: str) -> None:
    state = small_models.linear_head(16)
    if fault == "none":
        state = {}
    elif fault == "bias":
        del state["layers.4.bias"]
    elif fault == "sizes":
        del state["layers.2.weight"]
    else:
        del state["layers.7.weight"]
    with pytest.raises(ConfigError, match="no linear layers that end in one number"):
        LinearHead(state, origin="here")


def test_a_head_of_another_clip_is_refused(tmp_path: Path) -> None:
    reward = FACTORIES["laion-aesthetic-v2"](tmp_path)
    torch.save(small_models.linear_head(12), tmp_path / HEAD)
    with pytest.raises(ConfigError, match="takes vectors of 12, the CLIP makes 16"):
        load_small(reward.card)


def test_a_picture_does_not_need_a_prompt(tmp_path: Path) -> None:
    reward = FACTORIES["laion-aesthetic-v2"](tmp_path)
    one, other = samples(["", "a cat"], crops((50, 40)) * 2)
    assert isinstance(one.media, Image)
    assert torch.equal(reward.score([one]).value, reward.score([other]).value)
