"""Groups of annotators who want different things: found by EM from their pairs, and a reward for each."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.files import whole_file
from mmalign.losses.annotator_groups import (
    annotator_log_likelihood,
    mixture_log_likelihood,
    pair_weights,
    responsibilities,
)
from mmalign.losses.linear_reward import bradley_terry_fit
from mmalign.rewards.learned_heads import OVERALL
from mmalign.training.reward_data import Examples
from mmalign.training.reward_objectives import Vectors

GROUPS = "groups.csv"
"""Of a trained reward's folder: who belongs to which group, and how probably."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Who wants what.

    Args:
        responsibility: [R, U], how probably each annotator belongs to each group; the largest group first.
        log_likelihood: of each iteration of the start that ended highest, nats.
    """

    responsibility: Tensor
    log_likelihood: list[float]


def find_groups(
    gap: Tensor,
    annotator: Tensor,
    *,
    annotators: int,
    groups: int,
    generator: torch.Generator,
    starts: int = 5,
    iterations: int = 30,
    directions: int = 256,
    ridge: float = 1e-2,
) -> Groups:
    """A mixture of linear Bradley–Terry rewards over annotators, by EM from several random starts.

    The M-step is exact up to its ridge, so that the penalised likelihood never falls.

    Args:
        gap: [N, H], features of the chosen samples less those of the rejected ones.
        annotator: [N], integers from 0.
        annotators: R.
        groups: U, at least 1.
        generator: of the starts, each of which puts every annotator into a group at random.
        starts: of which the likeliest end is taken.
        iterations: at most, of each; it stops where nobody changes group any more.
        directions: of the largest spread of ``gap``, in which the rewards are linear. What groups differ in need not
            spread much: of simulated people 32 and 128 found one group, 256 found both.
        ridge: of ``bradley_terry_fit``, of features whose spread is 1.

    Raises:
        ConfigError: fewer annotators than groups.

    Source: Chakraborty et al. 2024, MaxMin-RLHF, algorithm 2 (arXiv:2402.08925), in the soft form of Dempster, Laird
    and Rubin 1977.
    """
    if not 1 <= groups <= annotators:
        raise ConfigError(
            f"groups = {groups} of {annotators} annotators; expected from 1 to as many as there are"
        )
    _, _, turn = torch.linalg.svd(gap.double(), full_matrices=False)
    x = gap.double() @ turn[:directions].mT
    x = x / x.square().mean().sqrt()
    best: Groups | None = None
    for _ in range(starts):
        of = torch.randint(groups, (annotators,), generator=generator)
        belongs, path = torch.nn.functional.one_hot(of, groups).double(), list[float]()
        prior = belongs.mean(0)
        for _ in range(iterations):
            weight = pair_weights(belongs, annotator)
            # A group that lost everybody starts again from all, so that it can win some back.
            weight = torch.where(weight.sum(0) > 0, weight, torch.ones_like(weight))
            theta = torch.stack([bradley_terry_fit(x, weight=w, ridge=ridge) for w in weight.unbind(1)], 1)
            said = annotator_log_likelihood(x @ theta, annotator, annotators=annotators)
            path.append(float(mixture_log_likelihood(said, prior)))
            before, belongs = belongs, responsibilities(said, prior)
            prior = belongs.mean(0)
            if float((belongs - before).abs().max()) < 1e-3:
                break
        if best is None or path[-1] > best.log_likelihood[-1]:
            best = Groups(belongs[:, belongs.sum(0).argsort(descending=True)], path)
    assert best is not None
    return best


def check_people(examples: Examples) -> None:
    """Refuse what tells nothing of who said it.

    Raises:
        ConfigError: rows that name no annotator, other data than pairs, or pairs of several aspects.
    """
    if examples.kind != "pairs" or examples.aspects != (OVERALL,) or "" in examples.annotators:
        raise ConfigError(
            "--groups and --personal are of pairs without aspects that all name their annotator"
        )


def groups_of(examples: Examples, vectors: Vectors, *, groups: int, generator: torch.Generator) -> Groups:
    """``find_groups`` of pairs.

    Raises:
        ConfigError: as ``check_people``, or fewer annotators than groups.
    """
    check_people(examples)
    gap = vectors.features(examples.first, examples.prompt) - vectors.features(
        examples.second, examples.prompt
    )
    return find_groups(
        gap.cpu(), examples.annotator, annotators=len(examples.annotators), groups=groups, generator=generator
    )


def in_groups(examples: Examples, found: Groups) -> Examples:
    """Pairs whose aspect is the group of who said so: "group-1" is the largest."""
    names = tuple(f"group-{number + 1}" for number in range(found.responsibility.shape[1]))
    return replace(examples, aspects=names, aspect=found.responsibility.argmax(1)[examples.annotator])


def write_groups(folder: Path, annotators: tuple[str, ...], found: Groups) -> None:
    """``groups.csv``: annotator, group, probability."""
    probability, of = found.responsibility.max(1)
    with (
        whole_file(folder / GROUPS) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["annotator", "group", "probability"])
        for name, group, share in zip(annotators, of.tolist(), probability.tolist(), strict=True):
            writer.writerow([name, f"group-{group + 1}", f"{share:.4f}"])
