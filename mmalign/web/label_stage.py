"""What one person has before them, as HTML: the prompt, the samples, what can be said, and by which keys."""

import json
import math
from collections.abc import Callable, Sequence

from mmalign.data.label_items import Mode, Showing
from mmalign.data.label_store import LabelSettings, Progress
from mmalign.evaluation.page import Html, escaped

KEYS: dict[Mode, tuple[tuple[str, str, str], ...]] = {
    "pairs": (
        ("ArrowLeft", "←", "left is better"),
        ("ArrowRight", "→", "right is better"),
        ("ArrowUp", "↑", "equal"),
        ("ArrowDown", "↓", "both bad"),
    ),
    "ranking": (
        ("Backspace", "⌫", "take back"),
        ("t", "t", "tie with the last"),
        ("Enter", "↵", "done"),
    ),
    "rating": (("r", "r", "say why"), ("Enter", "↵", "done")),
    "binary": (("ArrowLeft", "←", "bad"), ("ArrowRight", "→", "good")),
    "marks": (("x", "x", "mark"), ("w", "w", "picture / words"), ("Enter", "↵", "done")),
}
"""Of each mode: the key as browsers call it, as people do, and what it does. Each is a button too."""
COMMON = ((" ", "space", "replay"), ("u", "u", "undo"), ("s", "s", "skip"))
HINTS: dict[Mode, str] = {
    "pairs": "Shift with ← or → for much better.",
    "ranking": "Press the samples' numbers from best to worst, or move with ← → and press ↑.",
    "rating": "Press a number for the marked aspect; ↑ ↓ choose it, ← → change its number. Esc leaves the text.",
    "binary": "Is this what the prompt asks for?",
    "marks": "Mark what is wrong: drag a box, or move with the arrow keys and press x. Nothing wrong: just ↵.",
}
TURNED = "3D: drag an object to turn it, or all of them with the keys a d and e c."


def stage(
    showing: Showing, settings: LabelSettings, annotator: str, turn: int, element: Callable[[str], Html]
) -> Html:
    """The stage of one showing.

    Args:
        showing: what is judged.
        settings: of the page.
        annotator: whose page it is.
        turn: another number each time, so that the page can tell an answer from what it shows already.
        element: a file of the samples, as HTML.
    """
    parts = [element(file) for file in showing.order]
    several = len(parts) > 1
    names = [("left", "right")[i] if settings.mode == "pairs" else str(i + 1) for i in range(len(parts))]
    figures = "".join(
        f'<figure class="sample" data-slot="{i}">'
        + (f"<figcaption>{names[i]}</figcaption>" if several else "")
        + f'<div class="medium">{part}</div></figure>'
        for i, part in enumerate(parts)
    )
    hints = HINTS[settings.mode] + (f" {TURNED}" if any("<canvas" in part for part in parts) else "")
    data = {
        "shown": showing.key,
        "mode": settings.mode,
        "count": len(parts),
        "annotator": annotator,
        "turn": turn,
        "aspects": json.dumps(settings.rated),
        "scale": settings.scale,
    }
    attributes = " ".join(f'data-{name}="{escaped(value)}"' for name, value in data.items())
    return Html(
        f'<div id="stage" {attributes}>{_prompt(showing.item.prompt, words=settings.mode == "marks")}'
        f'<div class="samples n{len(parts)}">{figures}</div>{_panel(settings)}'
        f'<p class="hint">{escaped(hints)}</p></div>'
    )


def _prompt(prompt: str, *, words: bool) -> Html:
    if not words:
        return Html(f'<p class="prompt">{escaped(prompt)}</p>')
    parts = " ".join(
        f'<span class="word" data-word="{i}">{escaped(word)}</span>' for i, word in enumerate(prompt.split())
    )
    return Html(f'<p class="prompt">{parts}</p>')


def _panel(settings: LabelSettings) -> Html:
    if settings.mode != "rating":
        return Html()
    numbers = "".join(
        f'<button type="button" data-score="{n}">{n}</button>' for n in range(1, settings.scale + 1)
    )
    rows = "".join(
        f'<div class="aspect" data-aspect="{escaped(name)}"><span>{escaped(name)}</span>{numbers}</div>'
        for name in settings.rated
    )
    return Html(
        f'<div class="panel">{rows}<textarea rows="2" placeholder="why (r)" aria-label="why"></textarea></div>'
    )


def finished(annotator: str, turn: int) -> Html:
    """The stage of somebody who has judged everything."""
    return Html(
        f'<div id="stage" data-shown="" data-mode="" data-count="0" data-annotator="{escaped(annotator)}" '
        f'data-turn="{turn}" data-aspects="[]" data-scale="0"><p class="prompt">That was all. Thank you.</p>'
        '<p class="hint">u takes the last choice back.</p></div>'
    )


def status(progress: Progress, annotator: str, message: str = "") -> Html:
    """How far, how fast, how long still, and what there is to say."""
    left = progress.total - progress.done
    words = [f"{annotator}: {progress.done} of {progress.total}"]
    if not math.isnan(progress.per_minute):
        minutes = math.ceil(left / max(progress.per_minute, 1e-6))
        words += [f"{progress.per_minute:.1f} a minute", f"about {minutes} min left"] if left else []
    share = 100 * progress.done / max(progress.total, 1)
    return Html(
        f'<div id="progress" data-done="{progress.done}" data-total="{progress.total}">'
        f'<span>{escaped(" · ".join(words))}</span><progress max="100" value="{share:.1f}"></progress>'
        f'<span class="message" role="status">{escaped(message)}</span></div>'
    )


def buttons(mode: Mode) -> Sequence[tuple[str, str]]:
    """(key, caption) of all that can be clicked."""
    return [(key, f"{shown}  {what}") for key, shown, what in (*KEYS[mode], *COMMON)]
