"""Curves of a run as small inline SVG pictures, which take their colours from the page around them."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.evaluation.run_folder import finite

NOT_CURVES = ("step", "epoch", "time", "wall_s")
MOST_POINTS = 600  # a curve is some 300 pixels wide; a long run is thinned, after it was smoothed
# Colours that stand for the page's own; no matplotlib default uses them.
_STAND_INS = {"#010101": "currentColor", "#020202": "var(--line)", "#030303": "var(--accent)"}
_INK, _LINE, _ACCENT = _STAND_INS


def curve_names(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields that have at least two numbers: evaluations first, loss, accuracy, then the others as they come."""
    counts: dict[str, int] = {}
    for row in metrics:
        for name, value in row.items():
            if finite(value) is not None and finite(row.get("step")) is not None:
                counts[name] = counts.get(name, 0) + 1
    first = [name for name in ("heldout_reward", "loss", "accuracy") if name in counts]
    names = [*first, *(name for name in counts if name not in first)]
    return [name for name in names if counts[name] > 1 and name not in NOT_CURVES]


def points(
    metrics: Sequence[Mapping[str, Any]], name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of one field, [N] each; rows without a finite number are left out, not set to 0."""
    found = [(finite(row.get("step")), finite(row.get(name))) for row in metrics]
    kept = [(step, value) for step, value in found if step is not None and value is not None]
    steps, values = zip(*kept, strict=True) if kept else ((), ())
    return np.array(steps, dtype=np.float64), np.array(values, dtype=np.float64)


def smoothed(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of the ``window`` values around each one, of fewer near the ends; it does not lag behind.

    >>> smoothed(np.array([0.0, 3.0, 6.0, 0.0]), 3)
    array([1.5, 3. , 3. , 3. ])
    """
    kernel = np.ones(window)
    around = np.convolve(np.ones_like(values), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / around


def window_for(count: int) -> int:
    """Values to average: about a tenth of them, odd; 1, which changes nothing, where a curve has under 20 points.

    >>> window_for(12), window_for(150), window_for(2000)
    (1, 15, 201)
    """
    return 1 if count < 20 else count // 10 // 2 * 2 + 1


def curve(metrics: Sequence[Mapping[str, Any]], name: str) -> str:
    """One field against the step: every value thin, their moving mean thick, few values as dots. Inline SVG."""
    import matplotlib as mpl  # heavy: only who draws pays for it
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps, values = points(metrics, name)
    window = window_for(len(values))
    style: dict[Any, Any] = {
        "text.parse_math": False,  # a metric's name is a text, also with dollar signs
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 11,
        "axes.edgecolor": _LINE,
        "axes.labelcolor": _INK,
        "xtick.color": _LINE,
        "ytick.color": _LINE,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.8, 2.9), layout="constrained")
        axes = figure.add_subplot()
        if window > 1:
            every = max(1, len(values) // MOST_POINTS)
            mean = smoothed(values, window)
            axes.plot(steps[::every], values[::every], color=_ACCENT, alpha=0.3, linewidth=0.8)
            axes.plot(steps[::every], mean[::every], color=_ACCENT, linewidth=2.2)
        else:
            axes.plot(steps, values, color=_ACCENT, linewidth=2, marker="o", markersize=4)
        axes.set_xlabel("step")
        axes.set_ylabel(name)
        axes.grid(color=_LINE, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return inline(file.getvalue())


def inline(svg: str) -> str:
    """A matplotlib SVG as part of a page: no header, no addresses, no unused ids, the page's size, font and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?viewBox="[^"]*")[^>]*>', r"\1>", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<svg[^>]*?(viewBox="[^"]*")', r'<svg \1 aria-hidden="true"', svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    for stand_in, colour in _STAND_INS.items():
        svg = svg.replace(stand_in, colour)
    return svg.strip()
