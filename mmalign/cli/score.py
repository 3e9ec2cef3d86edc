"""``mmalign score``: score media with one or several rewards."""

import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from mmalign.cli.options import parse
from mmalign.data.writers import TableFormat
from mmalign.errors import ConfigError
from mmalign.locks import locked_output
from mmalign.ranges import COUNT, check_ranges

if TYPE_CHECKING:
    from rich.console import Console

    from mmalign.data.hub import DatasetSample
    from mmalign.data.partial import PartialRows
    from mmalign.media import SampleFile
    from mmalign.rewards.ahead import Loadable
    from mmalign.rewards.cards import RewardCard
    from mmalign.rewards.scoring import Explain

FORMATS: dict[str, TableFormat] = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet", ".txt": "table"}
Modality = Literal["image", "video", "scene3d", "audio", "speech"]
"""As in ``mmalign.media``, which ``--help`` does not wait for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreCommand:
    """Score media with one or several rewards; ``mmalign rewards`` lists them.

    Rows go to a partial file beside --out while they are made, and memory does not grow with their number. Large jobs
    split with --shard: `cat` of the shards' jsonl files, in order, is the file of a single run.

    Exit status: 0 all scored, 1 some rows failed (they are in the output, without a score), 2 wrong usage.
    """

    paths: Positional[tuple[Path, ...]]
    """Pictures, videos, sounds, meshes; folders (with metadata.jsonl: file_name, prompt; or plain); manifests (.jsonl,
    .csv, .parquet: media, prompt); Hugging Face datasets (hf:owner/name, or a folder that save_to_disk wrote)."""
    reward: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME[:WEIGHT]")] = ()
    """A reward, once or more: a name, or the address of `mmalign serve`. With a weight on any, each file gets one more
    row: the weighted sum of the scores, those where less is better turned round, as `align` adds them."""
    prompt: str | None = None
    """The prompt of files that have none of their own."""
    reference: Path | None = None
    """What rewards of likeness compare all files with: a picture, a clean sound, a voice. Tables may give each medium
    its own in a column `reference`, and transcripts, texts and captions in the column that the reward's card names."""
    modality: Modality | None = None
    """What the files are, if not what suffixes and manifests say; sounds are speech where only that is scored."""
    root: Path | None = None
    """Media in manifests may lie anywhere below this folder; by default, below the manifest's own."""
    split: str | None = None
    """Of a dataset that has several."""
    media_column: str | None = None
    """Of a dataset; by default the only one that holds media."""
    prompt_column: str | None = None
    """Of a dataset; by default prompt, caption or text."""
    out: Path | None = None
    """Write here, whole or not at all, instead of to standard output."""
    format: TableFormat | None = None
    """By default the suffix of --out, or a table."""
    batch_size: Annotated[int, COUNT] = 32
    """Files per forward pass. Twice as many are read ahead, as far as --max-medium-mb allows."""
    max_medium_mb: Annotated[int, COUNT] = 512
    """Memory in MB that reading one file may take, and all files that are read ahead together. A file above it is a
    failed row: 25 megapixels of a picture, 81 frames of 832 x 480 or 4 minutes of stereo are below."""
    resume: bool = False
    """Go on from OUT.partial, which a run that was stopped left behind; the rows are those of one run."""
    shard: Annotated[str | None, arg(metavar="I/N")] = None
    """Only the I-th of N parts, counted from 1."""
    explain: Path | None = None
    """Write what rewards say beside their numbers into this folder: regions as pictures, tokens as coloured words,
    reasons as text."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")
        if not self.paths:
            raise ConfigError("nothing to score: name media files, folders, manifests or datasets")
        if not self.reward:
            raise ConfigError("no reward: add --reward NAME; `mmalign rewards` lists them")
        if self.format == "parquet" and self.out is None:
            raise ConfigError("parquet is no text: add --out FILE")
        if self.resume and self.out is None:
            raise ConfigError("--resume goes on with a file: add --out FILE")
        if self.out is not None and self.format is None and self.out.suffix.lower() not in FORMATS:
            raise ConfigError(
                f"--out {self.out}: no format has this suffix; use {', '.join(FORMATS)}, or add --format"
            )
        if self.out is not None and os.path.isdir(self.out):  # which raises at no name
            raise ConfigError(f"--out {self.out} is a folder; name a file")
        _ = self.shard_of

    @property
    def written_format(self) -> TableFormat:
        """The format given, or that of the suffix of ``out``."""
        return self.format or ("table" if self.out is None else FORMATS[self.out.suffix.lower()])

    @property
    def shard_of(self) -> tuple[int, int]:
        """Which of how many shards: (1, 1) for all.

        Raises:
            ConfigError: ``shard`` is not I/N with 1 <= I <= N.
        """
        number, _, count = (self.shard or "1/1").partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ConfigError(f"--shard {self.shard}: expected I/N with I from 1 to N, such as 1/4")
        return int(number), int(count)


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign score``.

    Raises:
        MmalignError: wrong usage; nothing was written.
    """
    command = parse(ScoreCommand, arguments, prog="mmalign score")
    with nullcontext() if command.out is None else locked_output(command.out, _partial_path(command.out)):
        return run(command)


def run(command: ScoreCommand) -> int:
    """Score, write, and say how many failed; the exit status."""
    import torch
    from rich.console import Console

    from mmalign.cli.tally import Progress, Tally
    from mmalign.data.hub import DatasetOptions
    from mmalign.data.readers import read_sample_files
    from mmalign.media import load_media
    from mmalign.rewards.cards import find_card, has_weight, load_reward, parse_weighted
    from mmalign.rewards.scoring import score_batches, shard_range

    console = Console(stderr=True, soft_wrap=True)
    named = [parse_weighted(text) for text in command.reward]
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        raise ConfigError(f"a reward is named twice: {', '.join(names)}")
    cards = [find_card(name) for name in names]
    with _warnings_on(console):
        everything = read_sample_files(
            command.paths,
            prompt=command.prompt,
            needs_prompt=any("prompt" in card.needs for card in cards),
            modality=command.modality or _only_speech([card.modalities for card in cards]),
            root=command.root,
            dataset=DatasetOptions(
                split=command.split, media_column=command.media_column, prompt_column=command.prompt_column
            ),
            context=_context(cards),
            reference=None if command.reference is None else load_media(command.reference),
        )
        part = shard_range(len(everything), *command.shard_of, batch_size=command.batch_size)
        files = everything[part.start : part.stop]
        weights = [weight for _, weight in named] if any(map(has_weight, command.reward)) else None
        rows_per_file = len(names) + (weights is not None)
        with _partial(command, files, rows_per_file, console) as partial:
            tally = Tally()
            tally.add(partial)
            done = partial.count // rows_per_file
            if done:
                console.print(f"going on after {done} of {len(files)} files")
            device = "cuda" if torch.cuda.is_available() else "cpu"
            rewards = [load_reward(name, device=device) for name in names] if done < len(files) else []
            batches = score_batches(
                files[done:],
                rewards,
                weights=weights,
                batch_size=command.batch_size,
                explain=_explainer(command, first=part.start + done),
                most_bytes=command.max_medium_mb * 10**6,
            )
            progress = Progress(console, files=len(files), done=done, rows_per_file=rows_per_file)
            for batch in progress.watch(batches):
                rows = [row.record(list(row.aspects)) for row in batch]
                partial.append(rows)
                tally.add(rows)
            _write(command, partial, list(tally.aspects))
    tally.report(console, files=len(files), rate=progress.rate)
    return 1 if tally.failed else 0


def _only_speech(taken: Sequence[Sequence[str]]) -> Literal["speech"] | None:
    """What a sound is taken for: speech where every reward takes speech and none takes sound."""
    return "speech" if all("speech" in names and "audio" not in names for names in taken) else None


def _context(cards: Sequence["RewardCard"]) -> dict[str, bool]:
    """What these rewards take beside medium and prompt, and whether one of them cannot do without."""
    taken = {name: False for card in cards for name in card.reads}
    return taken | {name: True for card in cards for name in card.needs if name != "prompt"}


def _partial_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


@contextmanager
def _partial(
    command: ScoreCommand,
    files: Sequence["SampleFile | DatasetSample"],
    rows_per_file: int,
    console: "Console",
) -> Iterator["PartialRows"]:
    """The rows so far: beside the output and kept if something goes wrong, or in a temporary folder."""
    from mmalign import __version__
    from mmalign.data.partial import PartialRows

    digest = hashlib.sha256()
    for file in files:
        context = {name: str(value) for name, value in file.context.items() if isinstance(value, Path | str)}
        digest.update(json.dumps([file.id, str(file.path), file.prompt, context]).encode())
    meant_for = {
        "files": f"{len(files)}, {digest.hexdigest()[:16]}",
        "rewards": list(command.reward),
        "batch_size": command.batch_size,
        "max_medium_mb": command.max_medium_mb,
        "modality": command.modality,
        "reference": None if command.reference is None else str(command.reference),
        "version": __version__,
    }
    with tempfile.TemporaryDirectory() as folder:
        out = command.out
        path = Path(folder) / "rows" if out is None else _partial_path(out)
        with PartialRows(
            path,
            meant_for=meant_for,
            batch_rows=command.batch_size * rows_per_file,
            total_rows=len(files) * rows_per_file,
            resume=command.resume,
        ) as rows:
            try:
                yield rows
            except BaseException:
                if out is not None and rows.count:
                    console.print(
                        f"{rows.count // rows_per_file} files are kept in {path}; --resume goes on after them"
                    )
                raise


def _write(command: ScoreCommand, partial: "PartialRows", aspects: Sequence[str]) -> None:
    """To standard output, or to a temporary name that becomes the file at the end."""
    from mmalign.data.writers import stream_rows
    from mmalign.files import whole_file
    from mmalign.rewards.scoring import COLUMNS, TEXT_COLUMNS

    columns, form = [*COLUMNS, *aspects], command.written_format
    if command.out is None:
        stream_rows(lambda: partial, sys.stdout, form, columns=columns, text=TEXT_COLUMNS)
        return
    with whole_file(command.out) as unfinished:
        stream_rows(lambda: partial, unfinished, form, columns=columns, text=TEXT_COLUMNS)
    partial.remove()


def _explainer(command: ScoreCommand, *, first: int) -> "Explain | None":
    """Writes what rewards say beside their numbers, where that was asked for."""
    if command.explain is None:
        return None
    from mmalign.evaluation.explanations import explain
    from mmalign.rewards.base import Score

    folder = command.explain

    def write(number: int, file: "Loadable", reward: str, score: Score, i: int) -> None:
        explain(folder, f"{first + number:06}-{file.id}-{reward}", file.load, score, i)

    return write


@contextmanager
def _warnings_on(console: "Console") -> Iterator[None]:
    """Warnings as single lines, without the place in the code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        console.print(f"warning: {message}", style="yellow", markup=False, highlight=False)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
