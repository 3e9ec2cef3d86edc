"""Reads and writes LoRA files as diffusers and PEFT do, for work on their tensors without a model."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.files import whole_file
from mmalign.generators.lora import METADATA, PEFT_PREFIX, WEIGHTS_NAME
from mmalign.generators.merging import Update, read_update
from mmalign.weights import write_weights

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT = PEFT_PREFIX.rstrip(".")
"""The prefix of a PEFT folder, which says nothing of the part of a pipeline."""
SUFFIX = ".lora_A.weight"
FRESH: Mapping[str, Any] = {
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "inference_mode": True,
}
"""What a merged LoRA's configuration says in the place of its sources': alpha is the rank of every layer."""


def read_lora(folder: Path) -> tuple[str, dict[str, tuple[Tensor, Tensor]]]:
    """The part of the pipeline that a LoRA changes, and its updates by layer, each with its own scale inside.

    A PEFT folder, as of a language model, has the part "base_model.model".

    Raises:
        ConfigError: there is no plain LoRA, or it changes several parts.
    """
    if (folder / PEFT_CONFIG).is_file():
        state, _ = _read(folder / PEFT_WEIGHTS)
        config, prefix = _config(folder), PEFT
    else:
        state, metadata = _read(folder / WEIGHTS_NAME)
        prefixes = {name.partition(".")[0] for name in state}
        if len(prefixes) != 1:
            raise ConfigError(
                f"{folder}: changes several parts of a pipeline ({', '.join(sorted(prefixes))}), or none"
            )
        (prefix,) = prefixes
        config = {name.removeprefix(f"{prefix}."): value for name, value in metadata.items()}
    layers = {name.removeprefix(f"{prefix}."): tensor for name, tensor in state.items()}
    return prefix, read_update(layers, layer_scales(layers, config))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and the configuration that diffusers puts into the header."""
    if not path.is_file():
        raise ConfigError(
            f"{path.parent}: no {WEIGHTS_NAME} here, and no {PEFT_CONFIG}; give a run or its lora folder"
        )
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except SafetensorError as error:
        raise ConfigError(f"{path}: not a safetensors file ({error})") from None


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / PEFT_CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{folder / PEFT_CONFIG}: not JSON ({error})") from None
    if not isinstance(config, dict) or config.get("peft_type", "LORA") != "LORA":
        raise ConfigError(
            f"{folder}: no LoRA but {config.get('peft_type') if isinstance(config, dict) else config}"
        )
    return config


def layer_scales(layers: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, float]:
    """By layer what PEFT multiplies its update with: alpha / r, or alpha / sqrt(r) with ``use_rslora``.

    Args:
        layers: tensors by ``<layer>.lora_A.weight``, whose first axis is the layer's own rank (``rank_pattern``).
        config: PEFT's; without one alpha is the rank. ``alpha_pattern`` holds for the layers that it names.

    >>> layer_scales({"a.lora_A.weight": torch.ones(4, 1)}, {"lora_alpha": 8, "use_rslora": True})
    {'a': 4.0}
    """
    patterns = config.get("alpha_pattern") or {}
    scales = {}
    for name in (name.removesuffix(SUFFIX) for name in layers if name.endswith(SUFFIX)):
        rank = layers[f"{name}{SUFFIX}"].shape[0]
        alpha = patterns.get(get_pattern_key(patterns.keys(), name), config.get("lora_alpha", rank))
        scales[name] = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return scales


def write_lora(folder: Path, prefix: str, update: Update, *, like: Path | None = None) -> None:
    """Write updates in the form that they were read in; their scale is 1, alpha being the rank.

    All layers get one rank, smaller ones filled up with zeros, so that every loader takes the file.

    Args:
        folder: where.
        prefix: as ``read_lora`` gave it.
        update: by layer.
        like: of a PEFT folder, one whose configuration says which model it belongs to.
    """
    rank = max(down.shape[0] for down, _ in update.values())
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in update.items():
        tensors[f"{prefix}.{name}{SUFFIX}"] = _filled(down, 0, rank)
        tensors[f"{prefix}.{name}.lora_B.weight"] = _filled(up, 1, rank)
    config = {**FRESH, "r": rank, "lora_alpha": rank, "target_modules": sorted(update)}
    if prefix == PEFT:
        text = json.dumps(
            {**({} if like is None else _config(like)), "peft_type": "LORA", **config}, indent=2
        )
        with whole_file(folder / PEFT_CONFIG) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")
    header = {f"{prefix}.{name}": value for name, value in config.items() if name not in FRESH}
    metadata = {"format": "pt", **({} if prefix == PEFT else {METADATA: json.dumps(header)})}
    write_weights(folder / (PEFT_WEIGHTS if prefix == PEFT else WEIGHTS_NAME), tensors, metadata)


def _filled(factor: Tensor, axis: int, rank: int) -> Tensor:
    """A factor with zeros behind it along its rank."""
    missing = list(factor.shape)
    missing[axis] = rank - factor.shape[axis]
    return torch.cat([factor, factor.new_zeros(missing)], axis).contiguous()
