"""What a card that did not come with mmalign asks for, beyond tables and its own folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.rewards.targets import code_of
from mmalign.roots import lies_in

if TYPE_CHECKING:
    from mmalign.rewards.cards import RewardCard


def beyond_its_folder(card: "RewardCard", folder: Path) -> Iterator[str]:
    """Everything about a card that only trust in its author opens, one sentence each; nothing is imported or opened.

    Rewards that it is made of are no such thing: each is judged by its own card.

    Args:
        card: read from a file.
        folder: of that file.
    """
    if code_of(card.target) is None:
        yield foreign_code(card)
    sources = [part.source for part in card.parts.values()]
    for text in [*_texts(card.options), *sources, *filter(None, [card.weights])]:
        if "://" in text:
            yield f"its card names the address '{text}'"
        elif text not in card.made_of and _leaves(text, folder):
            yield f"its card names '{text}', outside its folder"


def foreign_code(card: "RewardCard") -> str:
    """What is said of a target that is in no table."""
    return (
        f"its card names the code '{card.target}', which is no reward of mmalign or of an installed plug-in"
    )


def _texts(value: Any) -> Iterator[str]:
    """Every text in a card's options, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _texts(key)
            yield from _texts(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _texts(entry)


def _leaves(text: str, folder: Path) -> bool:
    """Whether a text is a path out of a folder; a question that has a slash in it is no path."""
    if "/" not in text or "\n" in text:
        return False
    try:
        path = Path(text).expanduser()
        named = path.is_absolute() or ".." in path.parts or path.exists()
    except (OSError, RuntimeError, ValueError):  # too long for a path, or no user of this name
        return False
    return named and not lies_in(path, folder)
