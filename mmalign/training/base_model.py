"""What a model's own files say of it, without loading it: its family, its medium, its options, its licence."""

import ast
import importlib.util
import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml

from mmalign.adapters.foreign_code import foreign_code
from mmalign.adapters.loading import (
    MARKS,
    PIPELINE_INDEX,
    SPEECH_INDEX,
    VIEWS_INDEX,
    embedded_models,
    folder_options,
    model_folder,
)
from mmalign.errors import ConfigError
from mmalign.training.recipe import Modality, Recipe
from mmalign.trust import demand

STEPS, GUIDANCE = 28, 4.5
"""Of samples where neither recipe nor model says more."""
DIFFUSIONS = ("epsilon", "sample", "v_prediction")


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """A model on this machine, as far as its files tell; what they do not is None."""

    name: str
    folder: Path | None
    """Where its files are; None of one that is still to be fetched from the hub."""
    pipeline: str | None = None
    """Its class in diffusers."""
    modality: Modality | None = None
    on_tokens: bool | None = None
    """Whether it draws token by token; else it is a denoiser."""
    flow: bool | None = None
    """Whether a denoiser is a rectified flow; else a diffusion."""
    licence: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Of its ``options.json``."""
        return {} if self.folder is None else folder_options(self.folder)

    @property
    def trained_bytes(self) -> int:
        """Of the part that is trained, on disk; 0 of one that is not here."""
        if self.folder is None:
            return 0
        parts = [self.folder / name for name in ("transformer", "unet", "prior")]
        folders = [part for part in parts if part.is_dir()] or [self.folder]
        return sum(file.stat().st_size for file in folders[0].glob("*.safetensors"))


def read_base_model(name: str) -> BaseModel:
    """What the files of a model say.

    Raises:
        UnknownNameError: no embedded model has this name.
        ConfigError: there is nothing here that could be loaded, or nothing may be fetched.
    """
    folder = _folder(name)
    if folder is None:
        return BaseModel(name=name, folder=None)
    licence = "Apache-2.0" if name.startswith("embedded/") else _licence(folder / "README.md")
    if (folder / SPEECH_INDEX).is_file():
        return BaseModel(name=name, folder=folder, modality="speech", on_tokens=True, licence=licence)
    for what in foreign_code(folder):
        demand(name, what)
    pipeline = _json(folder / PIPELINE_INDEX).get("_class_name")
    if isinstance(pipeline, list):  # code of its own, whose medium only it knows
        return BaseModel(name=name, folder=folder, on_tokens=False, licence=licence)
    if not isinstance(pipeline, str):
        raise _not_loadable(name, f"{PIPELINE_INDEX} names no class")
    made: Modality | None = "scene3d" if (folder / VIEWS_INDEX).is_file() else pipeline_medium(pipeline)
    return BaseModel(
        name=name,
        folder=folder,
        pipeline=pipeline,
        modality=made,
        on_tokens=False,
        flow=_is_flow(folder / "scheduler" / "scheduler_config.json"),
        licence=licence,
    )


def _folder(name: str) -> Path | None:
    """Where a model lies on this machine, also in the hub's cache; None where it is to be fetched."""
    folder = Path(model_folder(name))
    if folder.is_file():
        raise _not_loadable(name, "this is a file")
    if not folder.is_dir():
        cached = _cached(name)
        if cached is None and os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
            raise _not_loadable(name, "it is not on this machine, and HF_HUB_OFFLINE forbids to fetch it")
        return cached
    if not any((folder / index).is_file() for index in (PIPELINE_INDEX, SPEECH_INDEX)):
        raise _not_loadable(name, f"no {PIPELINE_INDEX} in this folder")
    return folder


def _not_loadable(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"model '{name}': not a diffusers pipeline that can be loaded here ({why}). "
        f"Give a folder with {PIPELINE_INDEX}, a hub id, or one of {', '.join(embedded_models())}"
    )


def _cached(name: str) -> Path | None:
    """The newest snapshot of a hub id in the hub's cache, if it has an index."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache_folder = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    model = cache_folder / f"models--{name.replace('/', '--')}"
    try:
        snapshot = model / "snapshots" / (model / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return snapshot if (snapshot / PIPELINE_INDEX).is_file() else None


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from None
    return values if isinstance(values, dict) else {}


def _is_flow(path: Path) -> bool | None:
    """Whether a scheduler's settings are those of a rectified flow; None where they leave it open."""
    values = _json(path)
    kind = values.get("prediction_type")
    if "FlowMatch" in str(values.get("_class_name")) or values.get("use_flow_sigmas"):
        return True
    return True if kind == "flow_prediction" else False if kind in DIFFUSIONS else None


def _licence(path: Path) -> str | None:
    """What the head of a model card says, as hubs read it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if not text.startswith("---"):
        return None
    try:
        head = yaml.safe_load(text.split("---", 2)[1])
    except yaml.YAMLError:
        return None
    found = [head.get(key) for key in ("license_name", "license")] if isinstance(head, dict) else []
    return next((str(value) for value in found if value), None)


@cache
def pipeline_medium(name: str) -> Modality | None:
    """What a class of diffusers makes, by the options of its source, which is read and not imported.

    >>> pipeline_medium("StableAudioPipeline"), pipeline_medium("NoSuchPipeline")
    ('audio', None)
    """
    spec = importlib.util.find_spec("diffusers")
    if spec is None or spec.origin is None:
        return None
    mark = f"class {name}(".encode()
    for path in sorted((Path(spec.origin).parent / "pipelines").rglob("pipeline_*.py")):
        source = path.read_bytes()
        if mark in source:
            options = _call_options(source, name)
            return cast(
                Modality, next((medium for option, medium in MARKS.items() if option in options), "image")
            )
    return None


def _call_options(source: bytes, name: str) -> set[str]:
    """Names of the arguments of ``name.__call__``."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "__call__":
                    return {argument.arg for argument in (*item.args.args, *item.args.kwonlyargs)}
    return set()


def settled(recipe: Recipe) -> Recipe:
    """The recipe with the steps and guidance that it leaves to its model, as far as the model's files say them.

    One that leaves nothing is returned as it is. See ``fitted`` for guidance that no file says.

    Raises:
        MmalignError: as ``read_base_model``.
    """
    sampling = recipe.sampling
    if recipe.method.on_tokens:
        return recipe if sampling.guidance is not None else _with(recipe, guidance=1.0)
    if sampling.steps is not None and sampling.guidance is not None:
        return recipe
    own = read_base_model(recipe.model).options.get("sampling", {})
    return _with(
        recipe,
        steps=own.get("steps", STEPS) if sampling.steps is None else sampling.steps,
        guidance=own.get("guidance") if sampling.guidance is None else sampling.guidance,
    )


def fitted(recipe: Recipe, generator: Any) -> Recipe:
    """The recipe with the guidance that neither it nor the model's files say, by the loaded generator."""
    if recipe.sampling.guidance is not None:
        return recipe
    return _with(recipe, guidance=default_guidance(generator))


def default_guidance(generator: Any) -> float:
    """1, which is none, of a model that takes no guidance; else 4.5."""
    return 1.0 if getattr(generator, "guidance_name", None) is None else GUIDANCE


def _with(recipe: Recipe, **values: Any) -> Recipe:
    return replace(recipe, sampling=replace(recipe.sampling, **values))
