"""What a person may say of an item, mode by mode, checked before it is kept."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.data.label_items import Mode
from mmalign.data.tables import brief
from mmalign.errors import ConfigError

SKIPPED = {"skipped": True}
"""What is said of an item that cannot be judged: a sound that does not play, a picture of something else."""
SIDES = ("left", "right", "tie", "both_bad")
STRENGTHS = (0.5, 1.0)
"""Better, and much better."""
LARGEST_SCALE = 9
"""There is one digit for each score."""
LONGEST_RATIONALE = 4_000


def checked_choice(
    choice: Any, mode: Mode, *, shown: int, words: int, aspects: Sequence[str] = (), scale: int = 5
) -> dict[str, Any]:
    """The columns of a label that hold a choice.

    - pairs: ``choice`` of left, right, tie and both_bad; ``strength``, 0.5 or 1, of left and right.
    - ranking: ``ranks``, one for each sample as shown, 1 the best; equal ranks are a tie.
    - rating: ``scores``, 1 to ``scale`` for each aspect, and ``rationale``, a text or None.
    - binary: ``label``, true or false.
    - marks: ``regions``, each [left, top, right, bottom] in [0, 1] of the picture, and ``words``, numbers of the words
      of the prompt from 0; both empty where nothing is wrong.
    - any: ``skipped``.

    Args:
        choice: what came from the page.
        mode: of the page.
        shown: samples that were shown.
        words: of the prompt.
        aspects: that are rated.
        scale: the highest score.

    Raises:
        ConfigError: it is no choice of this mode.
    """
    if not isinstance(choice, Mapping):
        raise ConfigError(f"a choice is an object, got {brief(choice)}")
    if choice.get("skipped") is True:
        return dict(SKIPPED)
    match mode:
        case "pairs":
            return _side(choice)
        case "ranking":
            return {"ranks": _ranks(choice.get("ranks"), shown)}
        case "rating":
            return _scores(choice, aspects, scale)
        case "binary":
            if not isinstance(choice.get("label"), bool):
                raise ConfigError(f"label: expected true or false, got {brief(choice.get('label'))}")
            return {"label": choice["label"]}
        case "marks":
            return {
                "regions": [_region(region) for region in _list(choice, "regions")],
                "words": sorted({_index(word, words) for word in _list(choice, "words")}),
            }


def _side(choice: Mapping[str, Any]) -> dict[str, Any]:
    side, strength = choice.get("choice"), choice.get("strength")
    if side not in SIDES:
        raise ConfigError(f"choice: expected one of {', '.join(SIDES)}, got {brief(side)}")
    if side not in ("left", "right"):
        return {"choice": side, "strength": None}
    if strength not in STRENGTHS or isinstance(strength, bool):
        raise ConfigError(f"strength: expected 0.5 or 1, got {brief(strength)}")
    return {"choice": side, "strength": float(strength)}


def _ranks(ranks: Any, shown: int) -> list[int]:
    if not isinstance(ranks, list) or len(ranks) != shown:
        raise ConfigError(f"ranks: expected {shown}, one for each sample, got {brief(ranks)}")
    if any(not isinstance(r, int) or isinstance(r, bool) or not 1 <= r <= shown for r in ranks):
        raise ConfigError(f"ranks: expected numbers from 1 to {shown}, got {ranks}")
    # 1, 1, 3 and 1, 1, 2 say the same; the second is how it is kept.
    dense = {rank: place for place, rank in enumerate(sorted(set(ranks)), 1)}
    return [dense[rank] for rank in ranks]


def _scores(choice: Mapping[str, Any], aspects: Sequence[str], scale: int) -> dict[str, Any]:
    scores, rationale = choice.get("scores"), choice.get("rationale")
    if not isinstance(scores, Mapping) or set(scores) != set(aspects):
        raise ConfigError(f"scores: expected one for each of {', '.join(aspects)}, got {brief(scores)}")
    if any(
        not isinstance(score, int) or isinstance(score, bool) or not 1 <= score <= scale
        for score in scores.values()
    ):
        raise ConfigError(f"scores: expected whole numbers from 1 to {scale}, got {dict(scores)}")
    if rationale is not None and not isinstance(rationale, str):
        raise ConfigError(f"rationale: expected a text, got {brief(rationale)}")
    text = (rationale or "").strip()[:LONGEST_RATIONALE]
    return {"scores": {name: scores[name] for name in aspects}, "rationale": text or None}


def _list(choice: Mapping[str, Any], name: str) -> list[Any]:
    found = choice.get(name)
    if not isinstance(found, list) or len(found) > 1_000:
        raise ConfigError(f"{name}: expected a list of at most 1000, got {brief(found)}")
    return found


def _region(region: Any) -> list[float]:
    numbers = region if isinstance(region, list) and len(region) == 4 else []
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise ConfigError(f"region: expected left, top, right, bottom, got {brief(region)}")
    # Before they are floats: a whole number of 400 digits is none.
    shares = [round(float(n), 4) if -1 < n < 2 else math.nan for n in numbers]
    left, top, right, bottom = shares
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ConfigError(f"region: expected 0 <= left < right <= 1 and top above bottom, got {numbers}")
    return [left, top, right, bottom]


def _index(word: Any, words: int) -> int:
    if not isinstance(word, int) or isinstance(word, bool) or not 0 <= word < words:
        raise ConfigError(f"words: expected numbers from 0 to {words - 1}, got {brief(word)}")
    return word
