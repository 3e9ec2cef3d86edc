"""Loads a generator by hub id, folder or embedded name."""

import importlib
import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmalign.adapters.foreign_code import foreign_code, import_libraries
from mmalign.errors import ConfigError, UnknownNameError
from mmalign.remote_code import remote_code
from mmalign.resources import resource
from mmalign.trust import demand, loading, trusting

ADAPTERS = {
    "audio": "mmalign.adapters.audio:AudioAdapter",
    "image": "mmalign.adapters.image:ImageAdapter",
    "scene3d": "mmalign.adapters.scene3d:Scene3DAdapter",
    "speech": "mmalign.adapters.speech:SpeechAdapter",
    "video": "mmalign.adapters.video:VideoAdapter",
}
"""By modality."""
MARKS = {
    "audio_end_in_s": "audio",
    "audio_length_in_s": "audio",
    "num_frames": "video",
    "video_length": "video",
}
"""Options that only pipelines of one medium have; the others draw pictures."""
PIPELINE_INDEX, SPEECH_INDEX = "model_index.json", "speech.json"
"""What says of a folder that it holds a diffusers pipeline, or a language model over codec tokens."""
OPTIONS_INDEX = "options.json"
"""Beside a pipeline, the options of its calls for which its class has defaults that do not fit it; and under
``sampling`` the ``steps`` and ``guidance`` with which it is drawn from where a recipe names none."""
VIEWS_INDEX = "scene3d.json"
"""What says, beside a pipeline, that its pictures are grids of views."""


def folder_options(folder: Path) -> dict[str, Any]:
    """What a folder's ``options.json`` says of its pipeline's calls; under ``sampling``, steps and guidance.

    Raises:
        ConfigError: it is no JSON object.
    """
    path = folder / OPTIONS_INDEX
    if not path.is_file():
        return {}
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from None
    if not isinstance(options, dict):
        raise ConfigError(f"{path}: expected options by name, got {type(options).__name__}")
    return options


def model_folder(name: str) -> str:
    """Where a model lies: the folder of an embedded one, a local folder, or the hub id itself.

    Raises:
        UnknownNameError: no embedded model has this name.
        ConfigError: a path that does not exist.
    """
    if name.startswith("embedded/"):
        folder = resource("assets") / name.removeprefix("embedded/")
        if not any((folder / index).is_file() for index in (PIPELINE_INDEX, SPEECH_INDEX)):
            raise UnknownNameError("embedded model", name, embedded_models())
        return str(folder)
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise ConfigError(f"model '{name}': no such folder")
    return str(Path(name).expanduser())


def embedded_models() -> list[str]:
    """Names of the generators that ship with the package."""
    found = (
        path for index in (PIPELINE_INDEX, SPEECH_INDEX) for path in resource("assets").glob(f"*/{index}")
    )
    return sorted(f"embedded/{path.parent.name}" for path in found)


def load_adapter(
    name: str,
    *,
    modality: str | None = None,
    device: str | None = None,
    dtype: Any = None,
    trust: Iterable[str] = (),
    **options: Any,
) -> Any:
    """Load a generator and verify that it can be aligned.

    Args:
        name: ``embedded/<name>``, a folder, or a hub id.
        modality: what it makes; if not given, what the pipeline's class or the folder says.
        device: by default the first GPU, else the CPU.
        dtype: of the frozen weights; by default fp32 on the CPU and bf16 on a GPU.
        trust: models, by name, whose own Python code may run: this one. Else a model made of classes of diffusers and
            transformers is loaded, and no other.
        options: the pipeline's own options (``height``, ``frames``, ``duration_s``, ``max_sequence_length``) where a
            call does not say otherwise, in the place of those in the folder's ``options.json``; of grids of views that
            no file describes also ``rows``, ``columns`` and ``cameras``, with modality = "scene3d".

    Returns:
        The adapter of its medium, such as ``ImageAdapter``, whose ``generator.pipeline`` is the live diffusers
        pipeline; or of a folder that ``SpeechAdapter.save`` wrote that class, whose ``generator.model`` is the live
        transformers model.

    Raises:
        UnknownNameError: an unknown modality or embedded model.
        ConfigError: the model cannot be found, is no diffusers pipeline, or makes something else.
        UnsupportedPipelineError: something about it could not be verified.
        TrustError: it comes with code of its own, and nobody trusts it.
    """
    with trusting(trust), loading(name):
        return _load_adapter(name, modality=modality, device=device, dtype=dtype, **options)


def _load_adapter(name: str, *, modality: str | None, device: str | None, dtype: Any, **options: Any) -> Any:
    if modality is not None and modality not in ADAPTERS:
        raise UnknownNameError("modality", modality, ADAPTERS)
    folder = model_folder(name)
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
    if (Path(folder) / SPEECH_INDEX).is_file():
        if modality not in (None, "speech"):
            raise ConfigError(f"model '{name}' makes speech, and modality = '{modality}' was asked for")
        return _adapter(json.loads((Path(folder) / SPEECH_INDEX).read_text())["class"]).load(
            Path(folder), device=device, dtype=dtype, **options
        )
    if modality == "speech":
        raise ConfigError(f"model '{name}': no {SPEECH_INDEX} here; SpeechAdapter.save writes such a folder")
    try:
        pipeline = load_pipeline(name, folder, dtype=dtype)
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise ConfigError(
            f"model '{name}': not a diffusers pipeline that can be loaded here ({str(error).splitlines()[0]}). "
            f"Give a folder with model_index.json, a hub id, or one of {', '.join(embedded_models())}"
        ) from None
    made = pipeline_modality(pipeline)
    own = folder_options(Path(folder))
    own.pop("sampling", None)  # of whole samples, and not of every call
    options = {**own, **options}
    if (Path(folder) / VIEWS_INDEX).is_file():
        from mmalign.adapters.scene3d import read_settings

        made, options = "scene3d", {**read_settings(Path(folder)), **options}
    elif modality == "scene3d" and made == "image":
        if not {"rows", "columns"} <= options.keys():
            raise ConfigError(
                f"model '{name}': no {VIEWS_INDEX} here that says how its pictures are divided into views; give "
                "rows, columns and cameras"
            )
        made = "scene3d"
    if modality not in (None, made):
        raise ConfigError(f"model '{name}' makes {made}, and modality = '{modality}' was asked for")
    return _adapter(ADAPTERS[made].partition(":")[2])(pipeline.to(device), **options)


def load_pipeline(name: str, folder: str, *, dtype: Any) -> Any:
    """A diffusers pipeline of a folder or a hub id, fetched if need be, and looked over before any of it is imported.

    Raises:
        TrustError: it names code beyond diffusers and transformers, and nobody trusts it.
    """
    from diffusers import DiffusionPipeline

    if Path(folder).is_dir():
        refuse_foreign_code(name, Path(folder))
    code = remote_code()
    if not Path(folder).is_dir():
        folder = str(DiffusionPipeline.download(folder, trust_remote_code=code))
        refuse_foreign_code(name, Path(folder))
    return DiffusionPipeline.from_pretrained(
        folder, dtype=dtype, local_files_only=True, trust_remote_code=code
    )


def refuse_foreign_code(name: str, folder: Path) -> None:
    """Let a pipeline's folder name code of its own only where it is trusted.

    Raises:
        TrustError: it does, and it is not.
    """
    for what in foreign_code(folder):
        demand(name, what)
    import_libraries(folder)


def pipeline_modality(pipeline: Any) -> str:
    """What a diffusers pipeline makes, by the options of its class."""
    known = inspect.signature(type(pipeline).__call__).parameters
    return next((modality for mark, modality in MARKS.items() if mark in known), "image")


def _adapter(name: str) -> Any:
    """An adapter's class by its name.

    Raises:
        UnknownNameError: there is none of this name.
    """
    known = {target.partition(":")[2]: target.partition(":")[0] for target in ADAPTERS.values()}
    if name not in known:
        raise UnknownNameError("adapter", name, known)
    return getattr(importlib.import_module(known[name]), name)
