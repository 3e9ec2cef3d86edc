"""One token step: the distribution that is sampled, its log-probabilities, and a sample from each row's own seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError

NEVER = -1e9
"""Logit of what is never sampled; not minus infinity, whose difference with itself is NaN."""


@dataclass(frozen=True, kw_only=True)
class TokenSampler:
    """How tokens are drawn, and so what their log-probabilities are of.

    Args:
        temperature: logits are divided by it; 1 is the model's own distribution.
        top_k: keep the k likeliest tokens; None keeps all.
        top_p: keep the fewest tokens that hold at least this share of the probability; 1 keeps all.
        guidance: scale of classifier-free guidance; None is off.

    Raises:
        ConfigError: a setting outside its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    guidance: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"temperature = {self.temperature}, but it must be positive; 1 is the model's own"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k = {self.top_k}: expected at least 1, or None for all tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p = {self.top_p}: expected a share in (0, 1]; 1 keeps all tokens")

    @property
    def filters(self) -> bool:
        """Whether some tokens are never drawn: a policy that moves may then find its old samples impossible."""
        return self.top_k is not None or self.top_p < 1

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log-probabilities of the distribution that is sampled.

            log softmax(keep(logits / temperature)),  keep = the top_k likeliest, then the top_p share of what is left

        Args:
            logits: [..., V].

        Returns:
            [..., V], nats, in float32 at least; below ``NEVER / 2`` for what is never drawn. Gradient flows.

        Source: Fan et al. 2018, section 5.4 (arXiv:1805.04833), for top_k; Holtzman et al. 2019, section 3.1
        (arXiv:1904.09751), for top_p.

        >>> TokenSampler(top_p=0.6).log_probs(torch.tensor([0.5, 0.3, 0.2]).log()).exp()  # 0.5 / 0.8, 0.3 / 0.8
        tensor([0.6250, 0.3750, 0.0000])
        """
        scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        if self.top_k is not None and self.top_k < scaled.shape[-1]:
            least = scaled.detach().topk(self.top_k, dim=-1).values[..., -1:]
            scaled = scaled.masked_fill(scaled < least, NEVER)
        if self.top_p < 1:
            share, order = scaled.detach().softmax(-1).sort(dim=-1, descending=True, stable=True)
            # A token is kept where those before it do not yet hold the share, so that one is always kept.
            dropped = share.cumsum(-1) - share >= self.top_p
            scaled = scaled.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), NEVER)
        return scaled.log_softmax(-1)


def guided_logits(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance on logits.

        unconditional + guidance * (conditional - unconditional)

    Args:
        conditional: [..., V].
        unconditional: as it.
        guidance: 1 is the conditional branch, 0 the other.

    Raises:
        ShapeError: the shapes differ.

    Source: Kreuk et al. 2022, AudioGen, section 3.3 (arXiv:2209.15352).

    >>> guided_logits(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]), 3.0)
    tensor([3., 0.])
    """
    if conditional.shape != unconditional.shape:
        raise ShapeError(
            f"unconditional: expected {list(conditional.shape)}, got {list(unconditional.shape)}"
        )
    # In this form scale 1 is the conditional branch to the last digit.
    return conditional + (guidance - 1) * (conditional - unconditional)


def gumbel_noise(shape: Sequence[int], *, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard Gumbel noise, each row from its own generator: argmax(log_prob + noise) is then a sample.

        -log(-log(u)),  u uniform in (0, 1)

    Args:
        shape: of one row.
        generators: B, on the CPU; a row's noise depends on its own alone, whatever the other rows are.

    Returns:
        [B, *shape], float64, on the CPU.

    Source: Gumbel 1954; Maddison et al. 2014, A* Sampling, section 2 (arXiv:1411.0030).

    >>> gumbel_noise([2], generators=[torch.Generator().manual_seed(0)]).shape
    torch.Size([1, 2])
    """
    uniform = torch.stack([torch.rand(*shape, generator=g, dtype=torch.float64) for g in generators])
    return -(-uniform.clamp_min(torch.finfo(torch.float64).tiny).log()).log()
