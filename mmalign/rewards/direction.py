"""What a reward's sign is: scores are turned so that higher is better before they are added, compared or followed.

``RewardCard.sign`` is the only place that reads ``higher_is_better`` to compute with it.
"""

from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.rewards.base import Reward, Score
from mmalign.rewards.cards import RewardCard, cards


def turned(score: Score, reward: Reward) -> Tensor:
    """[B], a reward's raw scores turned so that higher is better; fp32 on the CPU, NaN where there is none."""
    return reward.card.sign * score.value.float().cpu()


def check_direction(card: RewardCard, of: RewardCard | None = None) -> None:
    """Refuse a card of a wrapper that says the opposite of what its numbers mean.

    Args:
        card: of the wrapper.
        of: the card whose direction its scores keep; None where they are turned, so that higher is better.

    Raises:
        ConfigError: the two differ; the message has the line to write.
    """
    expected = True if of is None else of.higher_is_better
    if card.higher_is_better != expected:
        why = "it turns what it is made of" if of is None else f"its scores are those of '{of.name}'"
        raise ConfigError(
            f"reward '{card.name}': higher_is_better is {str(card.higher_is_better).lower()}, but {why}; write "
            f"higher_is_better: {str(expected).lower()}"
        )


def known_sign(name: str) -> float | None:
    """The sign of a reward that a table of scores names, without asking anything but the table of cards.

    ``NAME@HOW`` and ``NAME@HOST:PORT`` have the sign of NAME, and a weighted sum is turned already.

    >>> known_sign("jpeg-compressibility"), known_sign("jpeg-compressibility:1+sharpness:0.5"), known_sign("mine")
    (-1.0, 1.0, None)

    Returns:
        1, -1, or None where nothing here knows the name.
    """
    known = cards().get(name) or cards().get(name.rpartition("@")[0])
    if known is not None:
        return known.sign
    return 1.0 if all(map(_is_weighted, name.split("+"))) else None


def _is_weighted(part: str) -> bool:
    """Whether this is NAME:WEIGHT, and not the HOST:PORT of a reward that was served."""
    name, _, weight = part.rpartition(":")
    host = name.rpartition("@")[2] if "@" in name else ""
    if not name or "://" in part or ("." in host and ":" not in host) or host == "localhost":
        return False
    try:
        float(weight)
    except ValueError:
        return False
    return True
