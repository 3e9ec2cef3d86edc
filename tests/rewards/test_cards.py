"""One suite over every reward card: a new card is tested the moment it is added."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from mmalign.errors import ConfigError, DataError, MmalignError, UnknownNameError
from mmalign.media import Audio, Image, Media, Sample, Scene3D, Speech, Video
from mmalign.rewards import cards as table
from mmalign.rewards.base import DifferentiableReward, PreparingReward, Reward
from mmalign.rewards.cards import RewardCard, cards, find_card, load_reward, parse_weighted, read_card
from mmalign.rewards.scoring import TEXT_COLUMNS
from mmalign.worlds import shapes

# A reward that needs more than a prompt is tested beside its code.
READY = sorted(
    name for name, card in cards().items() if card.readiness() == "ready" and set(card.needs) <= {"prompt"}
)
every_card = pytest.mark.parametrize("name", READY)


@cache
def reward(name: str) -> Reward:
    return load_reward(name)


@cache
def samples() -> tuple[Sample, ...]:
    """Pictures of several kinds: as asked for, of something else, noise, and of other sizes."""
    random = torch.Generator().manual_seed(0)
    scenes = [shapes.random_scene(random, two_shapes=0.3) for _ in range(5)]
    pictures = [
        *shapes.render(scenes, random),
        torch.rand(3, 64, 64, generator=random),
        torch.zeros(3, 96, 96),
    ]
    prompts = [shapes.caption(scenes[i % 4]) for i in range(len(pictures))]
    return tuple(Sample(prompt, Image(picture)) for prompt, picture in zip(prompts, pictures, strict=True))


def test_the_cards_of_the_embedded_world_are_here_and_ready() -> None:
    assert {"embedded/shapes-clip", "placebo", "shapes-truth"} <= set(READY)
    assert list(cards()) == sorted(cards())


@every_card
def test_one_finite_score_per_sample(name: str) -> None:
    score = reward(name).score(samples())
    assert score.status == ["ok"] * len(samples())
    assert score.value.isfinite().all()
    assert len(set(score.value.tolist())) > 1
    assert not score.value.requires_grad


@every_card
def test_no_samples_no_scores(name: str) -> None:
    assert reward(name).score([]).value.shape == (0,)


@every_card
def test_neighbours_change_nothing(name: str) -> None:
    together = reward(name).score(samples())
    for i in (0, 2, 6):
        alone = reward(name).score([samples()[i]])
        torch.testing.assert_close(alone.value, together.value[i : i + 1], atol=1e-4, rtol=1e-5)
        for aspect, values in alone.aspects.items():
            torch.testing.assert_close(values, together.aspects[aspect][i : i + 1], atol=1e-4, rtol=1e-5)
    backwards = reward(name).score(samples()[::-1])
    torch.testing.assert_close(backwards.value.flip(0), together.value, atol=1e-4, rtol=1e-5)


@every_card
def test_the_stated_range_holds(name: str) -> None:
    low, high = find_card(name).range or (-math.inf, math.inf)
    value = reward(name).score(samples()).value
    assert low <= value.min()
    assert value.max() <= high


@every_card
def test_what_is_missing_gets_a_status_and_no_number(name: str) -> None:
    whole = samples()[0]
    partial = (
        [Sample(whole.prompt), Sample("", whole.media)] if find_card(name).needs else [Sample(whole.prompt)]
    )
    score = reward(name).score([*partial, whole])
    assert score.status == [*("no media", "no prompt")[: len(partial)], "ok"]
    assert torch.isnan(score.value).tolist() == [True] * len(partial) + [False]


@every_card
def test_a_medium_that_the_card_does_not_name_gets_a_status(name: str) -> None:
    pixels, wave = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 8_000)
    media: list[Media] = [
        Image(pixels[0]),
        Video(pixels, 8.0),
        Scene3D(pixels),
        Audio(wave, 8_000),
        Speech(wave, 8_000),
    ]
    taken = find_card(name).modalities
    for medium in media:
        sample = Sample(samples()[0].prompt, medium)
        scorer = reward(name)
        score = scorer.score([scorer.prepare(sample) if isinstance(scorer, PreparingReward) else sample])
        if medium.modality in taken or (medium.modality == "speech" and "audio" in taken):
            assert score.status == ["ok"]
        else:
            assert score.status == [f"takes {' or '.join(taken)}, not {medium.modality}"]
            assert torch.isnan(score.value).all()


@every_card
def test_a_prepared_sample_scores_as_the_original(name: str) -> None:
    scorer = reward(name)
    prepared = [scorer.prepare(s) if isinstance(scorer, PreparingReward) else s for s in samples()]
    torch.testing.assert_close(scorer.score(prepared).value, scorer.score(samples()).value)


@every_card
def test_a_differentiable_card_has_the_gradient_it_promises(name: str) -> None:
    scorer = reward(name)
    assert isinstance(scorer, DifferentiableReward) == find_card(name).differentiable
    if not isinstance(scorer, DifferentiableReward):
        return
    batch = samples()[:3]
    media = torch.stack(
        [sample.media.pixels for sample in batch if isinstance(sample.media, Image)]
    ).requires_grad_()
    value = scorer.score_with_grad(media, batch)
    torch.testing.assert_close(value.detach(), scorer.score(batch).value, atol=1e-4, rtol=1e-5)
    (gradient,) = torch.autograd.grad(value[1], media)
    assert gradient.isfinite().all()
    assert gradient.flatten(1).abs().sum(1).gt(0).tolist() == [False, True, False]


@every_card
def test_aspects_do_not_hide_a_column_of_score_files(name: str) -> None:
    assert not {*TEXT_COLUMNS, "score", "std"} & set(reward(name).score(samples()).aspects)


@pytest.mark.parametrize("name", list(cards()))
def test_a_card_says_what_a_reader_needs(name: str) -> None:
    card = find_card(name)
    assert card.modalities
    assert card.unit
    assert card.source
    assert card.licence.get("code")
    assert card.weights is None or card.licence.get("weights")


def test_an_unknown_reward_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no reward is called 'shape-truth'\. Did you mean 'shapes-truth'"
    ):
        load_reward("shape-truth")


@pytest.mark.parametrize(
    ("text", "expected"), [("placebo", ("placebo", 1.0)), ("a/b:0.5", ("a/b", 0.5)), ("x:-2", ("x", -2.0))]
)
def test_a_weight_follows_a_colon(text: str, expected: tuple[str, float]) -> None:
    assert parse_weighted(text) == expected


@pytest.mark.parametrize("text", ["placebo:", "placebo:much", "placebo:nan", "placebo:inf"])
def test_a_weight_is_a_finite_number(text: str) -> None:
    with pytest.raises(ConfigError, match="expected NAME or NAME:WEIGHT with a number"):
        parse_weighted(text)


GOOD_CARD = (
    "target: a:B\nmodalities: [image]\nunit: u\nhigher_is_better: true\ndifferentiable: false\nsource: s\n"
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + "unitt: x\n", "no card field is called 'unitt'. Did you mean 'unit'"),
        (lambda text: text + "name: other\n", "no card field is called 'name'"),
        (lambda text: text.replace("unit: u\n", ""), "the field 'unit' is missing"),
        (lambda text: "[" + text, "not YAML"),
        (lambda text: "", "expected named fields"),
    ],
)
def test_a_faulty_card_is_refused_by_file_and_field(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(change(GOOD_CARD))
    with pytest.raises(DataError, match=message) as caught:
        read_card(path, name="mine")
    assert str(path) in str(caught.value)


def test_a_card_without_its_weights_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD_CARD + "weights: embedded/nothing-here\n")
    assert read_card(path, name="mine").readiness() == "needs weights"


def test_a_card_without_its_extra_is_not_ready_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = RewardCard(
        name="ocr-v1",
        target="x:Y",
        modalities=("image",),
        unit="u",
        higher_is_better=True,
        differentiable=False,
        extra="ocr",
        source="s",
    )
    monkeypatch.setitem(table.EXTRAS, "ocr", "a_module_that_nobody_has")
    monkeypatch.setattr(table, "cards", lambda: {"ocr-v1": card})
    assert card.readiness() == "needs extra ocr"
    with pytest.raises(MmalignError, match=r"pip install 'mmalign\[ocr\]'"):
        load_reward("ocr-v1")
