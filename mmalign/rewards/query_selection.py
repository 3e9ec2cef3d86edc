"""Which N pairs of a whole pool to ask people about: a strategy for each prompt, and the best or a random N of all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.rewards.queries import (
    boltzmann_pair,
    double_thompson,
    gap_variance,
    thompson_and_variance,
    verdict_disagreement,
)

Strategy = Literal[
    "random", "thompson", "thompson-variance", "boltzmann", "variance", "disagreement", "margin"
]
"""random: any two; thompson: the favourites of two drawn members; thompson-variance: a drawn member's favourite and
what is hardest to tell from it; boltzmann: two by the softmax of the mean; variance: members disagree most about the
gap; disagreement: about who wins; margin: the mean can hardly tell the two apart."""
NEEDS_MEMBERS = ("thompson", "thompson-variance", "variance", "disagreement")
"""Strategies that one member alone makes no sense of."""
TRIES = 30
"""Draws for a pair of a prompt that was not chosen yet."""


@dataclass(frozen=True, slots=True)
class Query:
    """Two samples of one prompt, as indices.

    Args:
        prompt: which.
        first: a sample of it.
        second: another.
        value: what it was chosen for, the higher the sooner; of draws 1, and 0 where all members agreed.
    """

    prompt: int
    first: int
    second: int
    value: float

    @property
    def pair(self) -> tuple[int, int, int]:
        """Prompt, and both samples in their order."""
        return self.prompt, min(self.first, self.second), max(self.first, self.second)


def select_queries(
    scores: Sequence[Tensor],
    *,
    strategy: Strategy,
    count: int,
    generator: torch.Generator,
    per_prompt: int = 1,
    temperature: float = 1.0,
    known: frozenset[tuple[int, int, int]] = frozenset(),
) -> list[Query]:
    """The pairs that a strategy would ask about first.

    What ranks pairs (variance, disagreement, margin) gives the best of all; what draws them goes through the prompts
    in random order, and takes those where no second opinion was found last.

    Args:
        scores: of each prompt [E, n], by E members of its n samples; of ``random`` only n is read.
        strategy: which.
        count: pairs wanted.
        generator: of all draws.
        per_prompt: pairs of a prompt at most.
        temperature: of boltzmann, in the unit of the scores.
        known: pairs (prompt, first, second), first < second, that are labelled already.

    Returns:
        At most ``count`` different pairs, in the order in which they should be asked.

    Raises:
        UnknownNameError: ``strategy`` is none of them.
        ConfigError: ``count`` or ``per_prompt`` is below 1, a score is NaN, or the strategy asks several members and
            there is one.
        ShapeError: a prompt's scores are not [E, n].

    Source: Dwaracherla et al. 2024, Efficient Exploration for LLMs (arXiv:2402.00396), which asks about one pair of
    each prompt that comes; a choice among all prompts is ours.

    >>> two = [torch.tensor([[0.0, 0.1, 9.0]]), torch.tensor([[0.0, 3.0]])]
    >>> seeded = torch.Generator().manual_seed(0)
    >>> [query.pair for query in select_queries(two, strategy="margin", count=1, generator=seeded)]
    [(0, 0, 1)]
    """
    if strategy not in get_args(Strategy):
        raise UnknownNameError("strategy", strategy, get_args(Strategy))
    if count < 1 or per_prompt < 1:
        raise ConfigError(f"count = {count} and per_prompt = {per_prompt} are at least 1")
    for group in scores:
        if group.ndim != 2 or not len(group):
            raise ShapeError(f"scores: expected [E, n] of each prompt, got {list(group.shape)}")
        if group.isnan().any():
            raise ConfigError("scores: some are NaN; leave out what has no score")
        if strategy in NEEDS_MEMBERS and len(group) < 2:
            raise ConfigError(f"{strategy} asks several members of a reward, and this one has {len(group)}")
    some = [m for m, group in enumerate(scores) if group.shape[1] > 1]
    if strategy in _RANKED:
        return _ranked(scores, some, _RANKED[strategy], count, per_prompt, known)
    return _drawn(scores, some, strategy, count, per_prompt, known, generator, temperature)


def _ranked(
    scores: Sequence[Tensor],
    prompts: Sequence[int],
    worth: Callable[[Tensor], Tensor],
    count: int,
    per_prompt: int,
    known: frozenset[tuple[int, int, int]],
) -> list[Query]:
    found: list[Query] = []
    for m in prompts:
        value = worth(scores[m][:, None])[0]
        pairs = torch.triu_indices(len(value), len(value), 1).T.tolist()
        mine = [Query(m, i, j, float(value[i, j])) for i, j in pairs if (m, i, j) not in known]
        found += sorted(mine, key=lambda query: -query.value)[:per_prompt]
    return sorted(found, key=lambda query: -query.value)[:count]


def _drawn(
    scores: Sequence[Tensor],
    prompts: Sequence[int],
    strategy: Strategy,
    count: int,
    per_prompt: int,
    known: frozenset[tuple[int, int, int]],
    generator: torch.Generator,
    temperature: float,
) -> list[Query]:
    taken = set(known)
    asked: list[Query] = []
    agreed: list[Query] = []  # draws without a second opinion, for the end
    for _ in range(per_prompt):
        for place in torch.randperm(len(prompts), generator=generator).tolist():
            if len(asked) >= count:
                return asked
            m = prompts[place]
            for _ in range(TRIES):
                first, second, sure = _pair(scores[m], strategy, generator, temperature)
                query = Query(m, first, second, float(not sure))
                if query.pair not in taken:
                    taken.add(query.pair)
                    (agreed if sure else asked).append(query)
                    break
    return [*asked, *agreed][:count]


def _pair(
    scores: Tensor, strategy: Strategy, generator: torch.Generator, temperature: float
) -> tuple[int, int, bool]:
    """Two samples, and whether all who were asked agree."""
    group, sure = scores[:, None], False
    match strategy:
        case "random":
            pair = torch.randperm(scores.shape[1], generator=generator)[:2]
        case "boltzmann":
            pair = boltzmann_pair(group, temperature=temperature, generator=generator)[0]
        case "thompson-variance":
            pair = thompson_and_variance(group, generator=generator)[0]
        case _:
            found = double_thompson(group, generator=generator)
            pair, sure = found.pairs[0], bool(found.clash[0])
    return int(pair[0]), int(pair[1]), sure


def _closeness(scores: Tensor) -> Tensor:
    """[M, N, N], 0 where the mean of the members cannot tell two samples apart, and below 0 elsewhere."""
    mean = scores.mean(0)
    return -(mean[:, :, None] - mean[:, None, :]).abs()


_RANKED: dict[str, Callable[[Tensor], Tensor]] = {
    "disagreement": verdict_disagreement,
    "margin": _closeness,
    "variance": gap_variance,
}
