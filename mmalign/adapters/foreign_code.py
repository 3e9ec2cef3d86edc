"""What a pipeline's folder names beyond the classes of diffusers and transformers: read, and nothing imported."""

import importlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers")
"""Whose classes components may be; and those of diffusers' own pipelines."""


def foreign_code(folder: Path) -> list[str]:
    """Everything in model_index.json that would run code which is in no library of ours, one sentence each."""
    index = _index(folder)
    own = index.get("_class_name")
    found = []
    if isinstance(own, list) or (isinstance(own, str) and (folder / f"{own}.py").is_file()):
        file = own[0] if isinstance(own, list) and own else own
        found.append(f"its pipeline is the Python code of {file}.py in its folder")
    for name, library, of in _components(index):
        if (folder / name / f"{library}.py").is_file():
            found.append(f"its {name} is the Python code of {name}/{library}.py in its folder")
        elif not _is_known(library):
            found.append(f"its {name} is {of} of the Python package {library}")
    return found


def import_libraries(folder: Path) -> None:
    """Import the further packages of a pipeline that is trusted; diffusers finds only what is imported already."""
    for name, library, _ in _components(_index(folder)):
        if not _is_known(library) and not (folder / name / f"{library}.py").is_file():
            importlib.import_module(library)


def _index(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # what is no pipeline is refused where it is loaded
    return found if isinstance(found, dict) else {}


def _components(index: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, library and class of each component."""
    for name, value in index.items():
        if not name.startswith("_") and isinstance(value, list) and len(value) == 2 and value[0] is not None:
            yield name, str(value[0]), str(value[1])


def _is_known(library: str) -> bool:
    """Whether a library is one of ours, or the name of one of diffusers' own pipelines; nothing is imported."""
    if library in LIBRARIES:
        return True
    spec = importlib.util.find_spec("diffusers")
    places = (spec.submodule_search_locations if spec is not None else None) or []
    return library.isidentifier() and any((Path(place) / "pipelines" / library).is_dir() for place in places)
