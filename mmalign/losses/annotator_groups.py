"""A mixture of annotator groups by EM: who belongs to which reward, and how much each pair teaches it."""

import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


def annotator_log_likelihood(gap: Tensor, annotator: Tensor, *, annotators: int) -> Tensor:
    """How well each group's reward explains all pairs of each annotator.

        sum_{n: annotator[n] = h} log sigmoid(gap[n, u])

    Args:
        gap: [N, U], chosen less rejected by each of U rewards.
        annotator: [N], integers from 0.
        annotators: how many there are.

    Returns:
        [annotators, U], nats, detached; 0 for one without pairs.

    Raises:
        ShapeError: not [N, U] and [N].
        ConfigError: an annotator is not from 0 to ``annotators`` - 1.

    Source: Chakraborty et al. 2024, MaxMin-RLHF, algorithm 2 (arXiv:2402.08925).

    >>> import torch
    >>> annotator_log_likelihood(torch.tensor([[0.0, 1.0], [0.0, -1.0]]), torch.tensor([0, 0]), annotators=1)
    tensor([[-1.3863, -1.6265]])
    """
    if gap.ndim != 2:
        raise ShapeError(f"gap: expected [N, U], got {list(gap.shape)}")
    _check_annotator(annotator, len(gap), annotators)
    total = gap.new_zeros(annotators, gap.shape[1])
    return total.index_add(0, annotator, F.logsigmoid(gap.detach()))


def responsibilities(log_likelihood: Tensor, prior: Tensor | None = None, *, hard: bool = False) -> Tensor:
    """E-step: how probably each annotator belongs to each group.

        softmax_u( log_likelihood[h, u] + log prior[u] );  hard: 1 at its largest, of equals the first

    Args:
        log_likelihood: [R, U].
        prior: [U], sizes of the groups, of sum 1; equal if not given.
        hard: each annotator in one group, as in the paper.

    Returns:
        [R, U], rows of sum 1, detached. The M-step fits reward u with ``pair_weights`` and takes its mean over
        annotators as the new prior.

    Raises:
        ShapeError: not [R, U] and [U].
        ConfigError: ``prior`` has an entry below 0, or its sum is not 1.

    Source: Chakraborty et al. 2024, MaxMin-RLHF, algorithm 2 (arXiv:2402.08925), which is hard; the soft form is
    Dempster, Laird and Rubin 1977.

    >>> import torch
    >>> responsibilities(torch.tensor([[0.0, 0.0]]), torch.tensor([0.75, 0.25]))
    tensor([[0.7500, 0.2500]])
    """
    joint = _joint(log_likelihood, prior)
    if hard:
        return F.one_hot(joint.argmax(1), joint.shape[1]).to(joint)
    return joint.softmax(1)


def mixture_log_likelihood(log_likelihood: Tensor, prior: Tensor | None = None) -> Tensor:
    """What EM raises: the likelihood of all annotators' pairs under the mixture.

        sum_h log sum_u prior[u] * exp(log_likelihood[h, u])

    Args:
        log_likelihood: [R, U].
        prior: [U], of sum 1; equal if not given.

    Returns:
        Scalar, nats, detached.

    Raises:
        ShapeError: not [R, U] and [U].
        ConfigError: ``prior`` has an entry below 0, or its sum is not 1.

    Source: Dempster, Laird and Rubin 1977.

    >>> import torch
    >>> mixture_log_likelihood(torch.tensor([[0.5, 0.25]]).log())  # log 0.375
    tensor(-0.9808)
    """
    return _joint(log_likelihood, prior).logsumexp(1).sum()


def pair_weights(responsibility: Tensor, annotator: Tensor) -> Tensor:
    """M-step: how much each pair counts for each group's reward, to weight ``bradley_terry_loss`` with.

        w[n, u] = responsibility[annotator[n], u]

    Args:
        responsibility: [R, U].
        annotator: [N], integers from 0.

    Returns:
        [N, U], in [0, 1], detached.

    Raises:
        ShapeError: not [R, U] and [N].
        ConfigError: an annotator is not from 0 to R - 1.

    >>> import torch
    >>> pair_weights(torch.tensor([[0.9, 0.1], [0.0, 1.0]]), torch.tensor([1, 0]))
    tensor([[0.0000, 1.0000],
            [0.9000, 0.1000]])
    """
    if responsibility.ndim != 2:
        raise ShapeError(f"responsibility: expected [R, U], got {list(responsibility.shape)}")
    _check_annotator(annotator, annotator.shape[0] if annotator.ndim else 0, len(responsibility))
    return responsibility.detach()[annotator]


def _joint(log_likelihood: Tensor, prior: Tensor | None) -> Tensor:
    if log_likelihood.ndim != 2:
        raise ShapeError(f"log_likelihood: expected [R, U], got {list(log_likelihood.shape)}")
    U = log_likelihood.shape[1]
    if prior is None:
        prior = log_likelihood.new_full((U,), 1 / U)
    check_shape(prior, [U], name="prior", letters="[U]")
    if not bool((prior >= 0).all()) or abs(float(prior.sum()) - 1) > 1e-4:
        raise ConfigError(f"prior: expected shares whose sum is 1, got a sum of {float(prior.sum()):g}")
    return log_likelihood.detach() + prior.detach().log()


def _check_annotator(annotator: Tensor, rows: int, annotators: int) -> None:
    check_shape(annotator, [rows], name="annotator", letters="[N]")
    if annotator.numel() and not (int(annotator.min()) >= 0 and int(annotator.max()) < annotators):
        raise ConfigError(
            f"annotator: expected 0 to {annotators - 1}, got {int(annotator.min())} to {int(annotator.max())}"
        )
