"""The picture of a proxy and the truth as the proxy is optimised: points, laws, and what is known of both."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmalign.evaluation.overoptimisation_curves import FittedCurve
from mmalign.files import whole_file

COLOURS = {"proxy": "#c2571a", "true": "#1f6f8b"}
INK, LINE = "#222222", "#d0d0d0"


def draw_curves(
    path: Path,
    panels: Sequence[tuple[str, str, FittedCurve, FittedCurve, Sequence[str]]],
    *,
    names: tuple[str, str],
) -> None:
    """Write a picture with a panel for each way of optimising; png, svg or pdf by the suffix.

    Args:
        path: the file, written whole or not at all.
        panels: title, label of the distance, the proxy's curve, the true one, and a word for each point.
        names: of both rewards.
    """
    from matplotlib.figure import Figure  # heavy: only who draws pays for it

    figure = Figure(figsize=(6.4 * len(panels), 4.4), layout="constrained")
    axes_of = np.atleast_1d(figure.subplots(1, len(panels)))
    for axes, (title, label, proxy, gold, words) in zip(axes_of, panels, strict=True):
        for side, name, curve in (("proxy", names[0], proxy), ("true", names[1], gold)):
            colour = COLOURS[side]
            axes.fill_between(
                curve.grid, curve.band_low, curve.band_high, color=colour, alpha=0.15, linewidth=0
            )
            axes.plot(curve.grid, curve.fitted, color=colour, linewidth=2, label=f"{side}: {name}")
            spread = np.abs(np.stack([curve.reward - curve.low, curve.high - curve.reward]))
            known = None if np.isnan(spread).any() else spread
            axes.errorbar(
                curve.d,
                curve.reward,
                yerr=known,
                fmt="o" if side == "proxy" else "s",
                color=colour,
                markersize=5,
                capsize=3,
                elinewidth=1.2,
            )
            if 0 < curve.peak <= curve.grid[-1]:
                axes.axvline(curve.peak, color=colour, linestyle=":", linewidth=1.4)
                axes.annotate(
                    "peak", (curve.peak, 0.0), xycoords=("data", "axes fraction"), xytext=(3, 5),
                    textcoords="offset points", color=colour, fontsize=9,
                )  # fmt: skip
        tops = np.where(np.isnan(proxy.high), proxy.reward, proxy.high)  # above the interval, not across it
        for at, height, word in zip(proxy.d, tops, words, strict=True):
            axes.annotate(
                word, (at, height), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8, color=INK
            )  # fmt: skip
        axes.axhline(0, color=LINE, linewidth=1)
        axes.set_title(title, fontsize=11, color=INK)
        axes.set_xlabel(label)
        axes.set_ylabel("gain over the base, in stds of its samples")
        axes.margins(y=0.14)
        axes.grid(color=LINE, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:].lower(), dpi=150)
