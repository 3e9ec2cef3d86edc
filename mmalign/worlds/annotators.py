"""Simulated annotators: people who see a world's true reward through noise, taste, bias, habit and indifference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError, UnknownNameError

SOURCE = "simulated"
"""What the column ``source`` of their rows says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotator:
    """One person who compares two media of a prompt.

        u      = sum_i tastes[i] * m_i + sum_j bias[j] * m_j
        d      = u(shown first) - u(shown second) + first_bonus
        d's sign is the verdict; a tie where |d| <= tie_within; the first with probability sigmoid(d / temperature)
        where there is a temperature; any verdict but a tie turned with probability ``flip``

    Args:
        name: of the column ``annotator``.
        tastes: weights of what a world measures of a medium; by default its overall truth.
        bias: weights of covariates that should not matter: area, duration_s, brightness.
        flip: chance that a verdict is turned, whatever the difference.
        temperature: in the unit of u; 0 for a person who always takes the better one.
        tie_within: the largest |d| that is a tie; 0 for a tie of equals only.
        first_bonus: what being shown first is worth, in the unit of u.

    Raises:
        ConfigError: a number that cannot be.
    """

    name: str
    tastes: Mapping[str, float] = field(default_factory=lambda: {"overall": 1.0})
    bias: Mapping[str, float] = field(default_factory=dict)
    flip: float = 0.0
    temperature: float = 0.0
    tie_within: float = 0.0
    first_bonus: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"flip = {self.flip}, but a chance is in [0, 1]")
        if not self.temperature >= 0 or not self.tie_within >= 0:
            raise ConfigError(
                f"temperature = {self.temperature} and tie_within = {self.tie_within}, but neither is below 0"
            )
        if not self.tastes:
            raise ConfigError("tastes: somebody without any has no verdict; {'overall': 1.0} is usual")

    def utility(self, measured: Mapping[str, Tensor]) -> Tensor:
        """[B], what media are worth to this person.

        Args:
            measured: named [B]: the world's truth and its aspects, and covariates.

        Raises:
            UnknownNameError: a taste or bias is about something that was not measured.
        """
        total = torch.zeros(())
        for name, weight in (*self.tastes.items(), *self.bias.items()):
            if name not in measured:
                raise UnknownNameError("measured quantity", name, measured)
            total = total + weight * measured[name].float()
        return total

    def verdicts(
        self, first: Mapping[str, Tensor], second: Mapping[str, Tensor], *, generator: torch.Generator
    ) -> Tensor:
        """What this person says of B pairs, in the order in which they are shown.

        Args:
            first: measured of the media shown first, named [B].
            second: of the others.
            generator: of the noise.

        Returns:
            [B] of 1 (the first is better), -1 (the second) and 0 (a tie).

        Raises:
            ShapeError: the two sides are not [B] each.
            UnknownNameError: as ``utility``.
        """
        mine, other = self.utility(first), self.utility(second)
        if mine.ndim != 1 or mine.shape != other.shape:
            raise ShapeError(f"expected [B] on both sides, got {list(mine.shape)} and {list(other.shape)}")
        difference = mine - other + self.first_bonus
        # Drawn whether they are used or not, so that one person's noise does not depend on another setting of theirs.
        seen, turned = torch.rand(2, len(difference), generator=generator)
        verdict = difference.sign()
        if self.temperature > 0:
            verdict = torch.where(seen < torch.sigmoid(difference / self.temperature), 1.0, -1.0)
        verdict = torch.where(turned < self.flip, -verdict, verdict)
        return verdict.masked_fill(difference.abs() <= self.tie_within, 0.0)


def crowd(groups: Mapping[str, Annotator], *, each: int) -> list[Annotator]:
    """``each`` people of every group, named ``group/number``: one taste a group, one noise a person.

    >>> [person.name for person in crowd({"colour": Annotator(name="colour", flip=0.1)}, each=2)]
    ['colour/0', 'colour/1']
    """
    return [replace(one, name=f"{group}/{number}") for group, one in groups.items() for number in range(each)]


@dataclass(frozen=True, slots=True)
class Annotations:
    """Rows of a preference file: in = pairs + ties.

    Args:
        pairs: ``prompt, chosen, rejected, annotator, source``.
        ties: ``prompt, samples, ranks, source``: rankings of two with one rank.
        turned: of each pair, whether its verdict differs from the truth's; False where the truth has none.
    """

    pairs: list[dict[str, Any]]
    ties: list[dict[str, Any]]
    turned: list[bool]


def annotate(
    annotators: Sequence[Annotator],
    prompts: Sequence[str],
    media: Sequence[tuple[str, str]],
    measured: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    *,
    generator: torch.Generator,
    truth: str = "overall",
) -> Annotations:
    """Show each pair, in a random order, to one annotator drawn at random.

    Args:
        annotators: who judges.
        prompts: B.
        media: B times the names of two files.
        measured: of the first and of the second of each pair, named [B].
        generator: who judges what, in which order, and with which noise.
        truth: the measured quantity that ``turned`` goes by.

    Raises:
        ConfigError: no annotator.
        ShapeError: not B of everything.
        UnknownNameError: ``truth``, a taste or a bias is not measured.
    """
    count = len(prompts)
    for side in measured:
        if truth not in side:
            raise UnknownNameError("measured quantity", truth, side)
    if len(media) != count or any(len(values) != count for side in measured for values in side.values()):
        raise ShapeError(f"expected {count} media and measurements, as there are prompts")
    verdict, who = verdicts_of(annotators, measured, count=count, generator=generator)
    true = (measured[0][truth] - measured[1][truth]).sign()
    pairs: list[dict[str, Any]] = []
    ties: list[dict[str, Any]] = []
    turned = []
    for row in range(count):
        if verdict[row] == 0:
            ties.append(
                {"prompt": prompts[row], "samples": list(media[row]), "ranks": [1, 1], "source": SOURCE}
            )
            continue
        chosen, rejected = media[row] if verdict[row] > 0 else media[row][::-1]
        pairs.append(
            {
                "prompt": prompts[row],
                "chosen": chosen,
                "rejected": rejected,
                "annotator": annotators[int(who[row])].name,
                "source": SOURCE,
            }
        )
        turned.append(bool(true[row] * verdict[row] < 0))
    return Annotations(pairs, ties, turned)


def verdicts_of(
    annotators: Sequence[Annotator],
    measured: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    *,
    count: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """What one annotator drawn at random says of each pair, which is shown in a random order.

    Args:
        annotators: who judges.
        measured: of the first and of the second of each pair, named [B].
        count: B.
        generator: who judges what, in which order, and with which noise.

    Returns:
        [B] of 1 (the first is better), -1 (the second) and 0 (a tie); and [B], the index of who said it.

    Raises:
        ConfigError: no annotator.
        UnknownNameError: a taste or a bias is not measured.
    """
    if not annotators:
        raise ConfigError("no annotator, so nobody says what is better")
    who = torch.randint(len(annotators), (count,), generator=generator)
    swapped = torch.rand(count, generator=generator) < 0.5
    shown = [
        {name: torch.where(swapped, theirs[name], ours[name]) for name in ours}
        for ours, theirs in (measured, measured[::-1])
    ]
    verdict = torch.zeros(count)
    for number, annotator in enumerate(annotators):
        rows = (who == number).nonzero()[:, 0]
        first, second = ({name: values[rows] for name, values in side.items()} for side in shown)
        verdict[rows] = annotator.verdicts(first, second, generator=generator)
    return torch.where(swapped, -verdict, verdict), who


PEOPLE = crowd({SOURCE: Annotator(name=SOURCE, flip=0.1)}, each=5)
"""Five who go by the truth and are wrong about one pair in ten."""
