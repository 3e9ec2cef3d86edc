"""One denoiser prediction in all its forms: clean data, noise and velocity, whatever the network puts out.

Two families, each with its own velocity. Variance preserving (kinds "epsilon", "v_prediction" and "sample"; alpha^2 +
sigma^2 = 1):

    noisy = alpha * clean + sigma * noise,  velocity = alpha * noise - sigma * clean

Rectified flow (kind "flow_prediction"; sigma = 1 is pure noise and 0 is data, alpha = 1 - sigma):

    noisy = (1 - sigma) * clean + sigma * noise,  velocity = noise - clean
"""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from mmalign.errors import ConfigError, ShapeError, UnknownNameError

Kind = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]
"""What a denoiser puts out, in the words of diffusers: noise, velocity, clean data, or the velocity of a flow."""


def per_sample(value: Tensor, like: Tensor, *, name: str) -> Tensor:
    """View one number per sample so that it broadcasts over everything else.

    Args:
        value: [B].
        like: [B, ...], gives rank, dtype and device.
        name: what to call ``value`` in the error.

    Returns:
        [B, 1, ...], as many axes as ``like``.

    Raises:
        ShapeError: ``value`` is not [B]; [B, 1] or a scalar would broadcast in silence.
    """
    if value.shape != like.shape[:1]:
        raise ShapeError(f"{name}: expected [B] = {list(like.shape[:1])}, got {list(value.shape)}")
    return value.to(like).reshape(-1, *[1] * (like.ndim - 1))


def check_same_shape(value: Tensor, like: Tensor, *, name: str) -> None:
    """Refuse what would broadcast.

    Raises:
        ShapeError: ``value`` has another shape than ``like``.
    """
    if value.shape != like.shape:
        raise ShapeError(f"{name}: expected {list(like.shape)}, got {list(value.shape)}")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a denoiser says about a noisy sample; the properties give it in every parametrisation.

    Args:
        noisy: [B, ...], what the denoiser saw; its dtype is the dtype of the arithmetic.
        output: as ``noisy``, what it put out.
        alpha: [B], share of the clean data in ``noisy``.
        sigma: [B], share of the noise.
        kind: what ``output`` means.

    Raises:
        ShapeError: ``output`` has another shape than ``noisy``, or ``alpha`` or ``sigma`` is not [B].
        UnknownNameError: ``kind`` is none of the four.

    Source: Salimans and Ho 2022, Progressive Distillation, section 4 and appendix D (arXiv:2202.00512) for the
    velocity; Liu et al. 2022, Rectified Flow, section 2 (arXiv:2209.03003) for that of a flow.

    >>> import torch
    >>> noisy, half = torch.tensor([[2.0]]), torch.tensor([0.5])
    >>> prediction = Prediction(noisy, torch.tensor([[4.0]]), alpha=half, sigma=half, kind="flow_prediction")
    >>> prediction.clean, prediction.noise  # 2 - 0.5 * 4 and 2 + 0.5 * 4
    (tensor([[0.]]), tensor([[4.]]))
    """

    noisy: Tensor
    output: Tensor
    alpha: Tensor
    sigma: Tensor
    kind: Kind

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UnknownNameError("prediction kind", self.kind, get_args(Kind))
        check_same_shape(self.output, self.noisy, name="output")
        _shares(self.alpha, self.sigma, self.noisy)

    def _check_defined(self, wanted: str) -> None:
        """Refuse the division by zero of an output that says nothing about ``wanted``."""
        name, share = ("alpha", self.alpha) if self.kind == "epsilon" else ("sigma", self.sigma)
        if (share == 0).any():
            raise ConfigError(
                f"{name} = 0: a prediction of kind '{self.kind}' says nothing about the {wanted} there; "
                f"leave that time out, or use a model of kind 'v_prediction'"
            )

    @property
    def clean(self) -> Tensor:
        """[B, ...], the predicted clean data.

        Raises:
            ConfigError: kind "epsilon" at alpha = 0, where the sample is all noise.
        """
        alpha, sigma = _shares(self.alpha, self.sigma, self.noisy)
        match self.kind:
            case "epsilon":
                self._check_defined("clean data")
                return (self.noisy - sigma * self.output) / alpha
            case "v_prediction":
                return alpha * self.noisy - sigma * self.output
            case "sample":
                return self.output
            case "flow_prediction":
                return self.noisy - sigma * self.output

    @property
    def noise(self) -> Tensor:
        """[B, ...], the predicted noise.

        Raises:
            ConfigError: kind "sample" at sigma = 0, where the sample has no noise.
        """
        alpha, sigma = _shares(self.alpha, self.sigma, self.noisy)
        match self.kind:
            case "epsilon":
                return self.output
            case "v_prediction":
                return sigma * self.noisy + alpha * self.output
            case "sample":
                self._check_defined("noise")
                return (self.noisy - alpha * self.output) / sigma
            case "flow_prediction":
                return self.noisy + alpha * self.output

    @property
    def velocity(self) -> Tensor:
        """[B, ...], the predicted velocity: noise - clean for a flow, else alpha * noise - sigma * clean.

        Raises:
            ConfigError: kind "epsilon" at alpha = 0, or "sample" at sigma = 0.
        """
        alpha, sigma = _shares(self.alpha, self.sigma, self.noisy)
        match self.kind:
            case "epsilon":
                self._check_defined("velocity")
                return (self.output - sigma * self.noisy) / alpha
            case "v_prediction" | "flow_prediction":
                return self.output
            case "sample":
                self._check_defined("velocity")
                return (alpha * self.noisy - self.output) / sigma


def with_noise(prediction: Prediction, noise: Tensor) -> Prediction:
    """The prediction of the same kind that says this noise.

    Args:
        prediction: gives the noisy sample, its level and the kind.
        noise: [B, ...], as the noisy sample.

    Returns:
        As ``prediction``; of a kind other than "epsilon" not finite where alpha = 0, where noise says nothing of data.

    Raises:
        ShapeError: ``noise`` has another shape.

    >>> import torch
    >>> half = torch.tensor([0.5])
    >>> flow = Prediction(torch.ones(1, 1), torch.zeros(1, 1), alpha=half, sigma=half, kind="flow_prediction")
    >>> with_noise(flow, flow.noise + 1).output  # noise = noisy + alpha * velocity
    tensor([[2.]])
    """
    check_same_shape(noise, prediction.noisy, name="noise")
    alpha, sigma = _shares(prediction.alpha, prediction.sigma, prediction.noisy)
    noisy = prediction.noisy
    match prediction.kind:
        case "epsilon":
            output = noise
        case "flow_prediction":
            output = (noise - noisy) / alpha
        case "v_prediction":
            output = (noise - sigma * noisy) / alpha
        case _:
            output = (noisy - sigma * noise) / alpha
    return Prediction(noisy, output, prediction.alpha, prediction.sigma, prediction.kind)


def add_noise(clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Mix data and noise: alpha * clean + sigma * noise.

    Args:
        clean: [B, ...].
        noise: as ``clean``, standard normal.
        alpha: [B], 1 - sigma for a flow.
        sigma: [B].

    Returns:
        As ``clean``, in its dtype.

    Raises:
        ShapeError: ``noise`` has another shape than ``clean``, or ``alpha`` or ``sigma`` is not [B].

    >>> import torch
    >>> add_noise(torch.ones(2, 1), torch.zeros(2, 1), torch.tensor([1.0, 0.25]), torch.tensor([0.0, 0.75]))
    tensor([[1.0000],
            [0.2500]])
    """
    check_same_shape(noise, clean, name="noise")
    alpha, sigma = _shares(alpha, sigma, clean)
    return alpha * clean + sigma * noise


def velocity_target(clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, kind: Kind) -> Tensor:
    """The true velocity: noise - clean for kind "flow_prediction", else alpha * noise - sigma * clean.

    Args:
        clean: [B, ...].
        noise: as ``clean``, the noise that was added.
        alpha: [B].
        sigma: [B].
        kind: tells the two families apart.

    Returns:
        As ``clean``.

    Raises:
        ShapeError: ``noise`` has another shape than ``clean``, or ``alpha`` or ``sigma`` is not [B].
    """
    check_same_shape(noise, clean, name="noise")
    alpha, sigma = _shares(alpha, sigma, clean)
    return noise - clean if kind == "flow_prediction" else alpha * noise - sigma * clean


def target(clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, kind: Kind) -> Tensor:
    """What a network of this kind is trained to put out.

    Args:
        clean: [B, ...].
        noise: as ``clean``, the noise that was added.
        alpha: [B].
        sigma: [B].
        kind: "epsilon" gives the noise, "sample" the clean data, the other two their velocity.

    Returns:
        As ``clean``.

    Raises:
        ShapeError: ``noise`` has another shape than ``clean``, or ``alpha`` or ``sigma`` is not [B].
        UnknownNameError: ``kind`` is none of the four.

    >>> import torch
    >>> one, half = torch.ones(1, 1), torch.tensor([0.5])
    >>> target(one, 3 * one, half, half, "flow_prediction"), target(one, 3 * one, half, half, "v_prediction")
    (tensor([[2.]]), tensor([[1.]]))
    """
    velocity = velocity_target(clean, noise, alpha, sigma, kind)
    match kind:
        case "epsilon":
            return noise
        case "sample":
            return clean
        case "v_prediction" | "flow_prediction":
            return velocity
    raise UnknownNameError("prediction kind", kind, get_args(Kind))


def _shares(alpha: Tensor, sigma: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    return per_sample(alpha, like, name="alpha"), per_sample(sigma, like, name="sigma")
