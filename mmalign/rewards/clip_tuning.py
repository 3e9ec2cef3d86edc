"""What of a CLIP is trained with a head on it: nothing, low-rank updates of its networks, or all of it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmalign.errors import ConfigError
from mmalign.generators.lora import attach
from mmalign.rewards.dense_head import Tune


def make_trainable(model: nn.Module, tune: Tune, *, rank: int) -> dict[str, nn.Parameter]:
    """Free what is trained; called alike before training and before ``take_tuned``.

    Args:
        model: a frozen CLIP.
        tune: "frozen", "lora" or "full".
        rank: of the updates with "lora".

    Returns:
        The parameters that training moves, by name; at first they change nothing.

    Raises:
        ConfigError: there is no layer for an update.
    """
    if tune == "lora":
        attach(model, rank=rank, targets=update_targets(model))
    elif tune == "full":
        model.requires_grad_(True)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def update_targets(model: nn.Module) -> list[str]:
    """Full names of the linear layers that a low-rank update reaches.

    Torch's fused attention reads the weights of its output layer and never calls it, so an update there would be
    trained on nothing; what is left are the networks between.

    Raises:
        ConfigError: there is none.
    """
    inside = {
        f"{name}.out_proj"
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    }
    found = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in inside
    ]
    if not found:
        raise ConfigError("the backbone has no linear layer for a low-rank update; take --tune full")
    return found


@torch.no_grad()
def take_tuned(model: nn.Module, tune: Tune, state: Mapping[str, Tensor], *, rank: int) -> None:
    """Put trained values in their place and freeze the model again.

    Args:
        model: the backbone as it was before training.
        tune: how it was trained.
        state: values by name, as ``make_trainable`` names them.
        rank: of the updates.

    Raises:
        ConfigError: the values are not of this model.
    """
    parameters = make_trainable(model, tune, rank=rank)
    if parameters.keys() != state.keys():
        odd = sorted(parameters.keys() ^ state.keys())
        raise ConfigError(
            f"the tuned weights are of another backbone; {len(odd)} names differ, first {odd[0]}"
        )
    for name, parameter in parameters.items():
        if parameter.shape != state[name].shape:
            raise ConfigError(
                f"the tuned weights are of another backbone; {name}: expected {list(parameter.shape)}, got "
                f"{list(state[name].shape)}"
            )
        parameter.copy_(state[name])
    model.requires_grad_(False)
