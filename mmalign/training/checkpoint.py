"""Checkpoints of a training run: safetensors and JSON, written whole or not at all; nothing is unpickled."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmalign.errors import ConfigError

KEPT = 2
"""The newest checkpoints that stay; older ones are deleted."""


def save_checkpoint(
    folder: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    method: dict[str, Tensor] | None = None,
) -> Path:
    """Write ``step-000100``: the trained parameters, the optimizer's moments, the method's state, and the step."""
    target = folder / f"step-{step:06d}"
    unfinished = folder / f".{target.name}.{os.getpid()}"
    unfinished.mkdir(parents=True)
    save_file(
        {name: p.detach().cpu().contiguous() for name, p in parameters.items()},
        unfinished / "policy.safetensors",
    )
    moments = {
        f"{name}/{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }
    save_file(moments, unfinished / "optimizer.safetensors")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in (method or {}).items()}
    save_file(state, unfinished / "method.safetensors")
    (unfinished / "state.json").write_text(json.dumps({"step": step}))
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)
    return target


def load_checkpoint(
    folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Tensor]]:
    """Restore the newest checkpoint in place; its step, 0 where there is none, and the method's state.

    Raises:
        ConfigError: the checkpoint is of another policy.
    """
    for torn in folder.glob(".step-*"):
        shutil.rmtree(torn)
    found = load_policy(folder, parameters)
    if found is None:
        return 0, {}
    moments = load_file(found / "optimizer.safetensors")
    state: dict[Tensor, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, _, part = key.rpartition("/")
        parameter = parameters[name]
        state.setdefault(parameter, {})[part] = value if part == "step" else value.to(parameter.device)
    optimizer.state.update(state)
    step: int = json.loads((found / "state.json").read_text())["step"]
    return step, load_file(found / "method.safetensors")


def load_policy(folder: Path, parameters: dict[str, nn.Parameter]) -> Path | None:
    """Restore the parameters of the newest checkpoint in place; its folder, None where there is none.

    Raises:
        ConfigError: the checkpoint is of another policy.
    """
    found = sorted(folder.glob("step-*"))
    if not found:
        return None
    weights = load_file(found[-1] / "policy.safetensors")
    check_fits(weights, parameters, found[-1])
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    return found[-1]


def check_fits(weights: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], folder: Path) -> None:
    """Refuse weights of other names or shapes; a copy would broadcast a rank of 1.

    Raises:
        ConfigError: with the first that differs.
    """
    wanted, got = ({n: list(t.shape) for n, t in named.items()} for named in (parameters, weights))
    if wanted != got:
        name = min(n for n in wanted.keys() | got.keys() if wanted.get(n) != got.get(n))
        raise ConfigError(
            f"{folder}: holds another policy (other model or lora_rank): {name} is {got.get(name, 'missing')}, "
            f"expected {wanted.get(name, 'none')}; start a new run"
        )
