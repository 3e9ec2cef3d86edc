"""Which pair of a prompt's candidates to ask people about, from the scores of several members; no model, no data."""

from typing import NamedTuple

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError


class Queries(NamedTuple):
    """A pair of candidates for each prompt."""

    pairs: Tensor
    """[M, 2], indices of two different candidates."""
    clash: Tensor
    """[M], booleans: no second opinion was found, and the second candidate is only the next best."""


def double_thompson(scores: Tensor, *, generator: torch.Generator, tries: int | None = None) -> Queries:
    """Two members are drawn, and each names its favourite; a second who agrees is replaced by another.

    Args:
        scores: [E, M, N], by E members of N >= 2 candidates for each of M prompts.
        generator: of the draws, which are without replacement within a prompt.
        tries: second members at most; all others if not given.

    Returns:
        The favourite of the first and of the second; where all who were asked agree, the first one's favourite and
        its next best, marked as a clash. Favourites of equal score: the first.

    Raises:
        ShapeError: not [E, M, N] with N >= 2.
        ConfigError: a score is NaN, or ``tries`` is below 1.

    Source: Wu and Liu 2016, Double Thompson Sampling for Dueling Bandits (arXiv:1604.07101); Dwaracherla et al. 2024,
    Efficient Exploration for LLMs, section 4 (arXiv:2402.00396). The code that the form is from (oat) asks one member
    fewer than its option says; this asks as many.

    >>> two = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]])
    >>> double_thompson(two, generator=torch.Generator().manual_seed(0)).pairs.sort(1).values
    tensor([[0, 2]])
    """
    E, M, _ = _check(scores)
    if tries is not None and tries < 1:
        raise ConfigError(f"tries = {tries}, but at least one second member is asked")
    favourite = scores.argmax(2)
    pairs, clash = [], []
    for m in range(M):
        members = torch.randperm(E, generator=generator, device=generator.device).tolist()
        asked = members[1 : None if tries is None else 1 + tries]
        first = int(favourite[members[0], m])
        other = [int(favourite[e, m]) for e in asked if int(favourite[e, m]) != first]
        second = other[0] if other else _next_best(scores[members[0], m], first)
        pairs.append((first, second))
        clash.append(not other)
    return Queries(
        torch.tensor(pairs, dtype=torch.int64).reshape(M, 2), torch.tensor(clash, dtype=torch.bool)
    )


def gap_variance(scores: Tensor) -> Tensor:
    """How much members disagree about each pair's gap.

        var_e( scores[e, m, i] - scores[e, m, j] ),   population variance

    Args:
        scores: [E, M, N].

    Returns:
        [M, N, N], symmetric, 0 on the diagonal; a member's own zero cancels.

    Raises:
        ShapeError: not [E, M, N] with N >= 2.
        ConfigError: a score is NaN.

    Source: Infomax of Dwaracherla et al. 2024, section 4 (arXiv:2402.00396).

    >>> gap_variance(torch.tensor([[[0.0, 1.0]], [[0.0, 3.0]]]))
    tensor([[[0., 1.],
             [1., 0.]]])
    """
    _check(scores)
    return (scores[..., :, None] - scores[..., None, :]).var(0, correction=0)


def verdict_disagreement(scores: Tensor) -> Tensor:
    """How much members disagree about who wins each pair, in nats: where all are sure of one side it is 0.

        mean_e KL( Bernoulli(p[e]) || Bernoulli(mean_e p[e]) ),   p[e] = sigmoid(scores[e, m, i] - scores[e, m, j])

    Args:
        scores: [E, M, N], log odds.

    Returns:
        [M, N, N], symmetric, 0 on the diagonal, at most log 2.

    Raises:
        ShapeError: not [E, M, N] with N >= 2.
        ConfigError: a score is NaN.

    Source: mutual information of Houlsby et al. 2011, BALD (arXiv:1112.5745), for pairs.

    >>> verdict_disagreement(torch.tensor([[[50.0, 0.0]], [[-50.0, 0.0]]]))[0, 0, 1]  # log 2
    tensor(0.6931)
    """
    _check(scores)
    gap = scores[..., :, None] - scores[..., None, :]
    p = gap.sigmoid()
    mean = p.mean(0)
    information = _entropy(mean) - _entropy(p).mean(0)
    return information.clamp(min=0)


def most_informative(information: Tensor) -> Tensor:
    """The pair with the largest number, of ``gap_variance`` or ``verdict_disagreement``.

    Args:
        information: [M, N, N], symmetric.

    Returns:
        [M, 2], the first index the smaller; of equals the first pair in reading order.

    Raises:
        ShapeError: not [M, N, N] with N >= 2.
        ConfigError: a number is NaN.

    >>> most_informative(torch.tensor([[[0.0, 1.0, 4.0], [1.0, 0.0, 2.0], [4.0, 2.0, 0.0]]]))
    tensor([[0, 2]])
    """
    if information.ndim != 3 or information.shape[1] != information.shape[2] or information.shape[1] < 2:
        raise ShapeError(f"information: expected [M, N, N] with N >= 2, got {list(information.shape)}")
    if information.isnan().any():
        raise ConfigError("information: some are NaN; leave out what has no score")
    N = information.shape[1]
    first, second = torch.triu_indices(N, N, 1, device=information.device)
    best = information[:, first, second].argmax(1)
    return torch.stack([first[best], second[best]], 1)


def thompson_and_variance(scores: Tensor, *, generator: torch.Generator) -> Tensor:
    """A drawn member's favourite, and whoever it is hardest to tell from it.

        first = argmax_j scores[e, m, j] of a drawn member e,   second = argmax_j gap_variance[m, first, j]

    Args:
        scores: [E, M, N].
        generator: of the draws.

    Returns:
        [M, 2], different indices.

    Raises:
        ShapeError: not [E, M, N] with N >= 2.
        ConfigError: a score is NaN.

    Source: best-arm identification with Thompson sampling of the code of Liu et al. 2024, Sample-Efficient Alignment
    for LLMs (arXiv:2411.01493).
    """
    E, M, _ = _check(scores)
    member = torch.randint(E, (M,), generator=generator, device=generator.device).to(scores.device)
    prompt = torch.arange(M, device=scores.device)
    first = scores.argmax(2)[member, prompt]
    variance = gap_variance(scores)[prompt, first]
    variance = variance.scatter(1, first[:, None], -1.0)  # never with itself, even where all agree
    return torch.stack([first, variance.argmax(1)], 1)


def smallest_gap(scores: Tensor) -> Tensor:
    """The pair that the mean reward can hardly tell apart.

    Args:
        scores: [E, M, N].

    Returns:
        [M, 2], the first index the smaller.

    Raises:
        ShapeError: not [E, M, N] with N >= 2.
        ConfigError: a score is NaN.

    >>> smallest_gap(torch.tensor([[[0.0, 5.0, 4.0]]]))
    tensor([[1, 2]])
    """
    _check(scores)
    mean = scores.mean(0)
    return most_informative(-(mean[:, :, None] - mean[:, None, :]).abs())


def boltzmann_pair(scores: Tensor, *, temperature: float, generator: torch.Generator) -> Tensor:
    """Two different candidates drawn by the softmax of the mean reward; hot, it is a random pair.

    Args:
        scores: [E, M, N].
        temperature: above 0, in the unit of the scores.
        generator: of the draws.

    Returns:
        [M, 2].

    Raises:
        ShapeError: not [E, M, N] with N >= 2.
        ConfigError: a score is NaN, or ``temperature`` is not positive.

    Source: Dwaracherla et al. 2024, section 4 (arXiv:2402.00396).
    """
    _, M, N = _check(scores)
    if not temperature > 0:
        raise ConfigError(f"temperature = {temperature}, but it is above 0")
    # The two largest of log p + Gumbel noise are a draw without replacement, with no probability that underflows.
    uniform = torch.rand(M, N, generator=generator, device=generator.device, dtype=torch.float64)
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
    return (scores.mean(0).double() / temperature + gumbel.to(scores.device)).topk(2, dim=1).indices


def near_policy(step: Tensor, *, now: int, window: int) -> Tensor:
    """Which samples the current policy might still draw: what is informative but stale does not help it.

        now - window < step[b] <= now

    Args:
        step: [B], the optimiser step at which each sample was drawn.
        now: the current one.
        window: how many steps back count, at least 1.

    Returns:
        [B], booleans.

    Raises:
        ShapeError: not [B].
        ConfigError: ``window`` is below 1, or a sample is from the future.

    Source: Hu et al. 2023, Query-Policy Misalignment in Preference-Based RL, section 4 (arXiv:2305.17400).

    >>> near_policy(torch.tensor([0, 8, 10]), now=10, window=3)
    tensor([False,  True,  True])
    """
    if step.ndim != 1:
        raise ShapeError(f"step: expected [B], got {list(step.shape)}")
    if window < 1 or (step > now).any():
        raise ConfigError(
            f"window = {window} and now = {now}, but window is at least 1 and no step is after now"
        )
    return step > now - window


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p) + torch.special.entr(1 - p)


def _next_best(scores: Tensor, first: int) -> int:
    rest = scores.clone()
    rest[first] = -torch.inf
    best = int(rest.argmax())
    return best if best != first else int(first == 0)


def _check(scores: Tensor) -> tuple[int, int, int]:
    if scores.ndim != 3 or not len(scores) or scores.shape[2] < 2:
        raise ShapeError(f"scores: expected [E, M, N] with E >= 1 and N >= 2, got {list(scores.shape)}")
    if scores.isnan().any():
        raise ConfigError("scores: some are NaN; leave out what has no score")
    E, M, N = scores.shape
    return E, M, N
