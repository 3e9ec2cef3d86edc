"""``mmalign rewards``: what rewards there are, what they take, and what their numbers mean."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml
from tyro.conf import Positional

from mmalign.cli.options import parse
from mmalign.data.writers import format_rows
from mmalign.rewards.cards import RewardCard, cards, find_card


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
    print(describe(find_card(command.name)) if command.name else listing(), end="")
    return 0


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


def describe(card: RewardCard) -> str:
    """A card as YAML, without the fields that are empty, and whether it can be used here."""
    fields = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in {
            **asdict(card),
            "options": _public(card.options),
            "state": card.readiness(),
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
