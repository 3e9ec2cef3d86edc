"""Reads and writes LoRA files as diffusers does, for work on their tensors without a pipeline."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.lora import METADATA, WEIGHTS_NAME
from mmalign.generators.merging import Update, read_update
from mmalign.weights import write_weights


def read_lora(folder: Path) -> tuple[str, dict[str, tuple[Tensor, Tensor]]]:
    """The part of the pipeline that a LoRA changes, and its updates by layer.

    Raises:
        ConfigError: there is no LoRA, or it changes several parts.
    """
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise ConfigError(f"{folder}: no {WEIGHTS_NAME} here; give a run or its lora folder")
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except SafetensorError as error:
        raise ConfigError(f"{path}: not a safetensors file ({error})") from None
    prefixes = {name.partition(".")[0] for name in state}
    if len(prefixes) != 1:
        raise ConfigError(f"{path}: changes several parts of a pipeline ({', '.join(sorted(prefixes))})")
    (prefix,) = prefixes
    layers = {name.partition(".")[2]: tensor for name, tensor in state.items()}
    rank = next(tensor.shape[0] for name, tensor in layers.items() if name.endswith("lora_A.weight"))
    alpha = metadata.get(f"{prefix}.lora_alpha", rank)
    return prefix, read_update(layers, alpha / metadata.get(f"{prefix}.r", rank))


def write_lora(folder: Path, prefix: str, update: Update) -> None:
    """Write updates as ``pytorch_lora_weights.safetensors``; their scale is 1, alpha being the rank."""
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in update.items():
        tensors[f"{prefix}.{name}.lora_A.weight"] = down.contiguous()
        tensors[f"{prefix}.{name}.lora_B.weight"] = up.contiguous()
    rank = max(down.shape[0] for down, _ in update.values())
    metadata: Mapping[str, object] = {
        f"{prefix}.r": rank,
        f"{prefix}.lora_alpha": rank,
        f"{prefix}.target_modules": sorted(update),
    }
    write_weights(folder / WEIGHTS_NAME, tensors, {"format": "pt", METADATA: json.dumps(metadata)})
