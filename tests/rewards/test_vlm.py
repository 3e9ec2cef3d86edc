"""The embedded judge in every form, on pictures of combinations that it never saw in training."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError
from mmalign.media import Image, Sample
from mmalign.rewards.cards import find_card, load_reward
from mmalign.rewards.vlm import DigitJudge, VqaScore, YesNo
from mmalign.rewards.vlm_model import LocalJudge
from mmalign.rewards.vlm_pair import PairJudge
from mmalign.rewards.vlm_principles import PrincipleJudge
from mmalign.rewards.vlm_written import NumericJudge
from mmalign.worlds import shapes

TABLES = {"kind": shapes.KINDS, "colour": tuple(shapes.COLOURS), "size": tuple(shapes.SIZES)}
TABLES["place"] = tuple(shapes.PLACES)
CARD = find_card("embedded/shapes-vlm-vqascore")


@cache
def judge() -> LocalJudge:
    loaded = load_reward(CARD.name)
    assert isinstance(loaded, VqaScore)
    assert isinstance(loaded.judge, LocalJudge)
    return loaded.judge


def near_miss(shape: shapes.Shape, i: int) -> shapes.Shape:
    """The shape with one attribute changed, each in turn."""
    name = shapes.ATTRIBUTES[i % 4]
    values = TABLES[name]
    step = 1 + (i // 4) % (len(values) - 1)
    return replace(shape, **{name: values[(values.index(getattr(shape, name)) + step) % len(values)]})


def spoiled(pictures: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """As a generator leaves them: with a quarter of another picture showing through, and noise."""
    mixed = pictures.lerp(pictures.roll(1, 0), 0.25)
    return (mixed + 0.03 * torch.randn(pictures.shape, generator=random)).clamp(0, 1)


def cases(count: int, *, spoil: bool) -> list[tuple[Sample, Sample]]:
    """Held-out pictures with their right caption, and the same with a caption that is wrong in one attribute."""
    random = torch.Generator().manual_seed(count)
    every = shapes.all_shapes("heldout")
    chosen = [every[i] for i in torch.randperm(len(every), generator=random)[:count].tolist()]
    pictures = shapes.render([(shape,) for shape in chosen], random)
    media = [Image(picture) for picture in (spoiled(pictures, random) if spoil else pictures)]
    return [
        (
            Sample(shapes.caption((shape,), i % 5), picture),
            Sample(shapes.caption((near_miss(shape, i),), (i + 2) % 5), picture),
        )
        for i, (shape, picture) in enumerate(zip(chosen, media, strict=True))
    ]


def accuracies(count: int, *, spoil: bool) -> dict[str, float]:
    """How often the right caption has the better score, and the right picture of two is preferred."""
    right, wrong = (list(side) for side in zip(*cases(count, spoil=spoil), strict=True))
    rewards = {"digits": DigitJudge(CARD, judge=judge()), "vqascore": VqaScore(CARD, judge=judge())}
    found = {
        name: float((reward.score(right).value > reward.score(wrong).value).float().mean())
        for name, reward in rewards.items()
    }
    random = torch.Generator().manual_seed(1)
    others = shapes.render([scene for s in wrong if (scene := shapes.parse(s.prompt))], random)
    others = spoiled(others, random) if spoil else others
    rivals = [Sample(s.prompt, Image(picture)) for s, picture in zip(right, others, strict=True)]
    preference = PairJudge(CARD, judge=judge()).compare(right, rivals)
    return {**found, "pairs": float((preference.wins > 0.5).float().mean())}


def test_the_embedded_judge_is_mostly_right_on_unseen_combinations() -> None:
    found = accuracies(24, spoil=False)
    assert min(found.values()) >= 0.8, found


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [False, True])
def test_the_embedded_judge_is_right_nine_times_in_ten(spoil: bool) -> None:
    found = accuracies(108, spoil=spoil)
    assert min(found.values()) >= 0.9, found


def test_digits_rise_with_the_attributes_that_hold() -> None:
    shape = shapes.Shape("star", "red", "large", "on the left")
    (pixels,) = shapes.render([(shape,)], torch.Generator().manual_seed(0))
    named = [shape]
    for name, word in {"colour": "blue", "kind": "circle", "place": "on the right", "size": "small"}.items():
        named.append(replace(named[-1], **{name: word}))
    samples = [Sample(shapes.caption((other,)), Image(pixels)) for other in named]
    value = DigitJudge(CARD, judge=judge()).score(samples).value
    assert value[0] > value[2] > value[4]
    assert value[0] > 4
    assert value[4] < 2.5


def test_swapping_a_pair_swaps_its_sides_exactly() -> None:
    (a, _), (b, _) = cases(2, spoil=False)
    b = replace(b, prompt=a.prompt)
    reward = PairJudge(CARD, judge=judge())
    found, turned = reward.compare([a, b], [b, a]), reward.compare([b, a], [a, b])
    assert_close(found.first, turned.second, atol=1e-5, rtol=0)
    assert_close(found.wins + turned.wins, torch.ones(2), atol=1e-5, rtol=0)
    assert_close(found.first.flip(0), turned.first, atol=1e-5, rtol=0)


def test_a_score_against_a_reference_is_the_preference() -> None:
    (a, _), (b, _) = cases(2, spoil=False)
    reward = load_reward("embedded/shapes-vlm-pair")
    assert isinstance(reward, PairJudge)
    assert b.media is not None
    whole = replace(a, context={"reference": b.media})
    score = reward.score([whole, a, replace(a, context={"reference": "words"})])
    expected = reward.compare([a], [replace(b, prompt=a.prompt)])
    assert_close(score.value[:1], expected.wins, atol=1e-5, rtol=0)
    assert score.status == ["ok", "no reference", "the reference is text, not a medium"]


def test_principles_read_a_picture_once_and_are_those_given() -> None:
    (sample, _), *_ = cases(1, spoil=False)
    shape = shapes.parse(sample.prompt)
    assert shape is not None
    asked = {value: f"Is the shape {value}?" for value in shapes.COLOURS}
    passes: list[int] = []
    handle = judge().model.model.vision_tower.register_forward_hook(lambda *_: passes.append(1))
    try:
        score = PrincipleJudge(CARD, principles=asked, judge=judge()).score([sample])
    finally:
        handle.remove()
    assert len(passes) == 1
    found = {name: aspect.item() for name, aspect in score.aspects.items()}
    assert max(found, key=lambda name: found[name]) == shape[0].colour
    assert score.value.item() == pytest.approx(sum(found.values()) / len(found))


def test_a_prompt_that_would_break_the_conversation_fails_alone() -> None:
    (a, b), *_ = cases(1, spoil=False)
    for reward in (VqaScore(CARD, judge=judge()), NumericJudge(CARD, judge=judge())):
        score = reward.score([a, replace(b, prompt="a <image> star")])
        assert score.status == ["ok", "the prompt holds '<image>', a control token of the judge"]
        assert score.value.isnan().tolist() == [False, True]


def test_only_what_is_declared_has_a_gradient() -> None:
    silent = replace(CARD, differentiable=False)
    assert not hasattr(YesNo(silent, judge=judge()), "score_with_grad")
    assert hasattr(YesNo(CARD, judge=judge()), "score_with_grad")


@pytest.mark.parametrize(("low", "high"), [(1, 10), (5, 5), (-1, 3)])
def test_a_scale_of_digits_is_one(low: int, high: int) -> None:
    with pytest.raises(ConfigError, match="expected digits"):
        DigitJudge(CARD, judge=judge(), low=low, high=high)
