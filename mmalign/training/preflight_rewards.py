"""Whether the rewards of a recipe can judge what it makes: by their cards alone, without loading one."""

import os
from collections.abc import Iterable

from mmalign.errors import ConfigError
from mmalign.rewards.cards import RewardCard, find_card, is_address, parse_weighted
from mmalign.rewards.weights import local_path
from mmalign.training.recipe import Recipe


def check_rewards(recipe: Recipe) -> None:
    """Refuse rewards of another medium, that need more than a prompt, that are not here, or that prove nothing.

    Raises:
        MmalignError: the first such reward, with the way out.
    """
    named = [parse_weighted(text)[0] for text in recipe.reward]
    twice = next((name for i, name in enumerate(named) if name in named[:i]), None)
    if twice is not None:
        raise ConfigError(f"reward '{twice}' is named twice; add its weights, as in {twice}:2")
    rewards = [find_card(name) for name in named]
    heldout = find_card(recipe.heldout_reward) if recipe.heldout_reward else None
    for card in (*rewards, *([heldout] if heldout else [])):
        check_card(card, modality=recipe.modality)
    if heldout is not None and heldout.name in set(parts_of(named)) | set(named):
        raise ConfigError(
            f"heldout_reward '{heldout.name}' is also trained on, inside {' + '.join(named)}; it would prove nothing"
        )
    check_gradient(recipe, rewards)


def check_card(card: RewardCard, *, modality: str, who: str = "this recipe") -> None:
    """Refuse a reward that would have no score for any sample of a generator.

    Args:
        card: of the reward.
        modality: what is made.
        who: makes it, for the message.

    Raises:
        ConfigError: its medium, what it needs beside a prompt, or that it is not on this machine.
    """
    if not card.takes(modality):
        raise ConfigError(
            f"reward '{card.name}' takes {' or '.join(card.modalities)}, and {who} makes {modality}; "
            "`mmalign rewards` lists what each one takes"
        )
    missing = [need for need in card.needs if need != "prompt"]
    if missing:
        raise ConfigError(
            f"reward '{card.name}' needs a {' and a '.join(missing)} with each sample, and a run has prompts alone; "
            "take one that needs no more, or score with it afterwards (`mmalign score`)"
        )
    check_ready(card)


def check_ready(card: RewardCard) -> None:
    """Refuse a reward whose extra or weights are not here and cannot be fetched.

    Raises:
        ConfigError: with what would bring them.
    """
    readiness = card.readiness() if not is_address(card.name) else "ready"
    if readiness.startswith("needs extra"):
        extra = readiness.removeprefix("needs extra ")
        raise ConfigError(f"reward '{card.name}' needs an extra: pip install 'mmalign[{extra}]'")
    offline = os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON")
    here = card.weights is not None and local_path(card.weights) is not None
    if readiness == "needs weights" and (offline or here):
        raise ConfigError(
            f"reward '{card.name}': its weights ({card.weights}) are not on this machine"
            + (", and HF_HUB_OFFLINE forbids to fetch them" if not here else "; put them there")
        )


def check_gradient(recipe: Recipe, cards: Iterable[RewardCard]) -> None:
    """Refuse a reward without gradient for a method that follows it.

    Raises:
        ConfigError: with a way out.
    """
    for card in cards if recipe.method.needs_gradient else ():
        if not card.differentiable:
            raise ConfigError(
                f"{recipe.method.name} follows the reward's gradient, and '{card.name}' has none; take a "
                "differentiable reward (`mmalign rewards`), or a method for black boxes such as flow_grpo"
            )


def parts_of(names: Iterable[str]) -> Iterable[str]:
    """All rewards that others are made of, at any depth."""
    for name in names:
        yield from (inner := find_card(name).made_of)
        yield from parts_of(inner)
