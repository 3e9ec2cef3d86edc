"""Rewards made of rewards: who counts when, that a failure is never a number, and that a cache changes nothing."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError, DataError
from mmalign.media import Audio, Image, Sample, Speech, Video
from mmalign.rewards import cards as table
from mmalign.rewards.base import OK, Reward, Score, TokenScores, scatter
from mmalign.rewards.caching import Cached
from mmalign.rewards.cards import RewardCard, find_card, load_reward
from mmalign.rewards.combining import within_groups
from mmalign.rewards.compose import Gate, Minimum, WeightedSum
from mmalign.rewards.groups import score_in_batches
from mmalign.rewards.relative import Constrained, Contrastive, WithinPrompt
from mmalign.rewards.scoring import score_files
from mmalign.web.server import RewardServer

CARD = replace(find_card("placebo"), name="made-v1", needs=())


class Channel:
    """The mean of one channel; a sample whose prompt is "no <channel>" fails."""

    def __init__(
        self, channel: int, *, higher_is_better: bool = True, calibration: dict[str, float] | None = None
    ):
        name = "rgb"[channel]
        self.card = replace(
            CARD,
            name=f"{name}-v1",
            higher_is_better=higher_is_better,
            calibration=calibration or {},
            modalities=("image",),
        )
        self.channel, self.calls = channel, 0

    def score(self, samples: Sequence[Sample]) -> Score:
        self.calls += len(samples)
        status = ["refused" if s.prompt == f"no {'rgb'[self.channel]}" else OK for s in samples]
        values = [
            s.media.pixels[self.channel].mean()
            for s, entry in zip(samples, status, strict=True)
            if entry == OK and isinstance(s.media, Image)
        ]
        return scatter(status, torch.stack(values) if values else torch.zeros(0))


def picture(r: float, g: float, b: float, prompt: str = "x") -> Sample:
    return Sample(prompt, Image(torch.tensor([r, g, b])[:, None, None].expand(3, 2, 2).contiguous()))


SAMPLES = [
    picture(0.2, 0.8, 0.5),
    picture(0.9, 0.1, 0.5, "y"),
    picture(0.6, 0.6, 0.5),
    picture(0.4, 0.4, 0.4, "no g"),
    picture(0.3, 0.5, 0.1, "y"),
]


def test_a_sum_turns_what_is_better_lower_and_keeps_failures_apart() -> None:
    total = WeightedSum([(Channel(0), 2.0), (Channel(1, higher_is_better=False), 1.0)], name="r:2 + g")
    score = total.score(SAMPLES)
    assert score.status == ["ok", "ok", "ok", "g-v1: refused", "ok"]
    assert score.value[score.ok].tolist() == pytest.approx([2 * 0.2 - 0.8, 1.7, 0.6, 0.1])
    back = WeightedSum([(Channel(1, higher_is_better=False), 1.0), (Channel(0), 2.0)], name="g + r:2")
    assert_close(back.score(SAMPLES).value, score.value, equal_nan=True)
    assert_close(
        WeightedSum([(Channel(0), 1.0)], name="r").score(SAMPLES).value, Channel(0).score(SAMPLES).value
    )


def test_the_minimum_is_taken_in_one_scale() -> None:
    reward = Minimum(CARD, [Channel(0), Channel(1, higher_is_better=False)], scales=[(0.5, 0.1), (0.5, 0.5)])
    score = reward.score(SAMPLES)
    assert score.status[3] == "g-v1: refused"
    by_hand = [
        min((r - 0.5) / 0.1, -(g - 0.5) / 0.5) for r, g in ((0.2, 0.8), (0.9, 0.1), (0.6, 0.6), (0.3, 0.5))
    ]
    assert score.value[score.ok].tolist() == pytest.approx(by_hand, abs=1e-5)
    assert score.aspects["r-v1"].tolist() == pytest.approx([0.2, 0.9, 0.6, 0.4, 0.3])


@pytest.mark.parametrize(("higher", "passes"), [(True, [1, 0, 1, 1]), (False, [0, 1, 0, 1])])
def test_a_reward_counts_only_where_the_gate_passes(higher: bool, passes: list[int]) -> None:
    gate = Gate(CARD, Channel(0), [(Channel(1, higher_is_better=higher), 0.5)], otherwise=-1.0)
    score = gate.score(SAMPLES)
    assert score.status == ["ok", "ok", "ok", "g-v1: refused", "ok"]
    expected = [r if passed else -1.0 for r, passed in zip((0.2, 0.9, 0.6, 0.3), passes, strict=True)]
    assert score.value[score.ok].tolist() == pytest.approx(expected)


def test_a_reward_within_its_prompt() -> None:
    score = WithinPrompt(CARD, Channel(0, higher_is_better=False)).score(SAMPLES)
    assert score.value[[0, 2, 1, 4]].tolist() == pytest.approx([1, -1, -1, 1])
    assert score.status[3] == "the only sample of its prompt with a score"
    plain = within_groups(-Channel(0).score(SAMPLES).value, [s.prompt for s in SAMPLES])
    assert_close(score.value, plain, equal_nan=True)


def test_a_reward_less_the_baseline_of_its_prompt() -> None:
    baseline = {"x": [0.1, 0.3], "y": [0.5]}
    score = Contrastive(CARD, Channel(0), baseline).score(SAMPLES)
    assert score.value[score.ok].tolist() == pytest.approx([0.0, 0.4, 0.4, -0.2], abs=1e-6)
    assert score.status[3] == "its prompt has no baseline"
    lower = Contrastive(CARD, Channel(0, higher_is_better=False), baseline, reduce="max").score(SAMPLES)
    assert lower.value[0] == pytest.approx(-0.2 + 0.1)  # turned round, the best baseline is 0.1


def test_constraints_push_until_their_threshold_is_met() -> None:
    reward = Constrained(CARD, Channel(0), [(Channel(1), 0.55)], kind="equality", rate=1.0, momentum=0.0)
    samples = [picture(0.2, 0.8, 0.0), picture(0.4, 0.2, 0.0), picture(0.6, 0.4, 0.0)]
    first = reward.score(samples)
    prompts = ["x"] * 3
    assert_close(first.value, within_groups(Channel(0).score(samples).value, prompts))
    assert_close(reward.score(samples).value, first.value)
    reward.update(first)
    m = math.tanh(0.55 - 1.4 / 3)  # the mean is below the threshold: the multiplier rises by the difference
    assert reward.multipliers[0] == pytest.approx(m)
    mixed = (1 - m) * first.value + m * within_groups(Channel(1).score(samples).value, prompts)
    assert_close(reward.score(samples).value, mixed)
    lower = Constrained(CARD, Channel(0), [(Channel(1, higher_is_better=False), 0.4)], kind="inequality")
    lower.update(lower.score(samples))  # 0.4667 is above what is allowed
    assert lower.u[0] > 0


class Picky(Channel):
    """Refuses what is brighter than 0.85."""

    def score(self, samples: Sequence[Sample]) -> Score:
        plain = super().score(samples)
        status = ["refused" if value > 0.85 else OK for value in plain.value.tolist()]
        return scatter(status, plain.value[plain.value <= 0.85])


def test_a_sample_with_one_score_missing_does_not_move_the_others() -> None:
    reward = Constrained(CARD, Channel(0), [(Picky(1), 0.5)])
    group = [picture(0.2, 0.8, 0.0), picture(0.4, 0.2, 0.0)]
    alone = reward.score(group)
    beside = reward.score([group[0], picture(0.9, 0.9, 0.0), group[1]])
    assert_close(beside.value[[0, 2]], alone.value)
    assert beside.status[1] == "g-v1: refused"


def test_rewards_that_compare_are_never_given_parts_of_a_prompt() -> None:
    relative = WithinPrompt(CARD, Channel(0))
    many = [picture(i / 200, 0.0, 0.0) for i in range(150)]
    assert_close(score_in_batches(relative, many, batch_size=7).value, relative.score(many).value)
    with pytest.raises(ConfigError, match="compares all samples of a prompt"):
        list(score_files([], [relative]))
    with pytest.raises(ConfigError, match="compares all samples of a prompt"):
        RewardServer(relative, token="correct-horse-battery")

    class Pairs:
        card = CARD

    for refuse in (
        lambda: list(score_files([], [Pairs()])),  # type: ignore[list-item]
        lambda: RewardServer(Pairs(), token="correct-horse-battery"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match="judges pairs"):
            refuse()
    with pytest.raises(ConfigError, match="compares all samples of a prompt"):
        Cached(CARD, relative, folder=Path())
    assert WeightedSum([(relative, 1.0)], name="w").whole_groups


# The cache


class Telling(Channel):
    """Says all that a score can say."""

    def score(self, samples: Sequence[Sample]) -> Score:
        plain = super().score(samples)
        count = len(samples)
        return Score(
            plain.value,
            plain.status,
            std=plain.value / 3,
            aspects={"third": plain.value / 3},
            tokens=[TokenScores(("a",), (0.1,))] * count,
            regions=torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(0)),
            text=["because"] * count,
        )


def test_a_cached_score_is_the_score_to_the_last_bit(tmp_path: Path) -> None:
    inner = Telling(0)
    cached = Cached(CARD, inner, folder=tmp_path)
    first, second = cached.score(SAMPLES), cached.score(SAMPLES)
    assert inner.calls == 5
    assert cached.hits == 5
    plain = Telling(0).score(SAMPLES)
    for found in (first, second):
        assert torch.equal(found.value, plain.value)
        assert torch.equal(found.std, plain.std)  # type: ignore[arg-type]
        assert torch.equal(found.aspects["third"], plain.aspects["third"])
        assert torch.equal(found.regions, plain.regions)  # type: ignore[arg-type]
        assert (found.tokens, found.text, found.status) == (plain.tokens, plain.text, plain.status)


def test_failures_and_damaged_files_are_asked_again_and_neighbours_are_not(tmp_path: Path) -> None:
    inner = Channel(1)
    cached = Cached(CARD, inner, folder=tmp_path)
    cached.score(SAMPLES)
    assert cached.score(SAMPLES).status[3] == "refused"
    assert inner.calls == 6  # the one that failed was asked again
    files = sorted(tmp_path.rglob("*.json"))
    assert len(files) == 4
    files[0].write_bytes(files[0].read_bytes()[:5])
    files[1].write_text('{"score": null, "status": "ok"}')
    assert_close(cached.score(SAMPLES).value, Channel(1).score(SAMPLES).value, equal_nan=True)
    assert inner.calls == 6 + 3
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]


def test_whatever_may_change_a_score_is_part_of_its_key(tmp_path: Path) -> None:
    inner = load_reward("placebo")
    wave = torch.zeros(1, 800)
    samples = [
        picture(0.2, 0.8, 0.5),
        picture(0.2, 0.8, 0.5, "y"),
        picture(0.2, 0.8, 0.6),
        Sample("x", picture(0.2, 0.8, 0.5).media, {"source_image": picture(0.0, 0.0, 0.0).media}),  # type: ignore[dict-item]
        Sample("x", Audio(wave, 8_000)),
        Sample("x", Speech(wave, 8_000, transcript="go")),
        Sample("x", Speech(wave, 8_000, transcript="stop")),
        Sample("x", Video(torch.zeros(2, 3, 2, 2), 8.0)),
    ]
    Cached(CARD, inner, folder=tmp_path).score(samples)
    assert len(list(tmp_path.rglob("*.json"))) == len(samples)
    other = type(inner)(replace(inner.card, options={"seed": 1}))  # type: ignore[call-arg]
    again = Cached(CARD, other, folder=tmp_path)
    again.score(samples)
    assert again.hits == 0


# Cards


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards of two rewards of this file."""
    known = {
        name: replace(find_card("placebo"), name=name, target="x:Y", calibration=calibration)
        for name, calibration in (("r-v1", {"mean": 0.5, "std": 0.1}), ("g-v1", {}))
    }

    def load(name: str, *, device: str = "cpu") -> Reward:
        return Channel("rgb".index(name[0]), calibration=known[name].calibration)

    monkeypatch.setattr(table, "cards", lambda: known)
    for module in ("compose", "relative", "caching"):
        monkeypatch.setattr(f"mmalign.rewards.{module}.load_reward", load)


def card_file(folder: Path, target: str, options: dict[str, Any]) -> str:
    path = folder / "made.yaml"
    fields = "modalities: [image]\nunit: u\nhigher_is_better: true\ndifferentiable: false\nsource: s\n"
    path.write_text(f"target: mmalign.rewards.{target}\n{fields}options: {json.dumps(options)}\n")
    return str(path)


@pytest.mark.parametrize(
    ("target", "options", "first"),
    [
        ("compose:minimum", {"of": ["r-v1", "g-v1"], "scales": {"g-v1": [0.0, 1.0]}}, -3.0),
        ("compose:gated", {"of": "r-v1", "gates": {"g-v1": 0.9}, "otherwise": -7}, -7.0),
        ("relative:within_prompt", {"of": "r-v1", "how": "rank"}, 0.0),
        ("relative:constrained", {"of": "r-v1", "constraints": {"g-v1": 0.5}}, 0.0),
        ("caching:cached", {"of": "r-v1", "folder": "."}, 0.2),
    ],
)
def test_every_composition_can_be_named_by_a_card(
    named: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    options: dict[str, Any],
    first: float,
) -> None:
    monkeypatch.chdir(tmp_path)
    name = card_file(tmp_path, target, options)
    assert set(find_card(name).made_of) == {"r-v1"} | ({"g-v1"} if "g-v1" in json.dumps(options) else set())
    reward = load_reward(name)
    assert isinstance(reward.card, RewardCard)
    assert reward.score(SAMPLES[:3]).value[0] == pytest.approx(first, abs=1e-5)


def test_a_baseline_is_a_file_of_scores(named: None, tmp_path: Path) -> None:
    rows = [
        {"prompt": "x", "reward": "r-v1", "score": 0.1},
        {"prompt": "x", "reward": "g-v1", "score": 9.0},
        {"prompt": "x", "reward": "r-v1", "score": None},
    ]
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = card_file(tmp_path, "relative:against_baseline", {"of": "r-v1", "baseline": str(path)})
    assert load_reward(name).score(SAMPLES[:1]).value[0] == pytest.approx(0.1)
    path.write_text("{}\n")
    with pytest.raises(DataError, match="no jsonl file of scores"):
        load_reward(name)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("compose:minimum", {"of": ["r-v1", "g-v1"]}, "'g-v1' has no scale"),
        ("compose:minimum", {"of": ["r-v1"], "scales": {"b-v1": [0, 1]}}, "expected NAME: \\[mean, std\\]"),
        ("compose:gated", {"of": "r-v1", "gates": {}, "otherwise": 0}, "expected a gate or more"),
        ("relative:within_prompt", {"of": "r-v1", "how": "zz"}, "expected z, rank or leave-one-out"),
        ("relative:constrained", {"of": "r-v1", "constraints": {}}, "expected a constraint or more"),
    ],
)
def test_a_card_that_cannot_work_is_refused(
    named: None, tmp_path: Path, target: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_reward(card_file(tmp_path, target, options))
