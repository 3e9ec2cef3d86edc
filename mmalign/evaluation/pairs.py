"""The part of a report that people look at first: the same prompt and seed before and after, side by side."""

from collections import Counter
from collections.abc import Sequence

from mmalign.evaluation.page import Html, escaped, paragraph
from mmalign.evaluation.players import is_sound, player
from mmalign.evaluation.run_folder import Run, SamplePair
from mmalign.evaluation.verdict import number, sign_of

SHOWN_PAIRS = 24
EXTREME_PAIRS = 4


def samples(run: Run) -> list[Html]:
    """Media of the whole range of prompts in pairs, and those whose score changed most either way."""
    if not run.pairs:
        return [paragraph("This run kept no samples.", "soft")] if run.summary else []
    shown, sign = spread(run.pairs, SHOWN_PAIRS), sign_of(run.summary.get("heldout_reward"))
    sides = "Above before, below after" if is_sound(shown[0].before) else "Left before, right after"
    text = f"{sides}, from the same prompt and seed. {len(shown)} of {len(run.pairs)} pairs"
    text += ", taken evenly from all prompts" if len(shown) < len(run.pairs) else ""
    scored = any(pair.gain is not None for pair in run.pairs)
    text += "; the number beside each word is its held-out score." if scored else "."
    if run.unpaired:
        text += f" {run.unpaired} samples have no partner on the other side and are not shown."
    return [
        paragraph(text, "soft"),
        pair_list(shown, sign=sign),
        *_extremes("Largest gains", run.pairs, sign=sign, best=True),
        *_extremes("Largest losses", run.pairs, sign=sign, best=False),
    ]


def _extremes(title: str, pairs: Sequence[SamplePair], *, sign: float, best: bool) -> list[Html]:
    """The pairs that changed most for the better, or for the worse."""
    way = sign if best else -sign
    most = [pair for pair in pairs if way * (pair.gain or 0) > 0]
    most = sorted(most, key=lambda pair: -way * (pair.gain or 0))[:EXTREME_PAIRS]
    return [Html(f"<h3>{title}</h3>"), pair_list(most, sign=sign)] if most else []


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


def pair_list(pairs: Sequence[SamplePair], *, sign: float = 1.0) -> Html:
    """Figures of before beside after, with prompt, seed and scores; ``sign`` is -1 where less is better."""
    figures = "\n".join(_pair(pair, sign) for pair in pairs)
    return Html(f'<div class="pairs">\n{figures}\n</div>')


def _pair(pair: SamplePair, sign: float) -> Html:
    sides = []
    for word, path, score in (
        ("before", pair.before, pair.before_score),
        ("after", pair.after, pair.after_score),
    ):
        said = word if score is None else f"{word} {number(score)}"
        kind = _direction(pair, sign) if word == "after" else ""
        moved = f' class="{kind}"' if kind else ""
        shown = player(path, f"{word}: {pair.prompt}")
        sides.append(f"<span>{shown}<span{moved}>{said}</span></span>")
    text = f"{escaped(pair.prompt)} <small>seed {pair.seed}</small>"
    kind = "pair sound" if is_sound(pair.before) else "pair"
    return Html(f'<figure class="{kind}"><div>{"".join(sides)}</div><figcaption>{text}</figcaption></figure>')


def _direction(pair: SamplePair, sign: float) -> str:
    """The colour of the second score: none for a change that one cannot see."""
    gain = pair.gain or 0.0
    if abs(gain) <= 0.01 * max(abs(pair.before_score or 0.0), abs(pair.after_score or 0.0)):
        return ""
    return "up" if sign * gain > 0 else "down"
