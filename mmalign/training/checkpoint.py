"""Checkpoints of a training run: safetensors and JSON, written whole or not at all; nothing is unpickled.

Every file's SHA-256 lies beside them, in the form that ``sha256sum -c`` reads. A checkpoint of which one bit is another
is passed over, with a word, and the one before it is taken.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mmalign.errors import ConfigError
from mmalign.files import whole_folder
from mmalign.training.progress import console
from mmalign.weights import write_weights

KEPT = 2
"""The newest checkpoints that stay; older ones are deleted."""
POLICY, MOMENTS, METHOD, STATE = (
    "policy.safetensors",
    "optimizer.safetensors",
    "method.safetensors",
    "state.json",
)
SUMS = "SHA256SUMS"


def save_checkpoint(
    folder: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    method: dict[str, Tensor] | None = None,
) -> Path:
    """Write ``step-000100``: the trained parameters, the optimizer's moments, the method's state, and the step.

    Raises:
        NonFiniteError: one of them is not finite; nothing was written.
        WriteError: the disk is full, or the folder cannot be written to.
    """
    target = folder / f"step-{step:06d}"
    for later in checkpoints(folder):
        if _step(later) >= step:  # damaged, or it would not be made again
            shutil.rmtree(later)
    with whole_folder(target) as unfinished:
        write_weights(unfinished / POLICY, dict(parameters))
        write_weights(unfinished / MOMENTS, moments_of(parameters, optimizer))
        write_weights(unfinished / METHOD, method or {})
        (unfinished / STATE).write_text(json.dumps({"step": step}))
        (unfinished / SUMS).write_text(_sums(unfinished))
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return target


def moments_of(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer keeps of each parameter, by ``parameter/what``."""
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }


def load_checkpoint(
    folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Tensor]]:
    """Restore the newest whole checkpoint in place; its step, 0 where there is none, and the method's state.

    Raises:
        ConfigError: the checkpoint is of another policy.
    """
    found = load_policy(folder, parameters)
    if found is None:
        return 0, {}
    moments = load_file(found / MOMENTS)
    state: dict[Tensor, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, _, part = key.rpartition("/")
        parameter = parameters[name]
        state.setdefault(parameter, {})[part] = value if part == "step" else value.to(parameter.device)
    optimizer.state.update(state)
    return _step(found), load_file(found / METHOD)


def load_policy(folder: Path, parameters: dict[str, nn.Parameter]) -> Path | None:
    """Restore the parameters of the newest whole checkpoint in place; its folder, None where there is none.

    Raises:
        ConfigError: the checkpoint is of another policy.
    """
    found = newest(folder)
    if found is None:
        return None
    weights = load_file(found / POLICY)
    check_fits(weights, parameters, found)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    return found


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is as it was written; of those that are damaged a word is said."""
    for found in reversed(checkpoints(folder)):
        fault = damage(found)
        if fault is None:
            return found
        console.print(
            f"{found}: damaged ({fault}), passed over; training goes on from the one before", markup=False
        )
    return None


def last_step(folder: Path) -> int:
    """The step of the newest whole checkpoint, 0 where there is none."""
    found = newest(folder)
    return 0 if found is None else _step(found)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, by their steps."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def damage(checkpoint: Path) -> str | None:
    """What is not as it was written, or None; a checkpoint of a version that wrote no sums cannot be told."""
    try:
        if not (checkpoint / SUMS).exists():
            console.print(
                f"{checkpoint}: no {SUMS} (an older version wrote none), taken unchecked", markup=False
            )
        else:
            written, is_now = (checkpoint / SUMS).read_bytes().decode(), _sums(checkpoint)
            if written != is_now:
                differing = [line.split("  ")[1] for line in is_now.splitlines() if line not in written]
                return f"{', '.join(differing) or SUMS} is not as it was written"
        found = json.loads((checkpoint / STATE).read_text())["step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"cannot be read: {error}"
    return None if found == _step(checkpoint) else f"holds step {found}"


def _sums(checkpoint: Path) -> str:
    lines = []
    for name in (MOMENTS, METHOD, POLICY, STATE):
        with (checkpoint / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


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
