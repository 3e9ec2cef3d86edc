"""Loads a generator by hub id, folder or embedded name."""

import importlib
from pathlib import Path
from typing import Any

from mmalign.errors import ConfigError, UnknownNameError
from mmalign.resources import resource

ADAPTERS = {"image": "mmalign.adapters.image:ImageAdapter"}
"""By modality."""


def model_folder(name: str) -> str:
    """Where a model lies: the folder of an embedded one, a local folder, or the hub id itself.

    Raises:
        UnknownNameError: no embedded model has this name.
        ConfigError: a path that does not exist.
    """
    if name.startswith("embedded/"):
        folder = resource("assets") / name.removeprefix("embedded/")
        if not (folder / "model_index.json").is_file():
            raise UnknownNameError("embedded model", name, embedded_models())
        return str(folder)
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise ConfigError(f"model '{name}': no such folder")
    return str(Path(name).expanduser())


def embedded_models() -> list[str]:
    """Names of the generators that ship with the package."""
    return sorted(f"embedded/{path.parent.name}" for path in resource("assets").glob("*/model_index.json"))


def load_adapter(
    name: str, *, modality: str = "image", device: str | None = None, dtype: Any = None, **options: Any
) -> Any:
    """Load a pipeline and verify that it can be aligned.

    Args:
        name: ``embedded/<name>``, a folder, or a hub id.
        modality: what it makes.
        device: by default the first GPU, else the CPU.
        dtype: of the frozen weights; by default fp32 on the CPU and bf16 on a GPU.
        options: the pipeline's own options for the checks at load (``height``, ``width``, ``max_sequence_length``).

    Returns:
        An ``ImageAdapter``; its ``generator.pipeline`` is the live diffusers pipeline.

    Raises:
        UnknownNameError: an unknown modality or embedded model.
        ConfigError: the model cannot be found, or is no diffusers pipeline.
        UnsupportedPipelineError: something about it could not be verified.
    """
    if modality not in ADAPTERS:
        raise UnknownNameError("modality", modality, ADAPTERS)
    folder = model_folder(name)
    import torch
    from diffusers import DiffusionPipeline

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            folder, dtype=dtype, local_files_only=Path(folder).is_dir()
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model '{name}': not a diffusers pipeline that can be loaded here ({str(error).splitlines()[0]}). "
            f"Give a folder with model_index.json, a hub id, or one of {', '.join(embedded_models())}"
        ) from None
    module, _, target = ADAPTERS[modality].partition(":")
    return getattr(importlib.import_module(module), target)(pipeline.to(device), **options)
