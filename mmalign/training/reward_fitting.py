"""Fits heads to examples: batches of each member's own draw, AdamW, and a stop where unseen prompts get worse."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmalign.errors import ConfigError, NonFiniteError
from mmalign.losses.odin import unit_rows
from mmalign.losses.rating import inner_share
from mmalign.rewards.learned_heads import OVERALL, HeadOptions, Heads
from mmalign.training.reward_data import Examples
from mmalign.training.reward_objectives import Objective, People, Vectors, chosen_loss

NUISANCE = "nuisance"
"""The aspect of the head that takes what should not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions:
    """How heads are fitted.

    Raises:
        ConfigError: a number that cannot work.
    """

    loss: str = "auto"
    """A name of ``LOSSES``, or auto for the first of the kind of data."""
    tie: float = 1.0
    """Of davidson: at equal rewards a tie is so many times as probable as a win."""
    threshold: float = 5.0
    """Of rao-kupper: the odds by which a side has to lead before it wins half the time."""
    margin_scale: float = 0.0
    """Of bradley-terry: log odds per unit of the margins, by which the chosen side has to lead."""
    epochs: int = 30
    """At most."""
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    """Decoupled, per step times the learning rate."""
    dropout: float = 0.0
    """Share of the standardised features that are set to 0, anew in every step."""
    patience: int = 4
    """Epochs without a lower loss on the stopping prompts after which training ends."""
    bootstrap: bool = True
    """Whether each member of an ensemble draws its examples with replacement."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.patience) < 1:
            raise ConfigError("epochs, batch_size and patience are at least 1")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise ConfigError(
                f"learning_rate = {self.learning_rate} is above 0 and weight_decay = {self.weight_decay} at least 0"
            )
        if not (self.threshold > 1 and self.margin_scale >= 0 and self.tie > 0):
            raise ConfigError(
                f"tie = {self.tie} is above 0, threshold = {self.threshold} above 1, and margin_scale = "
                f"{self.margin_scale} at least 0"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout = {self.dropout}, but it is a share in [0, 1)")


def fit_heads(
    vectors: Vectors,
    train: Examples,
    stopping: Examples,
    *,
    head: HeadOptions,
    fit: FitOptions,
    generator: torch.Generator,
    after_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> tuple[Heads, list[float]]:
    """Train heads until unseen prompts get worse, and keep those of the best epoch.

    Args:
        vectors: of media and prompts.
        train: examples to learn from.
        stopping: examples of other prompts.
        head: what is trained.
        fit: how.
        generator: of first weights, of what each member draws, and of dropout.
        after_epoch: told the epoch, from 1, and the loss on ``stopping``.

    Returns:
        The heads, and the loss on ``stopping`` after each epoch: nats, or for ratings in units of their variance.

    Raises:
        ConfigError: a loss that is not for these examples, or not for this head.
        NonFiniteError: a loss is NaN or infinite.
    """
    loss = chosen_loss(fit.loss, train)
    head, vectors = _for_loss(head, loss, vectors, train)
    heads = Heads(vectors.media.shape[1], head, generator=generator).to(vectors.media.device)
    seen = features_of(vectors, train)
    heads.standardise_inputs(seen)
    if train.kind == "ratings":
        train, stopping = (_bounded if head.bounded else _standardised)(heads, train, stopping)
    people = None
    if head.personal:
        people = People(head.members, len(train.annotators), len(head.aspects), generator=generator)
        people = people.to(vectors.media.device)
    objective = Objective(
        loss=loss, tie=fit.tie, threshold=fit.threshold, margin_scale=fit.margin_scale, people=people
    )
    parameters = [*heads.parameters(), *([] if people is None else people.parameters())]
    optimiser = torch.optim.AdamW(parameters, lr=fit.learning_rate, weight_decay=fit.weight_decay)
    units, unseen = objective.units(train), objective.units(stopping)
    every = torch.arange(len(unseen))
    best, best_loss, losses = _state(heads, people), float("inf"), []
    drawn = _drawn(len(units), head.members, bootstrap=fit.bootstrap, generator=generator)
    for epoch in range(1, fit.epochs + 1):
        order = drawn.gather(1, torch.rand(drawn.shape, generator=generator).argsort(1))
        for rows in order.split(fit.batch_size, dim=1):
            kept = None
            if fit.dropout:
                kept = torch.rand(*rows.shape, 3 * heads.width, generator=generator) >= fit.dropout
            value = objective(heads, vectors, units, rows, kept=kept)
            if not bool(value.isfinite()):
                raise NonFiniteError(f"the loss of epoch {epoch} is {value.item()}; lower --learning-rate")
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
        with torch.no_grad():
            losses.append(float(objective(heads, vectors, unseen, every)))
        after_epoch(epoch, losses[-1])
        if losses[-1] < best_loss:
            best, best_loss = _state(heads, people), losses[-1]
        elif epoch - losses.index(min(losses)) - 1 >= fit.patience:
            break
    heads.load_state_dict(best[0])
    if people is not None:
        people.load_state_dict(best[1])
    _finish(heads, loss, seen, people, pairs=train.kind == "pairs")
    return heads, losses


def _for_loss(head: HeadOptions, loss: str, vectors: Vectors, train: Examples) -> tuple[HeadOptions, Vectors]:
    """The head that a loss needs, and what it needs to know.

    Raises:
        ConfigError: a loss and a head that do not go together.
    """
    head = replace(head, variance=loss in ("gaussian", "beta"), bounded=loss == "beta")
    if loss == "odin":
        if vectors.nuisance is None:
            raise ConfigError("--loss odin needs to know what should not count: add --nuisance REWARD")
        if head.hidden or head.aspects != (OVERALL,):
            raise ConfigError("--loss odin is of linear heads and of pairs without aspects")
        known = (vectors.nuisance - vectors.nuisance.mean()) / vectors.nuisance.std().clamp(min=1e-12)
        return replace(head, aspects=(OVERALL, NUISANCE)), replace(vectors, nuisance=known)
    if vectors.nuisance is not None:
        raise ConfigError(f"--nuisance is for --loss odin, and this one is {loss}")
    if head.personal and (loss != "bradley-terry" or train.aspects != (OVERALL,)):
        raise ConfigError("--personal is of pairs without aspects, by --loss bradley-terry")
    if loss == "plackett-luce" and train.aspects != (OVERALL,):
        raise ConfigError("--loss plackett-luce is of rankings, which have no aspects")
    return head, vectors


def _state(heads: Heads, people: People | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return copy.deepcopy(heads.state_dict()), {} if people is None else copy.deepcopy(people.state_dict())


@torch.no_grad()
def _finish(heads: Heads, loss: str, seen: Tensor, people: People | None, *, pairs: bool) -> None:
    """Rewards of pairs in standard deviations over the training samples, a person's mix too."""
    if loss == "odin":
        for rows in heads.weights[0]:
            rows.copy_(unit_rows(rows.mT).mT)
        heads.biases[0].zero_()
    if pairs:
        heads.standardise_outputs(seen)
    if people is not None:
        heads.mix.copy_(people.weights.mean(1) * heads.scale)
        heads.mix /= heads.overall(heads.members(seen)).std(1, correction=0)[:, None]


def _drawn(count: int, members: int, *, bootstrap: bool, generator: torch.Generator) -> Tensor:
    """[K, N], the examples that each member has: all of them, or as many drawn with replacement, once."""
    if bootstrap and members > 1:
        return torch.randint(count, (members, count), generator=generator)
    return torch.arange(count).expand(members, count)


def features_of(vectors: Vectors, examples: Examples) -> Tensor:
    """[n, 3 D] of every sample, each once."""
    samples = torch.cat(
        [torch.stack([side, examples.prompt], 1) for side in (examples.first, examples.second)]
    ).unique(dim=0)
    return vectors.features(samples[:, 0], samples[:, 1])


@torch.no_grad()
def _bounded(heads: Heads, train: Examples, stopping: Examples) -> tuple[Examples, Examples]:
    """Ratings as shares of the scale that each aspect uses, from the least to the most of the training part."""
    low, high = _of_each_aspect(train, torch.min), _of_each_aspect(train, torch.max)
    heads.shift.copy_(-low / (high - low))
    heads.scale.copy_(1 / (high - low))
    count = len(train.target)

    def shares(examples: Examples) -> Examples:
        targets = examples.target.clone()
        for aspect in range(len(low)):
            of = examples.aspect == aspect
            ends = float(low[aspect]), float(high[aspect])
            targets[of] = inner_share(targets[of].clamp(*ends), low=ends[0], high=ends[1], count=count)
        return replace(examples, target=targets)

    return shares(train), shares(stopping)


def _of_each_aspect(examples: Examples, statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """[A], of the targets of each aspect; of all where the training part has none of one."""
    parts = [examples.target[examples.aspect == index] for index in range(len(examples.aspects))]
    return torch.stack([statistic(part if len(part) else examples.target) for part in parts])


@torch.no_grad()
def _standardised(heads: Heads, train: Examples, stopping: Examples) -> tuple[Examples, Examples]:
    """Each aspect with mean 0 and std 1, so that one learning rate suits all; the heads' scale leads back."""
    mean = _of_each_aspect(train, torch.mean)
    std = _of_each_aspect(train, lambda targets: targets.std(correction=0))
    heads.shift.copy_(-mean / std)
    heads.scale.copy_(1 / std)
    return (
        replace(train, target=(train.target - mean[train.aspect]) / std[train.aspect]),
        replace(stopping, target=(stopping.target - mean[stopping.aspect]) / std[stopping.aspect]),
    )
