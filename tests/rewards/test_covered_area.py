"""The size of what is shown: a square's own, whatever its colour and place, and nothing of a plain picture."""

import pytest
import torch

from mmalign.errors import ShapeError
from mmalign.media import Image, Sample
from mmalign.rewards.cards import load_reward
from mmalign.rewards.covered_area import covered_area


def square(side: int, *, at: int, colour: tuple[float, float, float]) -> torch.Tensor:
    picture = torch.full((3, 16, 12), 0.9)
    picture[:, at : at + side, at : at + side] = torch.tensor(colour)[:, None, None]
    return picture


def test_a_square_covers_its_own_area_wherever_it_is() -> None:
    pictures = torch.stack([square(4, at=2, colour=(1, 0, 0)), square(4, at=6, colour=(0.1, 0.2, 0.9))])
    torch.testing.assert_close(covered_area(pictures), torch.full((2,), 16 / (16 * 12)))
    # Half of the border may be covered too: the median is the other half's.
    torch.testing.assert_close(
        covered_area(square(5, at=0, colour=(1, 0, 0))[None]), torch.tensor([25 / 192])
    )


def test_a_plain_picture_and_one_with_little_noise_are_empty() -> None:
    noise = 0.02 * torch.randn(1, 3, 16, 12, generator=torch.Generator().manual_seed(0))
    assert covered_area(torch.full((1, 3, 16, 12), 0.5) + noise).item() == 0
    reward = load_reward("covered-area")
    score = reward.score([Sample("", Image(square(4, at=2, colour=(1, 0, 0)))), Sample("")])
    assert score.value[0].item() == pytest.approx(1 / 12)
    assert score.status == ["ok", "no media"]
    with pytest.raises(ShapeError, match="expected \\[B, 3, H, W\\]"):
        covered_area(torch.zeros(3, 4, 4))
