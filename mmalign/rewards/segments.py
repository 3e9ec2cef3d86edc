"""Rewards of segments and steps: where they end, how they become token rewards, how a chain of steps is judged."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError, UnknownNameError

SegmentMode = Literal["end", "spread", "copy"]
"""A segment's reward on its last token, shared among its tokens, or on each of them."""
StepAggregate = Literal["last", "mean", "mean-logit", "min", "product"]
"""How the probabilities that steps are right become one of their chain."""


def entropy_segments(entropy: Tensor, *, threshold: float = 2.0) -> list[int]:
    """Where segments end: before what is hard to foresee, a new thought begins.

        t ends a segment where entropy[t] > threshold; the last token always does

    Args:
        entropy: [T], nats, of the next token at each of a response's tokens, its end token left out, by a frozen model.
        threshold: nats.

    Returns:
        Rising indices of last tokens; empty for an empty response.

    Raises:
        ShapeError: not [T].

    Source: Yin et al. 2025, Segmenting Text and Learning Their Rewards (arXiv:2501.02790), in the form of its code.

    >>> entropy_segments(torch.tensor([0.0, 3.0, 0.0, 0.0, 3.0]))
    [1, 4]
    """
    if entropy.ndim != 1:
        raise ShapeError(f"entropy: expected [T], got {list(entropy.shape)}")
    ends = (entropy > threshold).nonzero()[:, 0].tolist()
    return ends if not len(entropy) or (ends and ends[-1] == len(entropy) - 1) else [*ends, len(entropy) - 1]


def segments_to_tokens(rewards: Tensor, ends: Sequence[int], *, mode: SegmentMode = "spread") -> Tensor:
    """Segment rewards on the tokens of one response.

        end:     rewards[s] at ends[s]
        spread:  rewards[s] / length of s on each of its tokens
        copy:    rewards[s] on each of its tokens, so that long segments weigh more

    Args:
        rewards: [S].
        ends: S rising indices of last tokens, as of ``entropy_segments``; segments follow each other.
        mode: which of the three; "end" and "spread" keep the sum.

    Returns:
        [ends[-1] + 1].

    Raises:
        ShapeError: not [S] with S >= 1 ends.
        ConfigError: the ends do not rise from 0 or more.
        UnknownNameError: ``mode`` is none of the three.

    >>> segments_to_tokens(torch.tensor([1.0, 3.0]), [1, 4])
    tensor([0.5000, 0.5000, 1.0000, 1.0000, 1.0000])
    """
    length, place = _segments(rewards, ends)
    if mode == "spread":
        return (rewards / length)[place]
    if mode == "copy":
        return rewards[place]
    if mode == "end":
        return rewards.new_zeros(len(place)).index_put((torch.tensor(ends, device=rewards.device),), rewards)
    raise UnknownNameError("segment mode", mode, get_args(SegmentMode))


def segment_means(values: Tensor, ends: Sequence[int]) -> Tensor:
    """The mean of each segment's tokens; so too of frames in shots, or of denoising steps in stages.

    Args:
        values: [T], T = ends[-1] + 1.
        ends: S rising indices of last tokens.

    Returns:
        [S].

    Raises:
        ShapeError: the last end is not the last token.
        ConfigError: the ends do not rise from 0 or more.

    >>> segment_means(torch.tensor([1.0, 3.0, 5.0]), [1, 2])
    tensor([2., 5.])
    """
    if values.ndim != 1 or not ends or ends[-1] != len(values) - 1:
        raise ShapeError(
            f"values: expected [T] with T = ends[-1] + 1, got {list(values.shape)} and ends {ends}"
        )
    length, place = _segments(values.new_zeros(len(ends)), ends)
    return values.new_zeros(len(ends)).index_add(0, place, values) / length


def location_normalised(
    rewards: Tensor, *, mean: tuple[float, float], std: tuple[float, float], most: float = 10.0
) -> Tensor:
    """Segment rewards less what their place in the response alone explains.

        p = (s + 1) / S
        mean(p) = mean[0] * log p + mean[1],  std(p) = max(std[0] * log p + std[1], 0.1 * std[1])
        clamp( (rewards[s] - mean(p)) / std(p), -most, most )

    Args:
        rewards: [S], of one response's segments in order.
        mean: slope and intercept of the mean reward against log p, fitted on many responses.
        std: the same of the std; its intercept is above 0.
        most: bound of the result.

    Returns:
        [S], unitless.

    Raises:
        ShapeError: not [S].
        ConfigError: the std's intercept or ``most`` is not positive.

    Source: Yin et al. 2025 (arXiv:2501.02790), in the form of its code; the floor of the std is ours.

    >>> location_normalised(torch.tensor([3.0]), mean=(5.0, 1.0), std=(0.0, 0.5))
    tensor([4.])
    """
    if rewards.ndim != 1:
        raise ShapeError(f"rewards: expected [S], got {list(rewards.shape)}")
    if std[1] <= 0 or most <= 0:
        raise ConfigError(f"std = {std} and most = {most}, but the intercept of std and most are above 0")
    S = len(rewards)
    log_place = (torch.arange(1, S + 1).to(rewards) / max(S, 1)).log()
    spread = (std[0] * log_place + std[1]).clamp(min=0.1 * std[1])
    return ((rewards - mean[0] * log_place - mean[1]) / spread).clamp(-most, most)


def chain_score(probability: Tensor, *, how: StepAggregate = "product") -> Tensor:
    """How probably a chain of steps is right, from its steps.

        product, min, mean, last;  mean-logit: sigmoid( mean_s logit(probability[s]) )

    Args:
        probability: [S], in [0, 1]; inside (0, 1) for "mean-logit".
        how: which of these.

    Returns:
        Scalar in [0, 1].

    Raises:
        ShapeError: not [S] with S >= 1.
        ConfigError: a probability is outside [0, 1].
        UnknownNameError: ``how`` is none of these.

    Source: Lightman et al. 2023, Let's Verify Step by Step, section 2.6 (arXiv:2305.20050), for product and min;
    the mean logit is of Cao et al. 2025, DreamPRM (arXiv:2505.20241).

    >>> chain_score(torch.tensor([0.9, 0.5, 0.8])), chain_score(torch.tensor([0.9, 0.5, 0.8]), how="mean-logit")
    (tensor(0.3600), tensor(0.7675))
    """
    if probability.ndim != 1 or not len(probability):
        raise ShapeError(f"probability: expected [S] with S >= 1, got {list(probability.shape)}")
    if not bool(((probability >= 0) & (probability <= 1)).all()):
        raise ConfigError("probability: expected numbers in [0, 1]")
    match how:
        case "product":
            return probability.prod()
        case "min":
            return probability.amin()
        case "mean":
            return probability.mean()
        case "last":
            return probability[-1]
        case "mean-logit":
            return probability.logit().mean().sigmoid()
    raise UnknownNameError("step aggregate", how, get_args(StepAggregate))


def _segments(rewards: Tensor, ends: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Lengths [S], and for each token its segment [T]."""
    if rewards.ndim != 1 or not ends or len(ends) != len(rewards):
        raise ShapeError(f"rewards: expected [S] with S = {len(ends)} ends, got {list(rewards.shape)}")
    edges = torch.tensor([-1, *ends], device=rewards.device)
    length = edges.diff()
    if (length <= 0).any():
        raise ConfigError(f"ends: expected rising indices from 0, got {list(ends)}")
    return length, torch.repeat_interleave(torch.arange(len(ends), device=rewards.device), length)
