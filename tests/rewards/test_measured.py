"""What measured rewards share: a reason instead of a number, in its own row, and extras that are missed by name."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmalign.errors import MissingExtraError
from mmalign.media import Image, Sample
from mmalign.rewards.cards import find_card
from mmalign.rewards.measured import (
    MeasuredReward,
    Measurement,
    TensorReward,
    Unmeasurable,
    file_of,
    needed,
)

CARD = replace(find_card("placebo"), modalities=("image",))


class Width(MeasuredReward):
    """Measures wide pictures only, and says so in words."""

    aspects = ("height",)

    def measure(self, sample: Sample) -> Measurement:
        assert isinstance(sample.media, Image)
        height, width = sample.media.pixels.shape[1:]
        if width < height:
            raise Unmeasurable("taller than wide")
        return Measurement(float(width), {"height": height}, f"{width} wide")


class Mean(TensorReward):
    """The mean pixel, and how many pictures each call had."""

    calls: list[int] | None = None

    def tensor(self, sample: Sample) -> Tensor:
        assert isinstance(sample.media, Image)
        if sample.media.pixels.mean() > 0.9:
            raise Unmeasurable("too bright")
        return sample.media.pixels

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        self.calls = [*(self.calls or []), len(media)]
        return media.flatten(1).mean(1) + torch.tensor([float(sample.prompt) for sample in samples])


def picture(height: int, width: int, value: float = 0.0) -> Image:
    return Image(torch.full((3, height, width), value))


def test_what_cannot_be_measured_leaves_its_neighbours_their_own_numbers() -> None:
    samples = [Sample("", picture(2, 5)), Sample("", picture(5, 2)), Sample(""), Sample("", picture(3, 7))]
    score = Width(CARD).score(samples)
    assert score.status == ["ok", "taller than wide", "no media", "ok"]
    assert score.value.tolist()[::3] == [5.0, 7.0]
    assert score.aspects["height"].tolist()[::3] == [2.0, 3.0]
    assert score.text == ["5 wide", "", "", "7 wide"]


def test_where_nothing_is_measured_the_aspects_are_still_named() -> None:
    assert Width(CARD).score([Sample("")]).aspects["height"].isnan().all()
    assert Width(CARD).score([]).aspects["height"].shape == (0,)


def test_pictures_of_one_size_share_a_call_and_return_to_their_rows() -> None:
    sizes = [(2, 2), (2, 3), (2, 2), (2, 2), (2, 3)]
    samples = [Sample(str(i), picture(*size, 0.5)) for i, size in enumerate(sizes)]
    samples.insert(1, Sample("9", picture(2, 2, 1.0)))
    reward = Mean(CARD, batch_size=2)
    score = reward.score(samples)
    assert score.status == ["ok", "too bright", "ok", "ok", "ok", "ok"]
    assert score.value[score.ok].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert reward.calls == [2, 1, 2]


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    for look in (
        lambda: needed("nobody_has_this", extra="ocr"),
        lambda: file_of("nobody_has_this", "weights.pt", extra="ocr"),
        lambda: file_of("numpy", "weights.pt", extra="ocr"),
    ):
        with pytest.raises(MissingExtraError, match=r"is not installed.*pip install 'mmalign\[ocr\]'"):
            look()
