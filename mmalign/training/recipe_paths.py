"""Makes what a recipe names in the present folder findable from every other one: absolute paths of files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mmalign.rewards.cards import cards, is_address, is_folder, parse_weighted
from mmalign.training.recipe import Recipe


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths of files and folders; names of what ships, hub ids and addresses stay.

    Files are prompts, tables, the model's folder, and folders and cards of rewards, also ``FOLDER:0.5`` and
    ``FOLDER@worst-case``.
    """
    paths: dict[str, Any] = {}
    for name in ("preferences", "ratings", "demonstrations", "out"):
        path = getattr(recipe, name)
        paths[name] = None if path is None else path.expanduser().absolute()
    for name in ("prompts", "heldout_prompts"):
        text = getattr(recipe, name)
        paths[name] = None if text is None else absolute_prompts(text)
    heldout = recipe.heldout_reward
    return replace(
        recipe,
        model=absolute_model(recipe.model),
        reward=tuple(absolute_reward(text) for text in recipe.reward),
        heldout_reward=None if heldout is None else absolute_reward(heldout),
        **paths,
    )


def absolute_prompts(name: str) -> str:
    """A file of prompts; a list that ships keeps its name.

    >>> absolute_prompts("embedded/shapes-train")
    'embedded/shapes-train'
    """
    return name if name.startswith("embedded/") else str(Path(name).expanduser().absolute())


def absolute_model(name: str) -> str:
    """A model's folder; an embedded name or a hub id stays, and so does what is not there.

    >>> absolute_model("embedded/shapes-flow"), absolute_model("owner/name")
    ('embedded/shapes-flow', 'owner/name')
    """
    folder = Path(name).expanduser()
    if name.startswith("embedded/") or not (folder.is_dir() or name.startswith((".", "/", "~"))):
        return name
    return str(folder.absolute())


def absolute_reward(text: str) -> str:
    """A reward's folder or card, with its weight and its way of being careful, if it has them.

    >>> absolute_reward("embedded/shapes-clip:0.5"), absolute_reward("http://127.0.0.1:8000/:2")
    ('embedded/shapes-clip:0.5', 'http://127.0.0.1:8000/:2')
    """
    name, _ = parse_weighted(text)
    if is_address(name) or name in cards():
        return text
    path, rest = name, ""
    if not _is_path(path) and "@" in name:
        path, _, how = name.rpartition("@")
        rest = f"@{how}"
    if not _is_path(path):
        return text
    return f"{Path(path).expanduser().absolute()}{rest}{text[len(name) :]}"


def _is_path(name: str) -> bool:
    return is_folder(name) or (name.endswith(".yaml") and Path(name).is_file())
