"""Fits heads to examples: batches of each member's own draw, AdamW, and a stop where unseen prompts get worse."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mmalign.errors import ConfigError, NonFiniteError
from mmalign.losses.bradley_terry import bradley_terry_loss, gaussian_bradley_terry_loss
from mmalign.losses.rating import gaussian_rating_loss, rating_loss
from mmalign.rewards.learned_heads import HeadOptions, Heads, joint_features
from mmalign.training.reward_data import Examples


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions:
    """How heads are fitted.

    Raises:
        ConfigError: a number that cannot work.
    """

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
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout = {self.dropout}, but it is a share in [0, 1)")


@dataclass(frozen=True, eq=False)
class Vectors:
    """Of all media [M, D] and prompts [P, D] that examples name."""

    media: Tensor
    prompts: Tensor

    def features(self, media: Tensor, prompt: Tensor) -> Tensor:
        """[..., 3 D] of indices [...]."""
        return joint_features(self.media[media], self.prompts[prompt])


def example_loss(
    heads: Heads, vectors: Vectors, examples: Examples, rows: Tensor, *, kept: Tensor | None = None
) -> Tensor:
    """The mean loss of examples over all members, by their kind.

        pairs:    ``bradley_terry_loss``, with a variance head ``gaussian_bradley_terry_loss``
        ratings:  ``rating_loss``, with a variance head ``gaussian_rating_loss``
        binary:   -log sigmoid(r) of good samples, -log sigmoid(-r) of others

    Args:
        heads: K of them.
        vectors: of media and prompts.
        examples: all.
        rows: [B], or [K, B] where each member has its own.
        kept: [..., 3 D] as ``rows``, booleans; features that are False stand at their mean, on both sides of a pair.

    Returns:
        Scalar, nats, or the squared unit of ``examples.target``.
    """
    aspect = examples.aspect[rows]

    def scored(media: Tensor) -> tuple[Tensor, Tensor | None]:
        features = vectors.features(media[rows], examples.prompt[rows])
        if kept is not None:
            features = torch.where(kept, features, heads.feature_mean)
        means, log_variance = heads(features)
        index = aspect.expand(means.shape[:-1])[..., None]
        picked = means.gather(-1, index).flatten()
        return picked, None if log_variance is None else log_variance.gather(-1, index).flatten()

    reward, log_variance = scored(examples.first)
    if examples.kind == "pairs":
        other, other_log_variance = scored(examples.second)
        if log_variance is None or other_log_variance is None:
            return bradley_terry_loss(reward - other)
        return gaussian_bradley_terry_loss(reward - other, log_variance.exp() + other_log_variance.exp())
    target = examples.target[rows].expand(heads.options.members, -1).flatten()
    if examples.kind == "binary":
        return F.binary_cross_entropy_with_logits(reward, target)
    return (
        rating_loss(reward, target)
        if log_variance is None
        else gaussian_rating_loss(reward, log_variance, target)
    )


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
        ConfigError: labels with a variance head: one answer, yes or no, tells nothing of scatter.
        NonFiniteError: a loss is NaN or infinite.
    """
    if head.variance and train.kind == "binary":
        raise ConfigError("a variance head learns from pairs or ratings, and these are labels")
    heads = Heads(vectors.media.shape[1], head, generator=generator).to(vectors.media.device)
    seen = features_of(vectors, train)
    heads.standardise_inputs(seen)
    if train.kind == "ratings":
        train, stopping = _standardised(heads, train, stopping)
    optimiser = torch.optim.AdamW(heads.parameters(), lr=fit.learning_rate, weight_decay=fit.weight_decay)
    every = torch.arange(len(stopping))
    best, best_loss, losses = copy.deepcopy(heads.state_dict()), float("inf"), []
    drawn = _drawn(len(train), head.members, bootstrap=fit.bootstrap, generator=generator)
    for epoch in range(1, fit.epochs + 1):
        order = drawn.gather(1, torch.rand(drawn.shape, generator=generator).argsort(1))
        for rows in order.split(fit.batch_size, dim=1):
            kept = None
            if fit.dropout:
                kept = torch.rand(*rows.shape, 3 * heads.width, generator=generator) >= fit.dropout
            loss = example_loss(heads, vectors, train, rows, kept=kept)
            if not bool(loss.isfinite()):
                raise NonFiniteError(f"the loss of epoch {epoch} is {loss.item()}; lower --learning-rate")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            losses.append(float(example_loss(heads, vectors, stopping, every)))
        after_epoch(epoch, losses[-1])
        if losses[-1] < best_loss:
            best, best_loss = copy.deepcopy(heads.state_dict()), losses[-1]
        elif epoch - losses.index(min(losses)) - 1 >= fit.patience:
            break
    heads.load_state_dict(best)
    if train.kind == "pairs":
        heads.standardise_outputs(seen)
    return heads, losses


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
def _standardised(heads: Heads, train: Examples, stopping: Examples) -> tuple[Examples, Examples]:
    """Ratings with mean 0 and std 1, so that one learning rate suits all; the heads' scale leads back to their unit."""
    mean, std = train.target.mean(), train.target.std(correction=0)
    heads.shift.copy_(-mean / std)
    heads.scale.copy_(1 / std)
    return (
        replace(train, target=(train.target - mean) / std),
        replace(stopping, target=(stopping.target - mean) / std),
    )
