"""The short table at the end of a run, on standard error."""

import json
from pathlib import Path

from rich.table import Table

from mmalign.training.progress import console


def print_result(folder: Path) -> None:
    """Print rewards and guards before and after, from ``summary.json``."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    table = Table(
        title=f"{summary['recipe']}, {summary['steps']} steps, seed {summary['seed']}", title_justify="left"
    )
    for column in ("", "before", "after", "gain"):
        table.add_column(column, justify="left" if not column else "right")
    heldout, train = summary["heldout_reward"], summary["train_reward"]
    if heldout is not None:
        low, high = heldout["ci95"]
        interval = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
        gain = f"{heldout['gain']:+.3f}{interval}"
        table.add_row(
            f"held-out {heldout['name']}", f"{heldout['before']:.3f}", f"{heldout['after']:.3f}", gain
        )
    if train is not None:
        change = train["after"] - train["before"]
        table.add_row(
            f"trained for {train['name']}",
            f"{train['before']:.3f}",
            f"{train['after']:.3f}",
            f"{change:+.3f}",
        )
    for name, guard in summary["guards"].items():
        change = guard["after"] - guard["before"]
        table.add_row(name, f"{guard['before']:.4f}", f"{guard['after']:.4f}", f"{change:+.4f}")
    console.print(table)
    console.print(
        f"{summary['wall_s'] / 60:.1f} minutes, {summary['peak_rss_mb']} MB, report: {folder / 'report.html'}"
    )
