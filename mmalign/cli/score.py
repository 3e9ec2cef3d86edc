"""``mmalign score``: score media with one or several rewards."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from mmalign.data.writers import TableFormat
from mmalign.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from mmalign.rewards.scoring import ScoredRow

FORMATS: dict[str, TableFormat] = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet", ".txt": "table"}
FAILURES_SHOWN = 5
Modality = Literal["image", "video", "scene3d", "audio", "speech"]
"""As in ``mmalign.media``, which ``--help`` does not wait for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreCommand:
    """Score media with one or several rewards; ``mmalign rewards`` lists them.

    Exit status: 0 all scored, 1 some rows failed (they are in the output, without a score), 2 wrong usage.
    """

    paths: Positional[tuple[Path, ...]]
    """Pictures, videos, sounds, meshes; folders (with metadata.jsonl: file_name, prompt; or plain); manifests (.jsonl,
    .csv, .parquet: media, prompt)."""
    reward: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME[:WEIGHT]")] = ()
    """A reward, once or more. With a weight on any, each file gets one more row: the weighted sum of raw scores."""
    prompt: str | None = None
    """The prompt of files that have none of their own."""
    modality: Modality | None = None
    """What the files are, if not what suffixes and manifests say; sounds are speech where only that is scored."""
    root: Path | None = None
    """Media in manifests may lie anywhere below this folder; by default, below the manifest's own."""
    out: Path | None = None
    """Write here, whole or not at all, instead of to standard output."""
    format: TableFormat | None = None
    """By default the suffix of --out, or a table."""
    batch_size: int = 32
    """Files per forward pass. Twice as many are held in memory: lower it for long videos."""

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError("nothing to score: name media files, folders or manifests")
        if not self.reward:
            raise ConfigError("no reward: add --reward NAME; `mmalign rewards` lists them")
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size = {self.batch_size}, but a batch holds at least 1")
        if self.format == "parquet" and self.out is None:
            raise ConfigError("parquet is no text: add --out FILE")
        if self.out is not None and self.format is None and self.out.suffix.lower() not in FORMATS:
            raise ConfigError(
                f"--out {self.out}: no format has this suffix; use {', '.join(FORMATS)}, or add --format"
            )
        if self.out is not None and self.out.is_dir():
            raise ConfigError(f"--out {self.out} is a folder; name a file")

    @property
    def written_format(self) -> TableFormat:
        """The format given, or that of the suffix of ``out``."""
        return self.format or ("table" if self.out is None else FORMATS[self.out.suffix.lower()])


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign score``.

    Raises:
        MmalignError: wrong usage; nothing was written.
    """
    return run(tyro.cli(ScoreCommand, prog="mmalign score", args=arguments))


def run(command: ScoreCommand) -> int:
    """Score, write, and say how many failed; the exit status."""
    import torch
    from rich.console import Console

    from mmalign.data.readers import read_sample_files
    from mmalign.rewards.cards import find_card, load_reward, parse_weighted
    from mmalign.rewards.scoring import score_files

    console = Console(stderr=True, soft_wrap=True)
    named = [parse_weighted(text) for text in command.reward]
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        raise ConfigError(f"a reward is named twice: {', '.join(names)}")
    needs_prompt = any("prompt" in find_card(name).needs for name in names)
    with _warnings_on(console):
        files = read_sample_files(
            command.paths,
            prompt=command.prompt,
            needs_prompt=needs_prompt,
            modality=command.modality or _only_speech([find_card(name).modalities for name in names]),
            root=command.root,
        )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        rewards = [load_reward(name, device=device) for name in names]
        weights = [weight for _, weight in named] if any(":" in text for text in command.reward) else None
        rows_per_file = len(rewards) + (weights is not None)
        scored = score_files(files, rewards, weights=weights, batch_size=command.batch_size)
        rows = list(_with_progress(scored, console, files=len(files), rows_per_file=rows_per_file))
    _write(command, rows)
    failed = [row for row in rows if row.score is None]
    for row in failed[:FAILURES_SHOWN]:
        console.print(f"no score for {row.id} by {row.reward}: {row.status}", style="yellow", markup=False)
    if len(failed) > FAILURES_SHOWN:
        console.print(f"and {len(failed) - FAILURES_SHOWN} more; the column status says why")
    console.print(
        f"{len(files)} samples, {len(rows)} rows: {len(rows) - len(failed)} scored, {len(failed)} failed"
    )
    return 1 if failed else 0


def _only_speech(taken: Sequence[Sequence[str]]) -> Literal["speech"] | None:
    """What a sound is taken for: speech where every reward takes speech and none takes sound."""
    return "speech" if all("speech" in names and "audio" not in names for names in taken) else None


def _write(command: ScoreCommand, rows: Sequence["ScoredRow"]) -> None:
    """To standard output, or to a temporary name that becomes the file at the end."""
    from mmalign.data.writers import format_rows, write_parquet
    from mmalign.files import whole_file
    from mmalign.rewards.scoring import TEXT_COLUMNS, records

    table, form = records(rows), command.written_format
    if command.out is None:
        print(format_rows(table, form), end="")
        return
    with whole_file(command.out) as unfinished:
        if form == "parquet":
            write_parquet(table, unfinished, text=TEXT_COLUMNS)
        else:
            unfinished.write_text(format_rows(table, form), encoding="utf-8")


def _with_progress(
    rows: Iterable["ScoredRow"], console: "Console", *, files: int, rows_per_file: int
) -> Iterator["ScoredRow"]:
    """The same rows, with a bar on a terminal that counts files and says how many a second."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=files, rate="")
        for done, row in enumerate(rows, start=1):
            if done % rows_per_file == 0:
                speed = progress.tasks[task].speed
                progress.update(task, advance=1, rate=f"{speed:.0f} files/s" if speed else "")
            yield row


@contextmanager
def _warnings_on(console: "Console") -> Iterator[None]:
    """Warnings as single lines, without the place in the code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        console.print(f"warning: {message}", style="yellow", markup=False, highlight=False)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
