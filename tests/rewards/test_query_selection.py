"""Which pairs of a pool are asked about first."""

import pytest
import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.rewards.label_routing import doubtful_labels, knee
from mmalign.rewards.queries import gap_variance
from mmalign.rewards.query_selection import Strategy, select_queries

E, M, N = 4, 6, 5


def pool(seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(E, N, generator=random) for _ in range(M)]


def chosen(strategy: Strategy, count: int, seed: int = 0, **options: object) -> list[tuple[int, int, int]]:
    seeded = torch.Generator().manual_seed(seed)
    found = select_queries(pool(), strategy=strategy, count=count, generator=seeded, **options)  # type: ignore[arg-type]
    return [query.pair for query in found]


def test_the_most_variable_pairs_of_all_prompts_come_first() -> None:
    every = sorted(
        ((float(gap_variance(group[:, None])[0, i, j]), (m, i, j)))
        for m, group in enumerate(pool())
        for i in range(N)
        for j in range(i + 1, N)
    )[::-1]
    assert chosen("variance", 7, per_prompt=99) == [pair for _, pair in every[:7]]
    best = {m: next(pair for _, pair in every if pair[0] == m) for m in range(M)}
    assert set(chosen("variance", M)) == set(best.values())  # one of each prompt


@pytest.mark.parametrize("strategy", ["random", "thompson", "thompson-variance", "boltzmann", "margin"])
def test_all_pairs_can_be_asked_once_and_never_what_is_known(strategy: Strategy) -> None:
    first = chosen(strategy, 10, per_prompt=4)
    assert len(first) == len(set(first)) == 10
    more = chosen(strategy, 10, seed=1, per_prompt=4, known=frozenset(first))
    assert not set(first) & set(more)
    assert all(0 <= i < j < N for _, i, j in more)


def test_prompts_where_all_members_agree_are_asked_last() -> None:
    scores = pool()
    scores[2] = scores[2][:1].expand(E, N)
    seeded = torch.Generator().manual_seed(0)
    found = select_queries(scores, strategy="thompson", count=M, generator=seeded)
    last = [query.prompt for query in found if query.value == 0]
    assert 2 in last
    assert [query.value for query in found] == sorted((query.value for query in found), reverse=True)


def test_a_prompt_with_one_sample_is_passed_over_and_mistakes_are_told() -> None:
    seeded = torch.Generator().manual_seed(0)
    alone = [torch.zeros(E, 1), torch.zeros(E, 2)]
    assert [q.pair for q in select_queries(alone, strategy="random", count=9, generator=seeded)] == [
        (1, 0, 1)
    ]
    with pytest.raises(UnknownNameError, match="strategy"):
        chosen("best", 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        chosen("random", 0)
    with pytest.raises(ConfigError, match="asks several members"):
        select_queries([torch.zeros(1, 2)], strategy="variance", count=1, generator=seeded)
    with pytest.raises(ShapeError, match=r"expected \[E, n\]"):
        select_queries([torch.zeros(2)], strategy="random", count=1, generator=seeded)
    with pytest.raises(ConfigError, match="NaN"):
        select_queries([torch.full((2, 2), torch.nan)], strategy="margin", count=1, generator=seeded)


def test_doubtful_labels_are_the_lowest_margins_and_most_of_them_are_wrong() -> None:
    """A fifth of the labels turned, and margins that know it but for some noise: the lowest fifth are turned ones."""
    random = torch.Generator().manual_seed(0)
    turned = torch.rand(500, generator=random) < 0.2
    margins = torch.where(turned, -1.0, 1.0) + 0.4 * torch.randn(500, generator=random)
    order, turn = doubtful_labels(margins, budget=100)
    assert turned[order].float().mean() >= 0.8
    assert torch.equal(margins[order], margins.sort().values[:100])
    lower = margins.sort().values[:250]
    assert turn == pytest.approx(float(lower[knee(lower)]))
    assert doubtful_labels(margins, budget=0)[0].tolist() == []
    with pytest.raises(ConfigError, match="budget = -1"):
        doubtful_labels(margins, budget=-1)
    with pytest.raises(ShapeError, match="margins"):
        doubtful_labels(margins[None], budget=1)
