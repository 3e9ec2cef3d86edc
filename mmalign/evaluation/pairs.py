"""The part of a report that people look at first: the same prompt and seed before and after, side by side."""

from collections import Counter
from collections.abc import Sequence

from mmalign.evaluation.page import Html, escaped, paragraph
from mmalign.evaluation.players import is_sound, player
from mmalign.evaluation.run_folder import Run, SamplePair
from mmalign.evaluation.verdict import number

SHOWN_PAIRS = 24
EXTREME_PAIRS = 4


def samples(run: Run) -> list[Html]:
    """Media of the whole range of prompts in pairs, and those whose score changed most either way."""
    if not run.pairs:
        return [paragraph("This run kept no samples.", "soft")] if run.summary else []
    shown = spread(run.pairs, SHOWN_PAIRS)
    sides = "Above before, below after" if is_sound(shown[0].before) else "Left before, right after"
    text = f"{sides}, from the same prompt and seed. {len(shown)} of {len(run.pairs)} pairs"
    text += ", taken evenly from all prompts" if len(shown) < len(run.pairs) else ""
    scored = any(pair.gain is not None for pair in run.pairs)
    text += "; the number beside each word is its held-out score." if scored else "."
    if run.unpaired:
        text += f" {run.unpaired} samples have no partner on the other side and are not shown."
    return [
        paragraph(text, "soft"),
        pair_list(shown),
        *_extremes("Largest gains", [pair for pair in run.pairs if (pair.gain or 0) > 0], sign=-1),
        *_extremes("Largest losses", [pair for pair in run.pairs if (pair.gain or 0) < 0], sign=1),
    ]


def _extremes(title: str, pairs: Sequence[SamplePair], *, sign: int) -> list[Html]:
    most = sorted(pairs, key=lambda pair: sign * (pair.gain or 0))[:EXTREME_PAIRS]
    return [Html(f"<h3>{title}</h3>"), pair_list(most)] if most else []


def spread(pairs: Sequence[SamplePair], count: int) -> list[SamplePair]:
    """At most ``count`` pairs in their order, evenly from the whole list, a prompt again only after all others."""
    seen: Counter[str] = Counter()
    rounds: dict[int, list[int]] = {}
    for index, pair in enumerate(pairs):
        rounds.setdefault(seen[pair.prompt], []).append(index)
        seen[pair.prompt] += 1
    chosen: list[int] = []
    for indices in rounds.values():
        room = min(count - len(chosen), len(indices))
        chosen += [indices[i * len(indices) // room] for i in range(room)]
    return [pairs[index] for index in sorted(chosen)]


def pair_list(pairs: Sequence[SamplePair]) -> Html:
    """Figures of before beside after, with prompt, seed and scores."""
    return Html('<div class="pairs">\n' + "\n".join(map(_pair, pairs)) + "\n</div>")


def _pair(pair: SamplePair) -> Html:
    sides = []
    for word, path, score in (
        ("before", pair.before, pair.before_score),
        ("after", pair.after, pair.after_score),
    ):
        said = word if score is None else f"{word} {number(score)}"
        moved = f' class="{_direction(pair)}"' if word == "after" and _direction(pair) else ""
        shown = player(path, f"{word}: {pair.prompt}")
        sides.append(f"<span>{shown}<span{moved}>{said}</span></span>")
    text = f"{escaped(pair.prompt)} <small>seed {pair.seed}</small>"
    kind = "pair sound" if is_sound(pair.before) else "pair"
    return Html(f'<figure class="{kind}"><div>{"".join(sides)}</div><figcaption>{text}</figcaption></figure>')


def _direction(pair: SamplePair) -> str:
    """The colour of the second score: none for a change that one cannot see."""
    gain = pair.gain or 0.0
    if abs(gain) <= 0.01 * max(abs(pair.before_score or 0.0), abs(pair.after_score or 0.0)):
        return ""
    return "up" if gain > 0 else "down"
