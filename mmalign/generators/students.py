"""A shallower copy of a model: some of its layers with its own weights, to be trained whole."""

import copy
from typing import Any

from torch import nn

from mmalign.errors import ConfigError, UnsupportedPipelineError


def kept_layers(count: int, share: float) -> list[int]:
    """Which of ``count`` layers a student keeps: evenly spaced, the last one among them.

    >>> kept_layers(4, 0.5), kept_layers(6, 1 / 3)
    ([1, 3], [2, 5])

    Raises:
        ConfigError: the share is not in (0, 1), or leaves no layer or all of them.
    """
    kept = round(count * share)
    if not 1 <= kept < count:
        raise ConfigError(
            f"student_share = {share} of {count} layers is {kept}: expected 1 to {count - 1} layers"
        )
    return [(i + 1) * count // kept - 1 for i in range(kept)]


def shallow_copy(model: Any, *, share: float) -> Any:
    """A model of the same class with some of the layers; embeddings, norms and head are copied too.

    Args:
        model: any transformers class whose configuration says ``num_hidden_layers``.
        share: of the layers that is kept.

    Raises:
        UnsupportedPipelineError: no list of that many layers is found in it, or several are.
        ConfigError: as ``kept_layers``.
    """
    config = copy.deepcopy(model.config)
    count = getattr(config, "num_hidden_layers", 0)
    stacks = [
        name for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count
    ]
    if count == 0 or len(stacks) != 1:
        raise UnsupportedPipelineError(
            f"{type(model).__name__}: expected one list of num_hidden_layers layers to shorten, found {len(stacks)}"
        )
    kept = kept_layers(count, share)
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [config.layer_types[layer] for layer in kept]
    student = type(model)(config)
    places = {f"{stacks[0]}.{layer}.": f"{stacks[0]}.{i}." for i, layer in enumerate(kept)}
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(f"{stacks[0]}."):
            place = next((old for old in places if name.startswith(old)), None)
            if place is None:
                continue
            name = places[place] + name.removeprefix(place)
        state[name] = tensor
    student.load_state_dict(state)
    return student.to(model.device)
