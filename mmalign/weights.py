"""Writes tensors as safetensors, and weights only where every number of them is finite."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmalign.errors import NonFiniteError
from mmalign.files import whole_file


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds NaN or infinity, or None; one wait for the device, not one a tensor.

    >>> first_not_finite([("a", torch.ones(2)), ("b", torch.tensor([1.0, float("nan")])), ("c", torch.tensor(2))])
    'b'
    """
    found = [(name, t.detach()) for name, t in tensors if t.is_floating_point() and t.numel()]
    largest: dict[torch.device, list[Tensor]] = {}
    for device in {tensor.device for _, tensor in found}:
        of = [tensor for _, tensor in found if tensor.device == device]
        # The largest magnitude, and no sum: that of large finite numbers may be infinite.
        largest[device] = [n.float() for n in torch._foreach_norm(of, float("inf"))]
    if all(bool(torch.isfinite(torch.stack(norms)).all()) for norms in largest.values()):
        return None
    return next(name for name, tensor in found if not bool(torch.isfinite(tensor).all()))


def check_finite(tensors: Mapping[str, Tensor], what: Path | str) -> None:
    """Refuse weights that are no numbers before they are written.

    Raises:
        NonFiniteError: one is NaN or infinite; the message names the first.
    """
    bad = first_not_finite(tensors.items())
    if bad is not None:
        raise NonFiniteError(f"{what}: the weights are not finite, first in {bad}; they were not written")


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write weights as one safetensors file, whole or not at all.

    Raises:
        NonFiniteError: one is NaN or infinite.
        WriteError: the disk is full, or the folder cannot be written to.
    """
    check_finite(tensors, path)
    write_tensors(path, tensors, metadata)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write whatever tensors as one safetensors file, whole or not at all.

    Raises:
        WriteError: the disk is full, or the folder cannot be written to.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as unfinished:
        save_file(plain, unfinished, metadata=metadata)
