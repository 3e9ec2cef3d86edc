"""What all measured rewards share: a formula of one medium, and a reason where it has no value."""

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmalign.errors import MissingExtraError
from mmalign.media import Sample
from mmalign.rewards.base import OK, Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard

LARGEST_CALL_BYTES = 2**27
"""Of media that go through a formula at once: it makes several of their size."""


class Unmeasurable(Exception):  # noqa: N818
    """A sample that a formula is not defined for; the message becomes its status, and no caller ever sees it raised."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is measured of one sample: the number, the numbers beside it, and the words that were read or heard."""

    value: float
    aspects: Mapping[str, float] = field(default_factory=dict)
    text: str | None = None


class MeasuredReward(ABC):
    """A reward that measures sample by sample, on the CPU.

    A subclass has :meth:`measure` and names its aspects.
    """

    aspects: ClassVar[tuple[str, ...]] = ()

    def __init__(self, card: RewardCard, *, device: str = "cpu") -> None:
        self.card, self.device = card, device

    @abstractmethod
    def measure(self, sample: Sample) -> Measurement:
        """Measure a sample that has its medium and whatever else the card needs.

        Raises:
            Unmeasurable: the formula is not defined for it.
        """

    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per sample; one that cannot be measured has the reason as its status."""
        status = [obstacle(sample, self.card) for sample in samples]
        found = []
        for row, sample in enumerate(samples):
            if status[row] == OK:
                try:
                    found.append(self.measure(sample))
                except Unmeasurable as reason:
                    status[row] = str(reason)
        score = scatter(
            status,
            torch.tensor([measurement.value for measurement in found]),
            {name: torch.tensor([float(m.aspects[name]) for m in found]) for name in self.aspects},
        )
        if all(measurement.text is None for measurement in found):
            return score
        texts = iter(found)
        return replace(score, text=[(next(texts).text or "") if entry == OK else "" for entry in status])


class TensorReward(ABC):
    """A measured reward whose gradient reaches the medium, in batches of media of one shape.

    A subclass has :meth:`tensor` and :meth:`score_with_grad`; a score is the second of the first, without gradient.

    Args:
        card: says what it takes.
        device: where it is computed.
        batch_size: media in one call.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu", batch_size: int = 16) -> None:
        self.card, self.device, self.batch_size = card, device, batch_size

    @abstractmethod
    def tensor(self, sample: Sample) -> Tensor:
        """A sample's medium as ``score_with_grad`` takes it, without the batch axis.

        Raises:
            Unmeasurable: the formula is not defined for it.
        """

    @abstractmethod
    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Scores [B] of batched media, whose gradient reaches ``media``; what else is needed comes from ``samples``."""

    @torch.no_grad()
    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per sample; one that cannot be measured has the reason as its status."""
        status = [obstacle(sample, self.card) for sample in samples]
        alike: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
        for row, sample in enumerate(samples):
            if status[row] == OK:
                try:
                    medium = self.tensor(sample)
                except Unmeasurable as reason:
                    status[row] = str(reason)
                else:
                    alike.setdefault(tuple(medium.shape), []).append((row, medium))
        values = torch.zeros(len(samples))
        for members in alike.values():
            size = max(1, min(self.batch_size, LARGEST_CALL_BYTES // members[0][1].nbytes))
            for start in range(0, len(members), size):
                batch = members[start : start + size]
                rows = [row for row, _ in batch]
                # A large medium comes alone, and is not copied.
                media = torch.stack([medium for _, medium in batch]) if size > 1 else batch[0][1][None]
                media = media.to(self.device)
                values[rows] = self.score_with_grad(media, [samples[row] for row in rows]).float().cpu()
        return scatter(status, values[[row for row, entry in enumerate(status) if entry == OK]])


def needed(module: str, *, extra: str) -> Any:
    """Import what an extra of this package brings.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(module, extra) from error


def file_of(package: str, path: str, *, extra: str) -> Path:
    """A file that an installed package carries, found without importing the package.

    Raises:
        MissingExtraError: the package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    raise MissingExtraError(package, extra)
