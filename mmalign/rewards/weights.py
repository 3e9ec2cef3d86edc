"""Where a card's weights lie, how they come to this machine, and how they are read without running what is in them."""

import hashlib
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.errors import ConfigError
from mmalign.files import whole_file
from mmalign.resources import resource

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmalign.rewards.cards import RewardCard, WeightFiles

SAME_WEIGHTS = (
    frozenset({"model.safetensors", "pytorch_model.bin"}),
    frozenset({"open_clip_model.safetensors", "open_clip_pytorch_model.bin"}),
)
"""Names under which hubs keep the same tensors; where one is asked for, another will do."""


def weights_home() -> Path:
    """``$MMALIGN_WEIGHTS``, by default ``~/.cache/mmalign``: in it, folders of weights by their card's name."""
    return Path(os.environ.get("MMALIGN_WEIGHTS") or "~/.cache/mmalign").expanduser()


def local_path(source: str) -> Path | None:
    """The path that a card's ``weights`` name, or None where they are a hub id or a URL.

    >>> local_path("laion/clap-htsat-unfused") is None
    True
    """
    if source.startswith("embedded/"):
        return resource("assets") / source.removeprefix("embedded/")
    path = Path(source).expanduser()
    return path if path.exists() or source.startswith((".", "/", "~")) else None


def find(card: "RewardCard", part: str = "") -> Path | None:
    """Where a card's weights, or a part of them, lie on this machine: a folder, or one file; None where they do not.

    Looked for in the card's own path, then in the folder of weights put there by hand, then in the hub's cache. A part
    may lie in a folder of its name inside, or among the weights themselves.
    """
    wanted = card.weight_files(part)
    return next((place for place in _places(card, part, wanted) if _holds(place, wanted.files)), None)


def obtain(card: "RewardCard", part: str = "", *, files: Iterable[str] = ()) -> Path:
    """The same, fetched from the hub if need be, with every file whose SHA-256 the card states checked.

    Args:
        card: whose weights.
        part: of ``card.parts``; "" for the weights themselves.
        files: what is fetched where the card names no files.

    Raises:
        ConfigError: the weights are not here and could not be fetched, or a file is not the one that the card means.
    """
    place = find(card, part) or _fetch(card, part, files)
    for name, digest in card.weight_files(part).files.items():
        path = place if place.is_file() else place / name
        if digest is not None and path.is_file():
            _check(card, path, digest)
    return place


def checkpoint(card: "RewardCard", name: str) -> Path:
    """The one file that a card's weights are: a file of any name, or ``name`` in their folder.

    Raises:
        ConfigError: as ``obtain``, or the folder has no such file.
    """
    place = obtain(card, files=[name])
    path = place if place.is_file() else place / name
    if not path.is_file():
        raise ConfigError(f"reward '{card.name}': there is no {name} in '{place}'")
    return path


def read_state(path: Path) -> dict[str, "Tensor"]:
    """The tensors of a checkpoint by name, on the CPU, taken out of "state_dict" and of "module." if they are in it.

    Raises:
        ConfigError: not a checkpoint, or one that holds more than tensors, which is not opened.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        import torch

        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"'{path}' holds more than tensors and is not opened, since that would run code from it; save its "
            "state dict as safetensors on a machine that trusts it"
        ) from error
    except Exception as error:
        raise ConfigError(f"'{path}' is no checkpoint that can be read ({_first_line(error)})") from error
    state = state.get("state_dict", state)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def fill(module: "nn.Module", state: Mapping[str, "Tensor"], *, origin: Path) -> None:
    """Load tensors into a module; every one of the module's must be there, in its shape, and no other.

    Raises:
        ConfigError: a tensor is missing, of another shape, or has no place.
    """
    own = module.state_dict()
    faults = [f"no {name}" for name in own.keys() - state.keys()]
    faults += [f"no place for {name}" for name in state.keys() - own.keys()]
    faults += [
        f"{name}: expected {list(own[name].shape)}, got {list(state[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    if faults:
        raise ConfigError(f"'{origin}' is another model: {len(faults)} tensors differ, first: {min(faults)}")
    module.load_state_dict(dict(state))


def complete(loading: Mapping[str, Any], *, origin: Path) -> None:
    """Refuse what transformers fills with noise: tensors that the checkpoint does not have.

    Args:
        loading: what ``from_pretrained(..., output_loading_info=True)`` says.
        origin: for the message.

    Raises:
        ConfigError: a tensor is missing or of another shape.
    """
    faults = [str(fault) for kind in ("missing_keys", "mismatched_keys") for fault in loading.get(kind, ())]
    if faults:
        raise ConfigError(f"'{origin}' is another model: {len(faults)} tensors differ, first: {min(faults)}")


def _places(card: "RewardCard", part: str, wanted: "WeightFiles") -> Iterator[Path]:
    own = None if card.weights is None else local_path(card.weights)
    if own is not None and part:
        folder = own if own.is_dir() else own.parent
        yield from (folder / part, folder)
    elif own is not None:
        yield own
        return  # a path that somebody named is meant, and nothing else
    yield weights_home() / card.name / part
    named = local_path(wanted.source)
    if named is not None:
        yield named
    elif not _is_url(wanted.source):
        yield from _hub_folder(wanted.source)


def _holds(place: Path, files: Mapping[str, str | None]) -> bool:
    if place.is_file():
        return True
    return place.is_dir() and all(any((place / twin).is_file() for twin in _twins(name)) for name in files)


def _twins(name: str) -> list[str]:
    """The names that will do in the place of one, itself first."""
    return [name, *(twin for names in SAME_WEIGHTS if name in names for twin in sorted(names - {name}))]


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _hub_folder(repository: str) -> Iterator[Path]:
    """The snapshot that the hub's cache holds of a repository, without importing the hub's client."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / "main"
    if reference.is_file():
        yield folder / "snapshots" / reference.read_text().strip()


def _fetch(card: "RewardCard", part: str, files: Iterable[str]) -> Path:
    wanted = card.weight_files(part)
    names = list(wanted.files) or list(files)
    own = None if card.weights is None else local_path(card.weights)
    if own is not None and not part:
        lacking = "is not there" if not own.exists() else f"does not have all of {', '.join(names)}"
        raise ConfigError(f"reward '{card.name}': its weights folder '{own}' {lacking}; {advice(card)}")
    try:
        if _is_url(wanted.source):
            return _download(wanted.source, names, weights_home() / card.name / part)
        return _from_hub(wanted.source, names)
    except Exception as error:
        raise ConfigError(
            f"reward '{card.name}': its weights are not on this machine and could not be fetched "
            f"({_first_line(error)}); {advice(card)}"
        ) from error


def _from_hub(repository: str, names: list[str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    folder = Path()
    for name in names:
        *others, last = _twins(name)
        for twin in others:
            try:
                folder = Path(hf_hub_download(repository, twin)).parent
                break
            except RemoteEntryNotFoundError:
                continue
        else:
            folder = Path(hf_hub_download(repository, last)).parent
    return folder


def _download(url: str, names: list[str], folder: Path) -> Path:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")
    from urllib.parse import quote

    from torch.hub import download_url_to_file

    for name in names:
        with whole_file(folder / name) as unfinished:
            download_url_to_file(f"{url}/{quote(name)}", str(unfinished))
    return folder


def advice(card: "RewardCard") -> str:
    """What to type to have the weights, one command for each part that is not here."""
    commands = []
    for part in ("", *card.parts):
        wanted = card.weight_files(part)
        if not wanted.source or local_path(wanted.source) is not None or find(card, part) is not None:
            continue
        folder = f"FOLDER/{part}".rstrip("/")
        if _is_url(wanted.source):
            commands += [
                f"`curl -L --create-dirs -o '{folder}/{name}' '{wanted.source}/{name}'`"
                for name in wanted.files
            ]
        else:
            commands.append(
                " ".join(["`hf download", wanted.source, *wanted.files, f"--local-dir {folder}`"])
            )
    if not commands:
        return "give a folder that has them"
    return (
        f"where there is a network, run {' and '.join(commands)}, then load_reward('{card.name}', weights='FOLDER') "
        f"or make FOLDER {weights_home() / card.name}, which $MMALIGN_WEIGHTS can move"
    )


def _check(card: "RewardCard", path: Path, digest: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise ConfigError(
            f"reward '{card.name}': '{path}' has the SHA-256 {found}, but the card means the file with {digest}; it is "
            "damaged, or another version, which a card of its own would score with"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
