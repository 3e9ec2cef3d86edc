"""What heads learn by: rankings as wholes, ties, ends of a scale, a nuisance, groups of people and persons."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError
from mmalign.losses.annotator_groups import annotator_log_likelihood, mixture_log_likelihood
from mmalign.losses.odin import pearson, unit_rows
from mmalign.losses.plackett_luce import plackett_luce_log_prob
from mmalign.losses.ties import davidson_log_probs
from mmalign.rewards.learned_heads import OVERALL, HeadOptions, Heads
from mmalign.training.reward_adapting import personal_mix
from mmalign.training.reward_data import Examples
from mmalign.training.reward_fitting import FitOptions, features_of, fit_heads
from mmalign.training.reward_groups import find_groups, in_groups, write_groups
from mmalign.training.reward_objectives import Objective, People, Vectors, chosen_loss, lists_of

M, P, D = 40, 8, 4


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors(nuisance: torch.Tensor | None = None) -> Vectors:
    return Vectors(torch.randn(M, D, generator=random()), torch.randn(P, D, generator=random(1)), nuisance)


def examples(
    first: list[int],
    second: list[int],
    target: list[float],
    *,
    row: list[int] | None = None,
    kind: str = "pairs",
) -> Examples:
    n = len(first)
    zeros = torch.zeros(n, dtype=torch.int64)
    return Examples(
        kind=kind,  # type: ignore[arg-type]
        media=tuple(Path(f"{i}.png") for i in range(M)),
        prompts=tuple(str(i) for i in range(P)),
        aspects=(OVERALL,),
        annotators=("",),
        prompt=zeros,
        first=torch.tensor(first),
        second=torch.tensor(second),
        target=torch.tensor(target),
        aspect=zeros,
        annotator=zeros,
        row=torch.arange(n) if row is None else torch.tensor(row),
        rows=n,
        rejected=(),
    )


def pairs_by(truth: torch.Tensor, count: int, *, seed: int = 2) -> Examples:
    """Pairs of random media, of which the one that is worth more is chosen."""
    one, other = torch.randint(M, (2, count), generator=random(seed))
    better = truth[one] >= truth[other]
    first, second = torch.where(better, one, other), torch.where(better, other, one)
    return examples(first.tolist(), second.tolist(), [1.0] * count)


def test_comparisons_of_a_ranking_become_its_list_again() -> None:
    # Row 5: 9 before 4 and 7, which are equal; row 6: 2 before 3 before 1.
    found = lists_of(examples([9, 9, 2, 2, 3], [4, 7, 3, 1, 1], [1.0] * 5, row=[5, 5, 6, 6, 6]))
    places = [
        {int(m): int(r) for m, r, real in zip(*row, strict=True) if real}
        for row in zip(found.media, found.ranks, found.mask, strict=True)
    ]
    assert places == [{9: 0, 4: 1, 7: 1}, {2: 0, 3: 1, 1: 2}]
    shorter = lists_of(examples([9, 2, 2, 3], [4, 3, 1, 1], [1.0] * 4, row=[5, 6, 6, 6]))
    assert shorter.mask.tolist() == [[True, True, False], [True, True, True]]


def test_plackett_luce_of_each_member_and_list_in_turn() -> None:
    of = examples([9, 2, 2, 3], [4, 3, 1, 1], [1.0] * 4, row=[5, 6, 6, 6])
    heads, known = Heads(D, HeadOptions(members=2), generator=random(3)), vectors()
    objective = Objective(loss="plackett-luce")
    found = objective(heads, known, objective.units(of), torch.tensor([[0, 1], [1, 1]]))

    def by_hand(k: int, order: list[int]) -> torch.Tensor:
        said = heads(known.features(torch.tensor(order), torch.zeros(len(order), dtype=torch.int64)))[0][
            k, :, 0
        ]
        return plackett_luce_log_prob(said[None], torch.arange(len(order))[None])[0]

    total = by_hand(0, [9, 4]) + by_hand(0, [2, 3, 1]) + 2 * by_hand(1, [2, 3, 1])
    assert_close(found, -total / 4)


def test_davidson_scores_wins_and_ties_by_their_own_probability() -> None:
    of, heads, known = (
        examples([0, 2], [1, 3], [1.0, 0.0]),
        Heads(D, HeadOptions(), generator=random(3)),
        vectors(),
    )
    found = Objective(loss="davidson", tie=2.0)(heads, known, of, torch.arange(2))
    zeros = torch.zeros(2, dtype=torch.int64)
    gap = (heads(known.features(of.first, zeros))[0] - heads(known.features(of.second, zeros))[0])[0, :, 0]
    log_probs = davidson_log_probs(gap, tie=2.0)
    assert_close(found, -(log_probs[0, 0] + log_probs[1, 1]) / 2)
    with pytest.raises(ConfigError, match="there is none"):
        chosen_loss("davidson", examples([0], [1], [1.0]))
    with pytest.raises(ConfigError, match="not for pairs"):
        chosen_loss("beta", of)


def test_a_bounded_head_stays_on_the_scale_and_says_how_far_ratings_scatter() -> None:
    known = vectors()
    worth = known.media[:, 0]
    target = (3 + 2 * torch.tanh(worth)).tolist()
    every = examples(list(range(M)), list(range(M)), target, kind="ratings")
    fit = FitOptions(loss="beta", epochs=60, batch_size=20, learning_rate=0.03, patience=60)
    heads, _ = fit_heads(known, every, every, head=HeadOptions(members=2), fit=fit, generator=random())
    seen = known.features(every.first, every.prompt)
    said = heads.members(seen)[..., 0].detach()
    assert float(said.min()) >= min(target)
    assert float(said.max()) <= max(target)
    assert float(pearson(said.mean(0), torch.tensor(target))) > 0.9
    far = heads.members(100 * seen)[..., 0].detach()
    assert min(target) - 1e-4 <= float(far.min()) <= float(far.max()) <= max(target) + 1e-4
    scatter = heads.scatter(seen)
    assert scatter is not None
    scatter = scatter.detach()
    assert 0 < float(scatter.min()) <= float(scatter.max()) < 2  # half of the scale is the most
    share, (_, more) = heads(seen)[0].sigmoid(), heads(seen)
    a, b = share * more.exp(), (1 - share) * more.exp()
    beta = torch.distributions.Beta(a, b)
    assert_close(scatter, beta.stddev * (max(target) - min(target)), rtol=1e-3, atol=1e-4)


def test_odin_keeps_the_nuisance_out_of_the_value() -> None:
    known = vectors()
    size, quality = known.media[:, 0], known.media[:, 1]
    said = pairs_by(quality + 2 * size, 400)
    fit = FitOptions(epochs=40, batch_size=200, learning_rate=0.02, patience=40)
    plain, _ = fit_heads(known, said, said, head=HeadOptions(), fit=fit, generator=random())
    free, _ = fit_heads(
        replace(known, nuisance=size),
        said,
        said,
        head=HeadOptions(),
        fit=replace(fit, loss="odin"),
        generator=random(),
    )
    seen = known.features(torch.arange(M), torch.zeros(M, dtype=torch.int64))
    values = [heads.overall(heads.members(seen)).mean(0).detach() for heads in (plain, free)]
    with_size = [abs(float(pearson(value, size))) for value in values]
    assert with_size[1] < 0.2 * with_size[0]
    assert float(pearson(values[1], quality)) > 0.5
    assert_close(free.weights[0][0].mT, unit_rows(free.weights[0][0].mT))  # as the loss saw them
    assert free.options.aspects == (OVERALL, "nuisance")
    with pytest.raises(ConfigError, match="add --nuisance"):
        fit_heads(known, said, said, head=HeadOptions(), fit=replace(fit, loss="odin"), generator=random())
    with pytest.raises(ConfigError, match="is for --loss odin"):
        fit_heads(replace(known, nuisance=size), said, said, head=HeadOptions(), fit=fit, generator=random())


def crowd(known: Vectors, count: int = 360) -> tuple[Examples, torch.Tensor]:
    """Eight people want one thing and four its opposite; and who is of the minority."""
    said = pairs_by(known.media[:, 2], count)
    who = torch.randint(12, (count,), generator=random(4))
    turned = who >= 8
    first, second = torch.where(turned, said.second, said.first), torch.where(turned, said.first, said.second)
    names = tuple(f"person-{i}" for i in range(12))
    return replace(said, first=first, second=second, annotator=who, annotators=names), torch.arange(12) >= 8


def test_groups_are_found_the_larger_first_and_the_likelihood_never_falls(tmp_path: Path) -> None:
    known = vectors()
    said, minority = crowd(known)
    gap = known.media[said.first] - known.media[said.second]
    found = find_groups(gap, said.annotator, annotators=12, groups=2, generator=random(), ridge=1e-4)
    assert torch.equal(found.responsibility.argmax(1) == 1, minority)
    rises = torch.tensor(found.log_likelihood).diff()
    assert float(rises.min()) > -0.05  # the ridge is part of what rises
    one = find_groups(gap, said.annotator, annotators=12, groups=1, generator=random())
    assert_close(one.responsibility, torch.ones(12, 1, dtype=torch.float64))
    assert found.log_likelihood[-1] > one.log_likelihood[-1] + 50
    chance = annotator_log_likelihood(torch.zeros(len(gap), 1), said.annotator, annotators=12)
    assert one.log_likelihood[-1] >= float(mixture_log_likelihood(chance))
    grouped = in_groups(said, found)
    assert grouped.aspects == ("group-1", "group-2")
    assert torch.equal(grouped.aspect == 1, minority[said.annotator])
    write_groups(tmp_path, said.annotators, found)
    lines = (tmp_path / "groups.csv").read_text().splitlines()
    assert lines[1].startswith("person-0,group-1,")
    assert lines[-1].startswith("person-11,group-2,")
    with pytest.raises(ConfigError, match="groups = 13 of 12"):
        find_groups(gap, said.annotator, annotators=12, groups=13, generator=random())


def test_persons_share_features_and_a_new_one_is_known_by_a_few_pairs() -> None:
    known = vectors()
    said, minority = crowd(known)
    fit = FitOptions(epochs=25, batch_size=120, learning_rate=0.02, patience=25)
    options = HeadOptions(members=2, personal=True, aspects=("feature-1", "feature-2"))
    heads, _ = fit_heads(known, said, said, head=options, fit=fit, generator=random())
    seen = features_of(known, said)
    assert_close(heads.overall(heads.members(seen)).std(1, correction=0), torch.ones(2))

    def accuracy(mix: torch.Tensor, of: Examples) -> float:
        gap = heads.members(known.features(of.first, of.prompt)) - heads.members(
            known.features(of.second, of.prompt)
        )
        return float(((gap * mix[:, None]).sum(-1).mean(0) > 0).float().mean())

    theirs = said.pick(minority[said.annotator])
    few, rest = theirs.pick(torch.arange(20)), theirs.pick(torch.arange(20, len(theirs)))
    gap = heads.members(known.features(few.first, few.prompt)) - heads.members(
        known.features(few.second, few.prompt)
    )
    assert accuracy(heads.mix, rest) < 0.5  # the average person is of the majority
    assert accuracy(personal_mix(heads, gap, ridge=0.1), rest) > 0.9
    assert_close(personal_mix(heads, gap[:, :0]), heads.mix)
    assert_close(personal_mix(heads, gap, ridge=1e9), heads.mix, atol=1e-4, rtol=1e-4)


def test_each_annotator_weighs_the_features_otherwise() -> None:
    people = People(2, 3, 4, generator=random())
    said, who = torch.randn(2, 5, 4, generator=random(1)), torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0]])
    for annotator in (who, who[0]):
        found = people(said, annotator)
        for k in range(2):
            for b in range(5):
                h = int(annotator[k, b] if annotator.ndim == 2 else annotator[b])
                assert_close(found[k, b], said[k, b] @ people.weights[k, h])
