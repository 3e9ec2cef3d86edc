"""``mmalign rewards``: what rewards there are, what they take, and what their numbers mean."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml
from tyro.conf import Positional

from mmalign.cli.options import parse
from mmalign.data.writers import format_rows
from mmalign.rewards.card_trust import beyond_its_folder
from mmalign.rewards.cards import RewardCard, card_file, cards, look_at_card
from mmalign.rewards.targets import plug_ins
from mmalign.trust import demand, refusal, trusted


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardsCommand:
    """List the rewards, or show the card of one."""

    name: Positional[str | None] = None
    """A reward, such as embedded/shapes-clip."""


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign rewards``.

    Raises:
        UnknownNameError: no reward has this name.
    """
    command = parse(RewardsCommand, arguments, prog="mmalign rewards")
    if command.name is None:
        print(listing() + plug_in_listing(), end="")
        return 0
    card = look_at_card(command.name)
    file = card_file(command.name)
    asked = [] if file is None else list(beyond_its_folder(card, file.parent))
    for what in asked if trusted(command.name) else []:
        demand(command.name, what)
    print(describe(card, state=None if trusted(command.name) else _refused(command.name, asked)), end="")
    return 0


def _refused(name: str, asked: Sequence[str]) -> str | None:
    return f"not trusted: {refusal(name, asked[0])}" if asked else None


def listing() -> str:
    """One line a reward, in alphabetical order."""
    return format_rows(
        [
            {
                "name": card.name,
                "scores": ", ".join(card.modalities),
                "needs": ", ".join(card.needs) or None,
                "better": "higher" if card.higher_is_better else "lower",
                "gradient": "yes" if card.differentiable else "no",
                "state": card.readiness(),
                "unit": card.unit,
            }
            for card in cards().values()
        ],
        "table",
    )


def plug_in_listing() -> str:
    """What a card's target may name beside our own, with the package that brings it; nothing where there is none."""
    rows = [
        {"target of a plug-in": plug_in.name, "from": plug_in.distribution, "code": plug_in.code}
        for plug_in in plug_ins().values()
    ]
    return "\n" + format_rows(rows, "table") if rows else ""


def describe(card: RewardCard, *, state: str | None = None) -> str:
    """A card as YAML, without the fields that are empty, and whether it can be used here, if that is not known."""
    fields = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in {
            **asdict(card),
            "options": _public(card.options),
            "state": state or card.readiness(),
        }.items()
        if value not in (None, {}, ())
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=110)


def _public(options: dict[str, Any]) -> dict[str, Any]:
    """Options without what only their owner is to know: a token, or one in an address."""
    shown = dict(options)
    if not str(shown.get("token", "$")).startswith("$"):
        shown["token"] = "(not shown)"
    if "url" in shown:
        shown["url"] = re.sub(r"://[^/@]*@", "://", str(shown["url"]))
    return shown
