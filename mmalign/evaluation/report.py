"""One page that shows a run: verdict, rewards, samples before and after, curves, settings; it needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmalign.evaluation import curves
from mmalign.evaluation.page import Html, beside, code, details, escaped, page, paragraph, section, table
from mmalign.evaluation.pairs import samples
from mmalign.evaluation.run_folder import Run, finite, read_run
from mmalign.evaluation.usage import loading_code
from mmalign.evaluation.verdict import (
    MISSING,
    duration,
    held_out,
    interval,
    number,
    outcome,
    sign_of,
    signed,
    verdict,
)
from mmalign.files import whole_file

GUARD_LIMIT = 0.2
"""Share by which a guard may move before the report points at it."""


def write_report(run_folder: Path | str) -> Path:
    """Write ``report.html`` from the files of a run folder, whole or not at all.

    The page holds everything it shows: no scripts, no links to files or other hosts. What the run did not write is left
    out or said to be missing. The same folder gives the same bytes.

    Returns:
        The path of the report.

    Raises:
        DataError: the folder holds no run, or one of its files is broken.
    """
    run = read_run(run_folder)
    summary = run.summary
    body = [
        heading(summary),
        verdict_box(summary),
        section("Rewards", beside(rewards(summary), aspects(summary))),
        section("Rounds", rounds_table(run.rounds)),
        section("Before and after", *samples(run)),
        section("Guards", guards(summary)),
        section("Curves", *all_curves(run.metrics)),
        section("Use the result", *usage(run)),
        section("Settings", details("recipe.yaml, as it ran", code(run.recipe)), sampling(summary)),
        section("Cost and versions", cost(summary), versions(summary)),
    ]
    path = run.folder / "report.html"
    with whole_file(path) as unfinished:
        unfinished.write_text(page(f"{_title(summary)} – mmalign", body), encoding="utf-8")
    return path


def _title(summary: Mapping[str, Any]) -> str:
    return str(summary.get("recipe") or summary.get("method") or "a run")


def heading(summary: Mapping[str, Any]) -> Html:
    """Recipe, model, method, seed, steps and how long it took, in two lines."""
    said = [
        *(str(summary[name]) for name in ("model", "method") if summary.get(name)),
        *(f"{name} {number(summary[name])}" for name in ("seed",) if name in summary),
        *(f"{number(summary[name])} {name}" for name in ("steps",) if name in summary),
    ]
    if finite(summary.get("wall_s")) is not None:
        said.append(duration(summary["wall_s"]))
    return Html(
        f"<header>\n<h1>{escaped(_title(summary))}</h1>\n{paragraph(' · '.join(said), 'soft')}\n</header>"
    )


def verdict_box(summary: Mapping[str, Any]) -> Html:
    """The verdict, with its interval drawn against zero."""
    if not summary:
        return Html(
            f'<div class="verdict">{paragraph("This run is not finished: it has no summary.json yet.")}</div>'
        )
    heldout = summary.get("heldout_reward") or {}
    (low, high), gain = interval(heldout), finite(heldout.get("gain"))
    bar = Html() if low is None or high is None or gain is None else interval_bar(low, gain, high)
    kind = outcome(heldout).split()[0]
    word, _, rest = verdict(summary).partition(":")
    said = paragraph(Html(f"<strong>{escaped(word)}:</strong>{escaped(rest)}"))
    return Html(f'<div class="verdict {kind}">{said}{bar}</div>')


def interval_bar(low: float, gain: float, high: float) -> Html:
    """A line from ``low`` to ``high`` with a dot at ``gain`` and a mark at 0."""
    left, right = min(low, 0.0), max(high, 0.0)
    span = (right - left) or 1.0

    def x(value: float) -> str:
        return f"{30 + 420 * (value - left) / span:.1f}"

    return Html(
        '<svg viewBox="0 0 480 50" aria-hidden="true" fill="currentColor" font-size="13">'
        f'<line x1="20" x2="460" y1="14" y2="14" stroke="var(--line)"/>'
        f'<line x1="{x(0)}" x2="{x(0)}" y1="4" y2="24" stroke="var(--soft)"/>'
        f'<line x1="{x(low)}" x2="{x(high)}" y1="14" y2="14" stroke="var(--accent)" stroke-width="6"/>'
        f'<circle cx="{x(gain)}" cy="14" r="6" fill="var(--accent)"/>'
        f'<text x="{x(0)}" y="40" text-anchor="middle">0</text>'
        f'<text x="{x(gain)}" y="40" text-anchor="middle">{signed(gain)}</text></svg>'
    )


def change(before: object, after: object, *, sign: float = 1.0) -> Html:
    """``after - before`` with its sign, green where it got better."""
    first, second = finite(before), finite(after)
    if first is None or second is None:
        return Html(MISSING)
    gain = second - first
    kind = "" if gain == 0 else "up" if sign * gain > 0 else "down"
    return Html(f'<span class="{kind}">{signed(gain)}</span>')


def rewards(summary: Mapping[str, Any]) -> Html:
    """The training and the held-out reward, before and after."""
    rows = []
    role_of_heldout = "held out: training never used it" if held_out(summary) else "trained on too"
    for key, role in (("heldout_reward", role_of_heldout), ("train_reward", "trained on")):
        entry = summary.get(key)
        if not entry:
            continue
        low, high = interval(entry)
        rows.append(
            [
                Html(f"{escaped(entry.get('name'))}<br><span class='soft'>{role}</span>"),
                number(entry.get("before")),
                number(entry.get("after")),
                change(entry.get("before"), entry.get("after"), sign=sign_of(entry)),
                MISSING if low is None else f"{signed(low)} to {signed(high)}",
                number(entry.get("n")),
            ]
        )
    return table(["reward", "before", "after", "change", "95% interval", "n"], rows)


def rounds_table(rounds: Sequence[Mapping[str, Any]]) -> Html:
    """What each round asked and what was reached after it; nothing where the run has no rounds."""
    rows, total = [], 0
    for row in rounds:
        total += row["choices"]
        heldout = row.get("heldout_reward") or {}
        low, high = interval(heldout)
        rows.append(
            [
                number(row["round"]),
                number(total),
                number(heldout.get("after")),
                signed(heldout.get("gain")),
                MISSING if low is None else f"{signed(low)} to {signed(high)}",
            ]
        )
    return table(["round", "choices so far", "held-out reward", "gain over the base", "95% interval"], rows)


def aspects(summary: Mapping[str, Any]) -> Html:
    """The held-out reward's aspects, one row each."""
    entry = summary.get("heldout_reward") or {}
    rows = [
        [
            name,
            number(value.get("before")),
            number(value.get("after")),
            change(value.get("before"), value.get("after"), sign=sign_of(entry)),
        ]
        for name, value in (entry.get("aspects") or {}).items()
    ]
    return table(
        ["attribute", "before", "after", "change"], rows, f"{entry.get('name')}, attribute by attribute"
    )


def guards(summary: Mapping[str, Any]) -> Html:
    """Statistics that should not move much, with a note where one did."""
    rows = []
    for name, value in (summary.get("guards") or {}).items():
        before, after = finite(value.get("before")), finite(value.get("after"))
        share = None if not before or after is None else (after - before) / abs(before)
        moved = share is not None and abs(share) > GUARD_LIMIT
        said = MISSING if share is None else f"{signed(round(100 * share))}%"
        rows.append(
            [
                name,
                number(before),
                number(after),
                Html(f'<span class="note">{said} – look</span>') if moved else said,
            ]
        )
    if not rows:
        return Html()
    text = paragraph(
        "A generator that fools its reward usually gets blurred, glaring or all alike. These numbers are no "
        f"goals, but one that moves by more than {100 * GUARD_LIMIT:.0f}% asks for a look at the samples.",
        "soft",
    )
    return Html(text + table(["statistic", "before", "after", "change"], rows))


def all_curves(metrics: Sequence[Mapping[str, Any]]) -> list[Html]:
    """The three curves that people look at first, the others folded away."""
    names = curves.curve_names(metrics)
    first = [name for name in names if name in ("heldout_reward", "loss", "accuracy")] or names[:3]
    rest = [name for name in names if name not in first]
    return [_curve_list(metrics, first), details("More curves", _curve_list(metrics, rest))]


def _curve_list(metrics: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Html:
    figures = []
    for name in names:
        _, values = curves.points(metrics, name)
        window = curves.window_for(len(values))
        mean = curves.smoothed(values, window)
        text = f"{name.replace('_', ' ')}: from {number(float(mean[0]))} to {number(float(mean[-1]))}"
        text += f"; the thick line is the mean of {window} rows" if window > 1 else ""
        drawn = curves.curve(metrics, name)
        figures.append(f"<figure>{drawn}<figcaption><small>{escaped(text)}</small></figcaption></figure>")
    return Html('<div class="curves">\n' + "\n".join(figures) + "\n</div>") if figures else Html()


def usage(run: Run) -> list[Html]:
    """How to load the weights elsewhere; paths as seen from the folder above runs/."""
    above = run.folder.resolve().parent.name
    text = loading_code(run, folder=f"{above}/{run.folder.resolve().name}/")
    if text is None:
        return [paragraph("This folder has no weights (lora/ or student/).", "soft")] if run.summary else []
    where = f"Plain Python, run in the folder that holds {above}/; mmalign itself is not needed."
    return [paragraph(where, "soft"), code(text)]


def sampling(summary: Mapping[str, Any]) -> Html:
    """How the samples of each side were drawn."""
    sides = summary.get("sampling") or {}
    names = list(dict.fromkeys(name for side in ("before", "after") for name in sides.get(side) or {}))
    rows = [
        [name, *(_plain((sides.get(side) or {}).get(name)) for side in ("before", "after"))] for name in names
    ]
    return table(["sampling", "before", "after"], rows)


def cost(summary: Mapping[str, Any]) -> Html:
    """What the run took."""
    passes, memory = summary.get("denoiser_passes"), finite(summary.get("peak_rss_mb"))
    rows = [
        ["wall clock", duration(summary.get("wall_s"))],
        ["peak memory", MISSING if memory is None else f"{number(round(memory))} MB"],
    ]
    if isinstance(passes, Mapping):
        rows += [[f"denoiser passes, {name}", number(value)] for name, value in passes.items()]
    else:
        rows += [["denoiser passes", number(passes)]]
    return table(["", ""], rows) if summary else Html()


def versions(summary: Mapping[str, Any]) -> Html:
    """Versions of what ran."""
    known = summary.get("versions") or {}
    return details("Versions", table(["", ""], [[name, _plain(known[name])] for name in sorted(known)]))


def _plain(value: object) -> str:
    if value is None:
        return MISSING
    return f"{value:g}" if isinstance(value, float) else str(value)
