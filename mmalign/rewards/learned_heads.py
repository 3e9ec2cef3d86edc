"""Heads on frozen vectors of media and prompts: linear or deep, one or an ensemble, one aspect or several."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.errors import ConfigError, ShapeError, UnknownNameError

OVERALL = "overall"
"""The aspect of what compares the whole."""


def joint_features(media: Tensor, prompts: Tensor) -> Tensor:
    """What a head sees of a sample.

        [media, prompt, media * prompt]

    The product, summed, is the cosine, so the backbone's own score is a linear head on these: training starts from
    what it knows. The media's vector alone carries quality that no prompt asks for, and the prompt's alone what a
    prompt makes hard, which ratings and labels of single samples need; in a linear head it cancels between the two
    sides of a pair.

    Args:
        media: [..., D].
        prompts: [..., D].

    Returns:
        [..., 3 D].

    Raises:
        ShapeError: the two differ in shape.

    >>> joint_features(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]]))
    tensor([[ 1.,  2.,  3., -1.,  3., -2.]])
    """
    if media.shape != prompts.shape:
        raise ShapeError(f"prompts: expected {list(media.shape)} as media, got {list(prompts.shape)}")
    return torch.cat([media, prompts, media * prompts], dim=-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadOptions:
    """What a head looks like.

    Raises:
        ConfigError: a number that cannot work, or a setting that would be ignored.
    """

    aspects: tuple[str, ...] = (OVERALL,)
    """A, in order; the value is ``overall`` where it is among them, else the mean of all."""
    hidden: tuple[int, ...] = ()
    """Widths of hidden layers; none for a linear head."""
    members: int = 1
    """K, heads of an ensemble; their spread is the std."""
    shared_trunk: bool = False
    """One set of hidden layers for all members, of which each has a last layer of its own."""
    variance: bool = False
    """Whether it also says how far people's own answers scatter, as the aspect ``scatter``."""
    keep: float = 1.0
    """Share of the features that a member sees, drawn once for each: members that see different things disagree more
    where they have seen nothing."""

    bounded: bool = False
    """Whether an output is the log odds of a share of a scale of ratings, to which ``scale`` and ``shift`` lead."""
    worst_aspect: bool = False
    """Whether the value is the least of the aspects, sample by sample, and not their mean."""
    maxmin: bool = False
    """Whether the value is a mean of the aspects by ``GroupWeights``, which follow the aspect whose mean is least."""
    personal: bool = False
    """Whether the value mixes the aspects by weights of a person, by member."""

    def __post_init__(self) -> None:
        if not self.aspects or len(set(self.aspects)) < len(self.aspects):
            raise ConfigError(f"aspects = {list(self.aspects)}, expected one or more different names")
        if self.members < 1 or any(width < 1 for width in self.hidden):
            raise ConfigError(f"members = {self.members} and hidden = {list(self.hidden)} are at least 1")
        if not 0 < self.keep <= 1:
            raise ConfigError(f"keep = {self.keep}, but a share is in (0, 1]")
        if self.shared_trunk and (not self.hidden or self.keep < 1):
            raise ConfigError(
                "shared_trunk needs hidden layers that are shared, and members that see the same (keep = 1)"
            )

        decided = self.personal or OVERALL in self.aspects
        if (self.worst_aspect and self.maxmin) or ((self.worst_aspect or self.maxmin) and decided):
            raise ConfigError("worst_aspect and maxmin are of aspects that nothing else decides between")

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "HeadOptions":
        """From a card.

        Raises:
            UnknownNameError: a setting that does not exist.
        """
        known = {f.name for f in fields(cls)}
        for name in values:
            if name not in known:
                raise UnknownNameError("setting of a head", name, known)
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**given)

    def plain(self) -> dict[str, Any]:
        """For a card."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


class Heads(nn.Module):
    """K heads, computed at once.

        h = (features - feature_mean) / feature_std * kept[k];   h = relu(h W_i[k] + b_i[k]) ...;   h W_n[k] + b_n[k]

    Args:
        width: D, of the vectors.
        options: of the heads.
        generator: of the first weights and of what each member sees; None for a head that is filled from a file.
    """

    feature_mean: Tensor
    feature_std: Tensor
    kept: Tensor
    shift: Tensor
    scale: Tensor
    mix: Tensor

    def __init__(self, width: int, options: HeadOptions, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        generator = generator or torch.Generator().manual_seed(0)
        self.options, self.width = options, width
        outputs, inputs = len(options.aspects), 3 * width
        sizes = [inputs, *options.hidden, outputs * (2 if options.variance else 1)]
        self.register_buffer("feature_mean", torch.zeros(inputs))
        self.register_buffer("feature_std", torch.ones(inputs))
        self.register_buffer("kept", torch.ones(options.members, inputs))
        self.register_buffer("shift", torch.zeros(options.members, outputs))
        self.register_buffer("scale", torch.ones(options.members, outputs))
        if options.personal:
            self.register_buffer("mix", torch.full((options.members, outputs), 1 / outputs))
        if options.keep < 1:
            count = max(1, round(options.keep * inputs))
            order = torch.rand(options.members, inputs, generator=generator).argsort(1)
            self.kept.zero_().scatter_(1, order[:, :count], 1.0)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for number, (before, after) in enumerate(pairwise(sizes)):
            last = number == len(options.hidden)
            copies = 1 if options.shared_trunk and not last else options.members
            # A small last layer: rewards start near 0, as BT's gradient is largest there.
            spread = 1 / (before + 1) if last else math.sqrt(2 / before)
            self.weights.append(spread * torch.randn(copies, before, after, generator=generator))
            self.biases.append(torch.zeros(copies, 1, after))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Raw outputs of all members.

        Args:
            features: [B, 3 D] for all members, or [K, B, 3 D].

        Returns:
            Means [K, B, A], and log variances as them or None.
        """
        h = (features - self.feature_mean) / self.feature_std
        if self.options.keep < 1:
            h = h * self.kept[:, None]
        elif h.ndim == 2:
            h = h[None]
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = (h if number == 0 else h.relu()) @ weight + bias
        count = len(self.options.aspects)
        return h[..., :count], (h[..., count:] if self.options.variance else None)

    @torch.no_grad()
    def standardise_inputs(self, features: Tensor) -> None:
        """Set mean and std of the features from those of the training samples [B, 3 D]."""
        self.feature_mean.copy_(features.mean(0))
        # A feature that does not vary says nothing; its tiny std would make noise of rounding.
        std = features.std(0, correction=0)
        self.feature_std.copy_(std.where(std > 1e-6, 1.0))

    @torch.no_grad()
    def standardise_outputs(self, features: Tensor) -> None:
        """Let each member's scores have mean 0 and std 1 over the training samples: pairs fix neither zero nor scale.

        Source: Coste et al. 2023, Reward Model Ensembles Help Mitigate Overoptimization (arXiv:2310.02743).
        """
        means, _ = self(features)
        self.shift.copy_(means.mean(1))  # of pairs, which are never bounded
        std = means.std(1, correction=0)
        self.scale.copy_(std.where(std > 0, 1.0))

    def members(self, features: Tensor) -> Tensor:
        """[K, B, A], standardised, or in the unit of the ratings."""
        means, _ = self(features)
        said = means.sigmoid() if self.options.bounded else means
        scores: Tensor = (said - self.shift[:, None]) / self.scale[:, None]
        return scores

    def scatter(self, features: Tensor) -> Tensor | None:
        """[K, B, A], the std of people's own answers, in the unit of ``members``; None without a variance.

        normal: exp(log_variance / 2),   beta of mean m: sqrt(m (1 - m) / (1 + exp(log_concentration)))
        """
        means, more = self(features)
        if more is None:
            return None
        share = means.sigmoid()
        std = (share * (1 - share) / (1 + more.exp())).sqrt() if self.options.bounded else (more / 2).exp()
        scaled: Tensor = std / self.scale[:, None]
        return scaled

    def overall(self, members: Tensor, weights: Tensor | None = None) -> Tensor:
        """[K, B] of [K, B, A]: a person's mix, the aspect ``overall``, the least, or the mean of all.

        Args:
            members: of every head and aspect.
            weights: [A], of the mean; equal if not given.
        """
        names = self.options.aspects
        if self.options.personal:
            return (members * self.mix[:, None]).sum(-1)
        if OVERALL in names:
            return members[..., names.index(OVERALL)]
        if self.options.worst_aspect:
            return members.amin(-1)
        return members.mean(-1) if weights is None else (members * weights.to(members)).sum(-1)
