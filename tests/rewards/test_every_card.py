"""One suite over every reward card: a new card is tested the moment it is added, by its weights or by a small model."""

import copy
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.media import MEDIA, Media, Sample
from mmalign.rewards.base import DifferentiableReward, PreparingReward, Reward
from mmalign.rewards.cards import cards, find_card, load_card, load_reward
from mmalign.rewards.remote import fetch_card
from mmalign.rewards.scoring import TEXT_COLUMNS
from mmalign.rewards.wire import decode_sample, encode_sample
from mmalign.web.server import RewardServer
from tests.rewards import factories
from tests.rewards.factories import BETTER, CONTEXT, FACTORIES, NO_DIRECTION, SAMPLES, SLOW_EXTRAS

SHIPPED = [name for name, card in cards().items() if card.readiness() == "ready" and name not in FACTORIES]


def case(name: str, *marks: pytest.MarkDecorator) -> Any:
    """A card's row of a test, marked where its model takes seconds."""
    slow = [pytest.mark.slow] if find_card(name).extra in SLOW_EXTRAS else []
    return pytest.param(name, marks=[*marks, *slow])


TOKEN = "correct-horse-battery"
every_card = pytest.mark.parametrize("name", [case(name) for name in (*SHIPPED, *FACTORIES)])
TENSORS = {
    "image": "pixels",
    "video": "frames",
    "scene3d": "views",
    "audio": "waveform",
    "speech": "waveform",
}


@cache
def reward(name: str) -> Reward:
    """A card's reward, of a small model where one is made."""
    if name not in FACTORIES:
        return load_reward(name)
    with TemporaryDirectory() as folder:
        return FACTORIES[name](Path(folder))


def with_context(sample: Sample, name: str) -> Sample:
    missing = [need for need in find_card(name).needs if need != "prompt" and need not in CONTEXT]
    assert not missing, f"say in tests/rewards/factories.py, CONTEXT, what {missing} may be"
    context = {need: CONTEXT[need](sample) for need in find_card(name).needs if need != "prompt"}
    return Sample(sample.prompt, sample.media, {**context, **sample.context})


@cache
def samples(name: str) -> tuple[Sample, ...]:
    """Samples that a card scores, the first three of one size."""
    if name in SAMPLES:
        plain = SAMPLES[name]()
    else:
        rate = getattr(reward(name), "sample_rate_hz", 16_000)
        plain = factories.samples(find_card(name).modalities[0], sample_rate_hz=rate)
    return tuple(with_context(sample, name) for sample in plain)


def values_of(medium: Media | None) -> Tensor:
    assert medium is not None
    values: Tensor = getattr(medium, TENSORS[medium.modality])
    return values


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def same_aspect(found: Tensor, expected: Tensor) -> None:
    """An aspect may have no value, such as the volume of an open mesh, where the score has one."""
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5, equal_nan=True)


CARDS = 54
"""How many there are, so that a suite over none is no success."""


def test_every_card_is_covered_by_its_weights_or_by_a_small_model() -> None:
    assert len(cards()) == len({*SHIPPED, *FACTORIES}) == CARDS
    assert {"embedded/shapes-clip", "placebo", "shapes-truth"} <= set(SHIPPED)
    assert len(cards()) >= 54, "every test below runs over so many"
    assert {*SHIPPED, *FACTORIES} == set(cards()), "a card without weights needs a row in factories.FACTORIES"
    assert {*BETTER, *NO_DIRECTION} == set(cards()), "a card needs a row in factories.BETTER"


@pytest.mark.parametrize("name", list(cards()))
def test_a_card_says_what_a_reader_needs(name: str) -> None:
    card = find_card(name)
    assert set(card.modalities) <= set(MEDIA)
    assert card.modalities
    assert card.unit
    assert card.source
    assert card.licence.get("code")
    # Extras are packages that carry a model.
    computed = card.weights is None and card.extra is None and not card.made_of
    assert computed == ("weights" not in card.licence)
    assert card.range is None or card.range[0] < card.range[1]
    for part in ("", *card.parts):
        for file, digest in card.weight_files(part).files.items():
            assert file
            assert digest is None or (len(digest) == 64 and int(digest, 16))


@every_card
def test_one_finite_score_per_sample(name: str) -> None:
    score = reward(name).score(samples(name))
    assert score.status == ["ok"] * len(samples(name))
    assert score.value.isfinite().all()
    assert score.value.unique().numel() >= len(samples(name)) // 2
    assert not score.value.requires_grad


@every_card
def test_over_http_it_is_the_same_card_and_the_same_scores(name: str) -> None:
    """In this process, over loopback: what travels is the saved medium, so it is compared with the score of that."""
    travelled = [
        decode_sample(json.loads(json.dumps(encode_sample(sample))), name="sample")
        for sample in samples(name)[:3]
    ]
    server = RewardServer(reward(name), token=TOKEN)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        card = fetch_card(server.url, token=TOKEN)
        remote = load_card(card).score(samples(name)[:3])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    local = reward(name).card
    for said in ("range", "sign", "modalities", "needs", "reads", "unit"):
        assert getattr(card, said) == getattr(local, said), said
    expected = reward(name).score(travelled)
    assert remote.status == expected.status
    torch.testing.assert_close(remote.value, expected.value, atol=1e-4, rtol=1e-4, equal_nan=True)


@every_card
def test_the_same_samples_have_the_same_scores(name: str) -> None:
    assert torch.equal(reward(name).score(samples(name)).value, reward(name).score(samples(name)).value)


@every_card
def test_no_samples_no_scores(name: str) -> None:
    assert reward(name).score([]).value.shape == (0,)


@every_card
def test_neighbours_change_nothing(name: str) -> None:
    together = reward(name).score(samples(name))
    for i in (0, 2, len(samples(name)) - 1):
        alone = reward(name).score([samples(name)[i]])
        same(alone.value, together.value[i : i + 1])
        for aspect, values in alone.aspects.items():
            same_aspect(values, together.aspects[aspect][i : i + 1])


@every_card
def test_scores_follow_their_samples_into_another_order(name: str) -> None:
    order = [2, 0, *range(3, len(samples(name))), 1]
    together, moved = (
        reward(name).score(samples(name)),
        reward(name).score([samples(name)[i] for i in order]),
    )
    same(moved.value, together.value[order])
    for aspect, values in moved.aspects.items():
        same_aspect(values, together.aspects[aspect][order])


@every_card
def test_the_size_of_a_batch_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    together = reward(name).score(samples(name)).value
    if hasattr(reward(name), "batch_size"):
        monkeypatch.setattr(reward(name), "batch_size", 2)
    same(reward(name).score(samples(name)).value, together)


@every_card
def test_the_stated_range_holds(name: str) -> None:
    low, high = find_card(name).range or (-math.inf, math.inf)
    value = reward(name).score(samples(name)).value
    assert low <= value.min()
    assert value.max() <= high


@every_card
def test_the_stated_range_holds_at_the_ends_of_the_media(name: str) -> None:
    """Black, white, silence, full scale, noise between, and nearly nothing; what cannot be judged has a status."""
    low, high = find_card(name).range or (-math.inf, math.inf)
    whole = samples(name)[0]
    values, ends = values_of(whole.media), []
    least = -1.0 if whole.media is not None and whole.media.modality in ("audio", "speech") else 0.0
    coin = torch.rand(values.shape, generator=torch.Generator().manual_seed(3))
    for end in (
        torch.zeros_like(values),
        torch.ones_like(values),
        least + (1 - least) * coin,
        torch.where(coin > 0.5, torch.ones_like(values), torch.full_like(values, least)),
        1e-3 * values,
    ):
        assert whole.media is not None
        changed: Any = {TENSORS[whole.media.modality]: end}
        ends.append(replace(whole, media=replace(whole.media, **changed)))
    score = reward(name).score(ends)
    assert len(score.status) == 5
    for value, status in zip(score.value.tolist(), score.status, strict=True):
        assert low <= value <= high if status == "ok" else math.isnan(value), f"{value} ({status})"


@every_card
def test_the_prompt_counts_exactly_where_it_is_needed(name: str) -> None:
    whole = samples(name)
    # Every sample under the prompt of another one.
    moved = [
        Sample(whole[(i + 1) % len(whole)].prompt, sample.media, sample.context)
        for i, sample in enumerate(whole)
    ]
    before, after = reward(name).score(whole), reward(name).score(moved)
    changes = (before.value - after.value).abs().nan_to_num(0).max() > 1e-3 * before.value.abs().mean()
    reads = "prompt" in find_card(name).needs or name in factories.READS_A_PROMPT_THAT_IS_THERE
    assert bool(changes) == reads
    if not reads:
        assert torch.equal(before.value, after.value)


@every_card
def test_what_is_missing_gets_a_status_and_no_number(name: str) -> None:
    whole = samples(name)[0]
    partial = {"no media": Sample(whole.prompt, None, whole.context)}
    for need in find_card(name).needs:
        if need == "prompt":
            partial["no prompt"] = Sample(" ", whole.media, whole.context)
        else:
            others = {key: value for key, value in whole.context.items() if key != need}
            partial[f"no {need}"] = Sample(whole.prompt, whole.media, others)
    score = reward(name).score([*partial.values(), whole])
    assert score.status == [*partial, "ok"]
    assert torch.isnan(score.value).tolist() == [True] * len(partial) + [False]
    same(score.value[-1:], reward(name).score([whole]).value)


@every_card
def test_a_medium_that_the_card_does_not_name_gets_a_status(name: str) -> None:
    taken = find_card(name).modalities
    scorer = reward(name)
    for modality in MEDIA:
        sample = with_context(factories.samples(modality)[0], name)
        score = scorer.score([scorer.prepare(sample) if isinstance(scorer, PreparingReward) else sample])
        if modality in taken or (modality == "speech" and "audio" in taken):
            assert score.status == ["ok"] or name in SAMPLES
        else:
            assert score.status == [f"takes {' or '.join(taken)}, not {modality}"]
            assert torch.isnan(score.value).all()


@every_card
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_medium_that_is_no_longer_sound_gets_a_status_and_its_neighbours_their_scores(
    name: str, bad: float
) -> None:
    """A medium is checked when it is made; its tensor can be changed afterwards, as a generator's may."""
    broken = samples(name)[1]
    values = values_of(broken.media)
    kept = values.clone()
    try:
        values[tuple(size // 2 for size in values.shape)] = bad
        score = reward(name).score([samples(name)[0], broken, samples(name)[2]])
    finally:
        values.copy_(kept)
    assert score.status == ["ok", "the medium has NaN or infinite values", "ok"]
    assert torch.isnan(score.value).tolist() == [False, True, False]
    same(score.value[::2], reward(name).score([samples(name)[0], samples(name)[2]]).value)


@every_card
def test_a_prepared_sample_scores_as_the_original(name: str) -> None:
    scorer = reward(name)
    prepared = [scorer.prepare(s) if isinstance(scorer, PreparingReward) else s for s in samples(name)]
    torch.testing.assert_close(scorer.score(prepared).value, scorer.score(samples(name)).value)


@every_card
def test_a_card_has_a_gradient_exactly_if_it_says_so(name: str) -> None:
    scorer = reward(name)
    assert isinstance(scorer, DifferentiableReward) == find_card(name).differentiable
    if not isinstance(scorer, DifferentiableReward):
        return
    batch = samples(name)[:3]
    media = torch.stack([values_of(sample.media) for sample in batch]).requires_grad_()
    value = scorer.score_with_grad(media, batch)
    same(value.detach().cpu(), scorer.score(batch).value)
    i = int(value.argmax())  # one that no floor at 0 has cut
    (gradient,) = torch.autograd.grad(value[i], media)
    assert gradient.isfinite().all()
    assert gradient.flatten(1).abs().sum(1).gt(0).tolist() == [k == i for k in range(3)]


@every_card
def test_the_gradient_is_the_slope_of_the_score(name: str) -> None:
    scorer = reward(name)
    if not isinstance(scorer, DifferentiableReward):
        pytest.skip("no gradient is promised")
    batch = samples(name)[:3]
    whole = torch.stack([values_of(sample.media) for sample in batch])
    # Away from black, white and silence, where scores have corners.
    grain = torch.rand(whole.shape, generator=torch.Generator().manual_seed(0))
    middle = (0.7 * whole + 0.1 + 0.15 * grain).requires_grad_()
    value = scorer.score_with_grad(middle, batch)
    i = int(value.argmax())
    (gradient,) = torch.autograd.grad(value[i], middle)
    slope = gradient.norm()
    # Far below one 8-bit level in any pixel, far above what fp32 cannot resolve.
    size, tolerance = 0.03, 0.1
    if name in SHARP:
        scorer, middle, gradient, slope = (
            in_double(scorer),
            middle.double(),
            gradient.double(),
            slope.double(),
        )
        size, tolerance = 1e-6, 1e-3
    step = size * gradient / slope
    with torch.no_grad():
        ends = [scorer.score_with_grad(middle + sign * step, batch)[i] for sign in (1, -1)]
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * size), slope, rtol=tolerance, atol=0)


SHARP = ("embedded/tones-clap",)
"""The logarithm of a band that is nearly empty bends within any step that fp32 resolves."""


def in_double(scorer: DifferentiableReward) -> DifferentiableReward:
    """A copy whose networks compute in float64."""
    double = copy.deepcopy(scorer)
    for part in vars(double).values():
        if isinstance(part, torch.nn.Module):
            part.double()
    return double


@every_card
def test_aspects_do_not_hide_a_column_of_score_files(name: str) -> None:
    assert not {*TEXT_COLUMNS, "score", "std"} & set(reward(name).score(samples(name)).aspects)


def real_cards() -> list[Any]:
    """Cards of which one end is better; those that a small model stands for need their own weights here."""
    return [case(name, pytest.mark.weights) if name in FACTORIES else case(name) for name in BETTER]


@pytest.mark.parametrize("name", real_cards())
def test_the_better_of_two_has_the_better_score(name: str) -> None:
    better, worse = BETTER[name]()
    scorer = load_reward(name)
    score = scorer.score([better, worse])
    assert score.status == ["ok", "ok"]
    gain = float(score.value[0] - score.value[1])
    assert gain > 0 if find_card(name).higher_is_better else gain < 0
    low, high = find_card(name).range or (-math.inf, math.inf)
    assert low <= score.value.min() <= score.value.max() <= high
