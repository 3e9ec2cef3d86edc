"""Distilling a few-step generator from a many-step one, and towards a reward on the way."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.losses.shapes import check_shape

RealLabel = Literal["expert", "wins", "smoothed"]
"""What a pair with a real sample teaches: what the expert says, that the real one wins, or that unless it objects."""


def boundary_scalings(
    time: Tensor, *, sigma_data: float = 0.5, time_scale: float = 10.0
) -> tuple[Tensor, Tensor]:
    """The shares that make a consistency model the identity at time 0.

        c_skip = sigma_data^2 / ((time_scale * time)^2 + sigma_data^2)
        c_out = time_scale * time / sqrt((time_scale * time)^2 + sigma_data^2)

    A flow needs none: its estimate noisy - sigma * velocity is the identity at sigma = 0 already.

    Args:
        time: any shape, the model's time index, 0 for data.
        sigma_data: spread of the data, in the latent's unit.
        time_scale: how soon the network takes over.

    Returns:
        c_skip and c_out, as ``time``.

    Raises:
        ConfigError: ``sigma_data`` or ``time_scale`` is not positive.

    Source: Luo et al. 2023, Latent Consistency Models, appendix D (arXiv:2310.04378), after Song et al. 2023,
    Consistency Models, appendix C (arXiv:2303.01469).

    >>> boundary_scalings(torch.tensor([0.0, 0.05]))
    (tensor([1.0000, 0.5000]), tensor([0.0000, 0.7071]))
    """
    if sigma_data <= 0 or time_scale <= 0:
        raise ConfigError(
            f"sigma_data = {sigma_data} and time_scale = {time_scale}, but both must be positive"
        )
    scaled = time_scale * time
    power = scaled**2 + sigma_data**2
    return sigma_data**2 / power, scaled / power.sqrt()


def consistency_output(noisy: Tensor, clean_prediction: Tensor, c_skip: Tensor, c_out: Tensor) -> Tensor:
    """What a consistency model puts out.

        c_skip[b] * noisy[b] + c_out[b] * clean_prediction[b]

    Args:
        noisy: [B, ...], what the network saw.
        clean_prediction: as ``noisy``, its estimate of the clean data.
        c_skip: [B], of ``boundary_scalings``.
        c_out: [B].

    Returns:
        As ``noisy``.

    Raises:
        ShapeError: not twice the same [B, ...] and twice [B].

    Source: Song et al. 2023, Consistency Models, section 3, equation 5 (arXiv:2303.01469).

    >>> half = torch.tensor([0.5])
    >>> consistency_output(torch.tensor([[2.0]]), torch.tensor([[6.0]]), half, half)
    tensor([[4.]])
    """
    check_shape(clean_prediction, noisy.shape, name="clean_prediction", letters="[B, ...]")
    check_shape(c_skip, noisy.shape[:1], name="c_skip", letters="[B]")
    check_shape(c_out, noisy.shape[:1], name="c_out", letters="[B]")
    axes = (-1, *[1] * (noisy.ndim - 1))
    return c_skip.reshape(axes) * noisy + c_out.reshape(axes) * clean_prediction


def lcm_guidance(conditional: Tensor, unconditional: Tensor, *, guidance: Tensor) -> Tensor:
    """Classifier-free guidance in the convention of consistency distillation, where 0 is none.

        conditional[b] + guidance[b] * (conditional[b] - unconditional[b])

    The usual scale, where 1 is none, is 1 + guidance. Apply it to the clean estimate and to the noise alike.

    Args:
        conditional: [B, ...], a prediction of the teacher.
        unconditional: as ``conditional``.
        guidance: [B], drawn from 5 to 15 in the published run.

    Returns:
        As ``conditional``, detached: the teacher is a constant.

    Raises:
        ShapeError: not twice the same [B, ...] and once [B].

    Source: Luo et al. 2023, Latent Consistency Models, section 4.2, equation 14 (arXiv:2310.04378).

    >>> lcm_guidance(torch.tensor([[3.0]]), torch.tensor([[2.0]]), guidance=torch.tensor([5.0]))
    tensor([[8.]])
    """
    check_shape(unconditional, conditional.shape, name="unconditional", letters="[B, ...]")
    check_shape(guidance, conditional.shape[:1], name="guidance", letters="[B]")
    scale = guidance.detach().reshape(-1, *[1] * (conditional.ndim - 1))
    return conditional.detach() + scale * (conditional - unconditional).detach()


def pseudo_huber(output: Tensor, target: Tensor, *, c: float = 0.001) -> Tensor:
    """A distance that is a square near 0 and an absolute value beyond ``c``; its mean is the distillation loss.

        mean_e [ sqrt((output[b, e] - target[b, e])^2 + c^2) - c ]

    Args:
        output: [B, ...], of the student.
        target: as ``output``, of its slow copy at the teacher's next, less noisy sample; detached.
        c: in the unit of ``output``, above 0.

    Returns:
        [B], in the unit of ``output``, in float32 at least; 0 only where the two agree.

    Raises:
        ShapeError: ``target`` has another shape, or there is no axis beside the batch.
        ConfigError: ``c`` is not positive.

    Source: Song and Dhariwal 2023, Improved Techniques for Training Consistency Models, section 3.3
    (arXiv:2310.14189), with the c of the code of Li et al. 2024, RG-LCD (arXiv:2403.11027).

    >>> pseudo_huber(torch.tensor([[3.0, 0.0]]), torch.zeros(1, 2), c=4.0)  # (5 - 4) / 2
    tensor([0.5000])
    """
    if output.ndim < 2:
        raise ShapeError(f"output: expected [B, ...], got {list(output.shape)}")
    check_shape(target, output.shape, name="target", letters="[B, ...]")
    if c <= 0:
        raise ConfigError(f"c = {c}, but it must be positive; towards 0 it is the absolute error")
    dtype = torch.promote_types(output.dtype, torch.float32)
    error = output.to(dtype) - target.detach().to(dtype)
    return ((error**2 + c**2).sqrt() - c).flatten(1).mean(1)


def reward_distillation_loss(
    output: Tensor, target: Tensor, reward: Tensor, *, reward_weight: float = 1.0, c: float = 0.001
) -> Tensor:
    """Consistency distillation that raises the reward of what the student puts out in one step.

        mean_b pseudo_huber(output, target)[b] - reward_weight * mean_b reward[b]

    Args:
        output: [B, ...], of the student, at any time and not at the noisiest alone.
        target: as ``output``, of its slow copy; detached.
        reward: [B], of ``output``, with gradient, from a frozen reward on pixels or a proxy on latents.
        reward_weight: in the inverse unit of ``reward``; 0 is plain distillation.
        c: as in ``pseudo_huber``.

    Returns:
        Scalar.

    Raises:
        ShapeError: not twice the same [B, ...] and once [B].
        ConfigError: ``c`` is not positive.

    Source: Li et al. 2024, Reward Guided Latent Consistency Distillation, section 4 (arXiv:2403.11027).

    >>> reward_distillation_loss(torch.tensor([[3.0, 0.0]]), torch.zeros(1, 2), torch.tensor([0.25]), c=4.0)
    tensor(0.2500)
    """
    distance = pseudo_huber(output, target, c=c)
    check_shape(reward, distance.shape, name="reward", letters="[B]")
    return distance.mean() - reward_weight * reward.mean()


def latent_reward_loss(scores: Tensor, expert_scores: Tensor, *, real: RealLabel = "expert") -> Tensor:
    """Teach a reward on latents what an expert on pixels prefers, pair by pair.

        p = softmax([expert_scores[b, i], expert_scores[b, j]]),  q = softmax([scores[b, i], scores[b, j]])
        mean_b mean_{i < j} KL(p || q)

    where the last of the K latents is a real sample's, and for its pairs

        p = p                                                     "expert"
        p = all on the real one                                   "wins"
        p = all on the real one, or even if the expert objects    "smoothed"

    Args:
        scores: [B, K], of the proxy, on the student's, the target's and a real latent of one prompt, all detached.
        expert_scores: [B, K], logits: the expert's rewards times the scale that its own training gave them; detached.
        real: what a pair with the real latent teaches.

    Returns:
        Scalar, nats; with "expert" 0 only where the proxy's pairs are the expert's.

    Raises:
        ShapeError: not twice the same [B, K] with K >= 2.
        UnknownNameError: ``real`` is none of the three.

    Source: Li et al. 2024, Reward Guided Latent Consistency Distillation, section 4.2 (arXiv:2403.11027), and the
    options of its code.

    >>> latent_reward_loss(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log())  # log 2 - entropy of 3 to 1
    tensor(0.1308)
    """
    if real not in get_args(RealLabel):
        raise UnknownNameError("label of a real sample", real, get_args(RealLabel))
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ShapeError(f"scores: expected [B, K] with K >= 2, got {list(scores.shape)}")
    check_shape(expert_scores, scores.shape, name="expert_scores", letters="[B, K]")
    K = scores.shape[1]
    first, second = torch.combinations(torch.arange(K, device=scores.device)).unbind(1)
    # How probably the second of each pair wins; of a pair with the real latent that one is the second.
    p = torch.sigmoid((expert_scores[:, second] - expert_scores[:, first]).detach())
    if real != "expert":
        label = torch.ones_like(p) if real == "wins" else torch.where(p < 0.5, 0.5, 1.0).to(p)
        p = torch.where(second == K - 1, label, p)
    p = torch.stack([1 - p, p])
    margin = scores[:, second] - scores[:, first]
    log_q = F.logsigmoid(torch.stack([-margin, margin]))
    kl: Tensor = torch.special.xlogy(p, p) - p * log_q  # 0 log 0 = 0
    return kl.sum(0).mean()
