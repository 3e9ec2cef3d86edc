"""One page that follows a run while it is made: how far it is, curves, guards, and the same prompts over the steps.

It is made anew of the run's files on every request, and asks the browser to come back; it needs no script.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmalign.evaluation.page import Html, escaped, page, paragraph, section, table
from mmalign.evaluation.players import player
from mmalign.evaluation.report import all_curves, change, heading, rounds_table, verdict_box
from mmalign.evaluation.run_folder import Run, finite, read_run
from mmalign.evaluation.verdict import duration, number

REFRESH_S = 5
QUIET_S = 120.0
"""After so long without a word from the run the page says so."""
MOST_STEPS = 8
"""Columns of the grid of samples over steps."""
NOT_GUARDS = ("step", "loss", "stopped_early")


def live_page(folder: Path, *, now: float | None = None) -> str:
    """The page of a run as it is at this moment.

    Args:
        folder: of the run.
        now: seconds since 1970; by default the clock's.

    Raises:
        DataError: the folder holds no run, or one of its files is broken.
    """
    run = read_run(folder)
    done = bool(run.summary)
    body = [
        heading(run.summary)
        if done
        else Html(f"<header>\n<h1>{escaped(folder.resolve().name)}</h1>\n</header>"),
        verdict_box(run.summary) if done else progress_box(folder, now=time.time() if now is None else now),
        section("Rounds", rounds_table(run.rounds)),
        section("Curves", *all_curves(run.metrics)),
        section("Guards", guards_now(run.metrics)),
        section("Samples over steps", *samples_over_steps(run)),
    ]
    return page(f"{folder.resolve().name} – mmalign", body, refresh_s=None if done else REFRESH_S)


def read_progress(folder: Path) -> dict[str, Any]:
    """What the run said last of how far it is; empty where it has said nothing."""
    path = folder / "progress.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def progress_box(folder: Path, *, now: float) -> Html:
    """Stage, throughput and the time that is left of the stage."""
    said = read_progress(folder)
    if not said:
        text = "This run has not said yet what it is doing."
    else:
        done, total, rate = int(said["done"]), int(said["total"]), finite(said.get("per_s"))
        text = f"{said['stage'].capitalize()}: {number(done)} of {number(total)}"
        if rate:
            text += f", {number(rate)} a second, about {duration((total - done) / rate)} left of this stage"
        text += "."
        silent = now - float(said["at"])
        if silent > QUIET_S:
            text += f" Nothing was heard of it for {duration(silent)}; it waits, or was stopped."
    share = 0.0 if not said else int(said["done"]) / max(1, int(said["total"]))
    bar = Html(
        '<svg viewBox="0 0 480 12" aria-hidden="true"><rect width="480" height="8" fill="var(--line)"/>'
        f'<rect width="{480 * share:.1f}" height="8" fill="var(--accent)"/></svg>'
    )
    return Html(f'<div class="verdict">{paragraph(text)}{bar}</div>')


def guards_now(metrics: Sequence[Mapping[str, Any]]) -> Html:
    """What the first and the last glance measured beside the rewards."""
    glances = [row for row in metrics if finite(row.get("drift")) is not None]
    if not glances:
        return Html()
    first, last = glances[0], glances[-1]
    ours = [
        name
        for name in last
        if name in first and name not in NOT_GUARDS and not _of_every_step(metrics, name)
    ]
    rows = [
        [name, number(first.get(name)), number(last.get(name)), change(first.get(name), last.get(name))]
        for name in ours
    ]
    return table(
        ["glance", f"step {number(first.get('step'))}", f"step {number(last.get('step'))}", "change"], rows
    )


def _of_every_step(metrics: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether a number belongs to the optimiser's steps and not to glances."""
    return sum(name in row for row in metrics) > sum("drift" in row for row in metrics)


def samples_over_steps(run: Run) -> list[Html]:
    """The first held-out prompts and seeds, a row each, from the base over the glances to now."""
    steps = {row["step"] for row in run.metrics if "step" in row}
    found = [
        (int(folder.name.removeprefix("step-")), folder)
        for folder in sorted((run.folder / "samples" / "glances").glob("step-*"))
        if (folder / "metadata.jsonl").is_file()
    ]
    columns = [("before", run.folder / "samples" / "before")]
    columns += [(f"step {step}", folder) for step, folder in thinned(found) if step in steps]
    sides = [(name, _files(folder)) for name, folder in columns]
    keys = list(dict.fromkeys(key for _, files in sides[1:] for key in files))
    if not keys:
        return []
    shown = []
    for prompt, seed in keys:
        cells = "".join(
            f"<span>{player(files[prompt, seed], f'{name}: {prompt}')}<span>{escaped(name)}</span></span>"
            for name, files in sides
            if (prompt, seed) in files
        )
        style = f"grid-template-columns: repeat({len(sides)}, minmax(0, 9rem))"
        shown.append(
            Html(
                f'<figure class="pair" style="max-width: none"><div style="{style}">{cells}</div>'
                f"<figcaption>{escaped(prompt)} <small>seed {seed}</small></figcaption></figure>"
            )
        )
    return shown


def thinned(steps: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """At most ``MOST_STEPS`` of many, evenly, the last one among them.

    >>> [step for step, _ in thinned([(k, Path()) for k in range(1, 21)])]
    [3, 5, 8, 10, 13, 15, 18, 20]
    """
    count = min(len(steps), MOST_STEPS)
    return [steps[-(-(k + 1) * len(steps) // count) - 1] for k in range(count)]


def _files(folder: Path) -> dict[tuple[str, int], Path]:
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        return {}
    lines = metadata.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last end of line is torn
    rows = [json.loads(line) for line in lines]
    return {(row["prompt"], row["seed"]): folder / Path(row["file_name"]).name for row in rows}
