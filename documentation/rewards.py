"""A page for every reward card, and the list of them."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from documentation.docstrings import docstring, mentioned, with_lists
from documentation.tables import table
from mmalign.resources import resource
from mmalign.rewards.cards import RewardCard, WeightFiles, cards

CONTEXT = {
    "captions": "captions of the same picture",
    "reference": "what the sample is compared with",
    "text": "what should be written or said",
    "transcript": "what was to be said",
}
MEDIA = {
    "audio": "sounds",
    "image": "pictures",
    "scene3d": "3D scenes",
    "speech": "speech",
    "video": "videos",
}


def pages() -> Iterator[tuple[str, str, str]]:
    """Path, title and text of each card's page."""
    for name, card in cards().items():
        yield f"rewards/{name}.md", name, page(card)


def comment(name: str) -> str:
    """What a card says of itself in the comment at its head."""
    path: Path = resource("reward_models") / f"{name}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    count = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines[:count])


def needs(card: RewardCard) -> str:
    """What a sample has to have beside its medium."""
    return (
        ", ".join(f"`{need}`" + (f" ({CONTEXT[need]})" if need in CONTEXT else "") for need in card.needs)
        or "nothing"
    )


def weights(files: WeightFiles) -> str:
    """Where files come from."""
    names = ", ".join(f"`{name}`" for name in files.files)
    return f"`{files.source}`" + (f" ({names})" if names else "")


def page(card: RewardCard) -> str:
    """What a card says, what its code says, and how it is called."""
    low_high = "no bounds" if card.range is None else f"{card.range[0]:g} to {card.range[1]:g}"
    facts = [
        ("scores", ", ".join(MEDIA[m] for m in card.modalities)),
        ("unit", card.unit),
        ("range", low_high),
        ("better", "higher" if card.higher_is_better else "lower"),
        ("needs", needs(card)),
        ("reads, where it is there", ", ".join(f"`{name}`" for name in card.reads)),
        (
            "gradient",
            "yes: `refl`, `draft` and `reward_distillation` can follow it" if card.differentiable else "no",
        ),
        ("cost in denoiser passes", "none: it scores finished samples"),
        (
            "weights",
            weights(card.weight_files()) if card.weights else "none; it is computed, or made of others",
        ),
        *((f"weights, {role}", weights(files)) for role, files in card.parts.items()),
        ("made of", ", ".join(f"[`{name}`]({link(card, name)})" for name in card.made_of)),
        ("extra", f"`pip install 'mmalign[{card.extra}]'`" if card.extra else ""),
        ("licence", ", ".join(f"{what} {name}" for what, name in card.licence.items())),
        ("source", card.source),
        ("code", f"`{card.target}`"),
    ]
    parts = [
        f"# {card.name}",
        comment(card.name),
        table(["", ""], [(name, said) for name, said in facts if said]),
        "## What it computes",
        with_lists(docstring(card.target)),
        *(
            f"### `{name.partition(':')[2]}`\n\n{with_lists(docstring(name))}"
            for name in mentioned(card.target)
        ),
    ]
    if card.options:
        settings = yaml.safe_dump(card.options, sort_keys=False, allow_unicode=True, width=100)
        parts += ["## Settings", f"As the card gives them to the code:\n\n```yaml\n{settings}```"]
    if card.calibration:
        parts += ["## Calibration", table(["", ""], [(k, f"{v:g}") for k, v in card.calibration.items()])]
    parts += ["## Use it", f"```text\n{usage(card)}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def link(card: RewardCard, other: str) -> str:
    """The page of another card, seen from this one's."""
    return "../" * card.name.count("/") + f"{other}.md"


def usage(card: RewardCard) -> str:
    """A command with it; what judges pairs scores no single sample."""
    if "pair" in card.target.lower():
        return f"mmalign reward evaluate {card.name} --data pairs.parquet"
    context = [need for need in card.needs if need != "prompt"]
    extra = " --reference FILE" if "reference" in context else ""
    return f"mmalign score FOLDER --reward {card.name}{extra}\nmmalign align RECIPE --reward {card.name}"


def listing() -> str:
    """The front page of the rewards: one line each."""
    rows = [
        [
            f"[`{name}`]({name}.md)",
            ", ".join(MEDIA[m] for m in card.modalities),
            card.unit,
            "higher" if card.higher_is_better else "lower",
            "yes" if card.differentiable else "no",
            re.sub(r"\..*", ".", comment(name), flags=re.DOTALL),
        ]
        for name, card in cards().items()
    ]
    return table(["reward", "scores", "unit", "better", "gradient", "what it is"], rows)
