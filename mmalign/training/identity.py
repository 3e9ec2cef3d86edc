"""What something is, as a digest of its contents: files, models, rewards, tables and weights, wherever they lie."""

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.adapters.loading import model_folder
from mmalign.rewards.cards import RewardCard, find_card
from mmalign.rewards.weights import find

if TYPE_CHECKING:
    from torch import Tensor

WHOLE_BYTES = 64 * 2**20
"""Files up to this size are read whole."""
BLOCKS, BLOCK_BYTES = 64, 2**20
"""Of larger ones so many blocks, spread evenly from the first to the last: other weights differ all over."""
DIGITS = 16
UNKNOWN = "unknown"
"""Of a model or of weights that are not on this machine yet."""
WORDS_ALONE = ("name", "weights", "parts", "licence", "source", "extra")
"""Fields of a card that say nothing of its scores, or where its weights lie, which are read themselves."""


def digest(value: Any) -> str:
    """Of plain values, as JSON has them.

    >>> digest({"a": 1, "b": [2]}) == digest({"b": (2,), "a": 1}), digest([1]) == digest(["1"])
    (True, False)
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def of_file(path: Path) -> str:
    """Of a file's bytes; of one above 64 MiB its size and 64 blocks of it."""
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            found.update(file.read())
        else:
            for block in range(BLOCKS):
                file.seek(block * (size - BLOCK_BYTES) // (BLOCKS - 1))
                found.update(file.read(BLOCK_BYTES))
    return found.hexdigest()[:DIGITS]


def of_folder(folder: Path) -> str:
    """Of all files in a folder by their names, without hidden ones and Markdown, which no model is made of."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return digest(
        [
            (name.as_posix(), of_file(files[name]))
            for name in sorted(files)
            if name.suffix != ".md" and not any(part.startswith(".") for part in name.parts)
        ]
    )


def of_model(name: str) -> str:
    """Of an embedded model or a folder its files; of a hub id the revision that the hub's cache holds, or "unknown".

    Raises:
        UnknownNameError: no embedded model has this name.
        ConfigError: a path that does not exist.
    """
    folder = Path(model_folder(name))
    return of_folder(folder) if folder.is_dir() else _revision(str(folder))


def _revision(repository: str) -> str:
    from huggingface_hub import constants

    reference = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "refs" / "main"
    return reference.read_text().strip() if reference.is_file() else UNKNOWN


def of_reward(name: str) -> str:
    """Of a reward's card, its weights, its own module, files among its options, and the rewards that it is made of.

    "unknown" where weights of any of them are not on this machine yet.

    Raises:
        UnknownNameError: no card has this name.
        ConfigError: nothing answers at its address.
    """
    card = find_card(name)
    fields = {key: value for key, value in asdict(card).items() if key not in WORDS_ALONE}
    options = [
        of_file(Path(value))
        for value in card.options.values()
        if isinstance(value, str) and Path(value).is_file()
    ]
    options += _code(card)
    weights, others = _weights(card), [of_reward(part) for part in card.made_of]
    return UNKNOWN if UNKNOWN in (*weights, *others) else digest([fields, weights, options, others])


def _code(card: RewardCard) -> list[str]:
    """Of a user's own single module; mmalign's and those of packages have versions, and nothing is imported here."""
    module = card.target.partition(":")[0]
    spec = None if "." in module else importlib.util.find_spec(module)
    return [of_file(Path(spec.origin))] if spec is not None and spec.has_location and spec.origin else []


def _weights(card: RewardCard) -> list[str]:
    parts = [*([""] if card.weights is not None else []), *card.parts]
    found = []
    for part in parts:
        place, names = find(card, part), card.weight_files(part).files
        if place is None:
            found.append(UNKNOWN)
        elif place.is_file():
            found.append(of_file(place))
        else:
            files = [place / name for name in sorted(names) if (place / name).is_file()]
            found.append(digest([of_file(path) for path in files]) if files else of_folder(place))
    return found


def of_table(table: Path, media: Iterable[Path]) -> str:
    """Of a table and of the media that it names, in order, each file read once."""
    return digest([of_file(table), [of_file(path) for path in dict.fromkeys(media)]])


def of_samples(prompts: Sequence[str], seeds: Sequence[int]) -> str:
    """Of what is drawn: prompts with their seeds."""
    return digest([list(prompts), list(seeds)])


def of_tensors(tensors: Mapping[str, "Tensor"]) -> str:
    """Of weights by name, to the last bit."""
    import torch

    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:DIGITS]
