"""Fits a head on patches and words: new wrong captions in every step, and a stop where unseen prompts get worse."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmalign.errors import NonFiniteError
from mmalign.losses.detection import region_detection_loss, word_detection_loss
from mmalign.rewards.clip_dense import DenseClip
from mmalign.rewards.dense_head import DenseHead, Tune
from mmalign.training.dense_data import DenseExample
from mmalign.training.reward_fitting import FitOptions
from mmalign.training.reward_perturbations import Perturber

BACKBONE_RATE: dict[Tune, float] = {"lora": 0.5, "full": 0.1}
"""The learning rate of what is trained of a backbone, as a share of the head's."""
WARM_UP = 0.05
"""Share of all steps in which the learning rate rises."""


@dataclass(frozen=True)
class Captioned:
    """A picture with what is said of it, once: an example as it is, or one whose caption was made wrong.

    Args:
        text: the caption.
        medium: index of its picture.
        right: of each word.
        example: which one, for its region; None where the caption is a new one, whose fault has no place.
    """

    text: str
    medium: int
    right: tuple[bool, ...]
    example: int | None


class DenseModel:
    """Backbone and head as one, on pictures that are kept as features or, where the backbone is trained, as pixels.

    Args:
        dense: of the backbone.
        head: on it.
        kept: of all pictures: [M, P, D], or [M, 3, h, w] normalised.
        regions: [N, P] of examples.
        region_known: [N], booleans.
        trained: the backbone's parameters that are trained, by name.
        device: where it runs.
    """

    def __init__(
        self,
        dense: DenseClip,
        head: DenseHead,
        *,
        kept: Tensor,
        regions: Tensor,
        region_known: Tensor,
        trained: dict[str, torch.nn.Parameter],
        device: str = "cpu",
    ) -> None:
        self.dense, self.head, self.kept, self.device = dense, head, kept, device
        self.regions, self.region_known, self.trained = regions, region_known, trained

    def __call__(self, rows: Sequence[Captioned]) -> tuple[Tensor, Tensor | None, Tensor]:
        """Logits of words [B, W] and patches [B, P] or None, and which words there are [B, W]."""
        seen = self.kept[[row.medium for row in rows]].float().to(self.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(self.trained)):
            words, mask = self.dense.words([row.text for row in rows])
            patches = seen if seen.ndim == 3 else self.dense.patches(seen)
        right, wrong = self.head(patches, words, mask)
        return right, wrong, mask

    def loss(self, rows: Sequence[Captioned]) -> Tensor:
        """Of words and, where the head has them, of regions; scalar, nats."""
        logits, wrong, mask = self(rows)
        right = pad_sequence([torch.tensor(row.right) for row in rows], batch_first=True)
        # Of a prompt that the backbone does not read to its end, the last words have no feature and no label.
        loss = word_detection_loss(logits, right.to(self.device), mask)
        if wrong is None:
            return loss
        at = torch.tensor([-1 if row.example is None else row.example for row in rows])
        known = (at >= 0) & self.region_known[at]
        return loss + region_detection_loss(wrong, self.regions[at].to(self.device), known.to(self.device))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Copies of the head's tensors and of what is trained of the backbone."""
        backbone = {name: parameter.detach().cpu().clone() for name, parameter in self.trained.items()}
        return copy.deepcopy(self.head.state_dict()), backbone

    @torch.no_grad()
    def load(self, head: dict[str, Tensor], backbone: dict[str, Tensor]) -> None:
        """Take what ``state`` gave."""
        self.head.load_state_dict(head)
        for name, parameter in self.trained.items():
            parameter.copy_(backbone[name])


def say(
    examples: Sequence[DenseExample],
    rows: Sequence[int],
    perturber: Perturber,
    generator: torch.Generator,
    *,
    negatives: float,
) -> list[Captioned]:
    """What is said of the pictures of some examples: right captions with a chance made wrong, others as they are.

    Args:
        examples: all.
        rows: which.
        perturber: makes captions wrong.
        generator: of the chance and of what is wrong.
        negatives: the chance.
    """
    said = []
    for i in rows:
        e = examples[i]
        made = None
        if e.sound and float(torch.rand((), generator=generator)) < negatives:
            made = perturber(e.prompt, generator)
        if made is None:
            said.append(Captioned(e.prompt, e.medium, e.right, i))
        else:
            said.append(Captioned(made.text, e.medium, made.labels, None))
    return said


def both_ways(
    examples: Sequence[DenseExample], rows: Sequence[int], perturber: Perturber, generator: torch.Generator
) -> list[Captioned]:
    """Examples as they are, and right ones made wrong as well: what a head is judged on."""
    as_they_are = say(examples, rows, perturber, generator, negatives=0.0)
    made = say(examples, rows, perturber, generator, negatives=1.0)
    return as_they_are + [row for row in made if row.example is None]


def fit_dense(
    model: DenseModel,
    examples: Sequence[DenseExample],
    train: Sequence[int],
    stopping: Sequence[int],
    *,
    perturber: Perturber,
    negatives: float,
    fit: FitOptions,
    generator: torch.Generator,
    after_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train until unseen prompts get worse or the epochs are over, and keep the best epoch.

    The learning rate rises for the first steps and then falls to zero in a straight line.

    Args:
        model: what is trained.
        examples: all.
        train: indices to learn from.
        stopping: indices of other prompts.
        perturber: makes captions wrong, anew in every step.
        negatives: share of right captions that are made wrong.
        fit: how.
        generator: of order and wrong captions.
        after_epoch: told the epoch, from 1, and the loss on ``stopping``.

    Returns:
        The loss on ``stopping`` after each epoch, nats.

    Raises:
        NonFiniteError: a loss is NaN or infinite.
    """
    groups: list[dict[str, object]] = [{"params": list(model.head.parameters()), "lr": fit.learning_rate}]
    if model.trained:
        rate = BACKBONE_RATE[model.head.options.tune] * fit.learning_rate
        groups.append({"params": list(model.trained.values()), "lr": rate})
    optimiser = torch.optim.AdamW(groups, weight_decay=fit.weight_decay)
    steps = fit.epochs * -(-len(train) // fit.batch_size)
    warm = max(1, round(WARM_UP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    judged = both_ways(examples, stopping, perturber, generator)
    best, losses = model.state(), list[float]()
    for epoch in range(1, fit.epochs + 1):
        order = [train[i] for i in torch.randperm(len(train), generator=generator).tolist()]
        for start in range(0, len(order), fit.batch_size):
            rows = say(
                examples, order[start : start + fit.batch_size], perturber, generator, negatives=negatives
            )
            loss = model.loss(rows)
            if not bool(loss.isfinite()):
                raise NonFiniteError(f"the loss of epoch {epoch} is {loss.item()}; lower --learning-rate")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        losses.append(mean_loss(model, judged))
        after_epoch(epoch, losses[-1])
        if losses[-1] == min(losses):
            best = model.state()
        elif epoch - losses.index(min(losses)) - 1 >= fit.patience:
            break
    model.load(*best)
    return losses


@torch.no_grad()
def mean_loss(model: DenseModel, rows: Sequence[Captioned], *, batch_size: int = 128) -> float:
    """Over all rows, each counted alike."""
    total = 0.0
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        total += float(model.loss(part)) * len(part)
    return total / max(1, len(rows))
