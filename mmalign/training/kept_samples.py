"""What of a folder of samples is as it was written: whole batches, of which no bit is another.

Beside metadata.jsonl lies a file with one line a batch: how many rows it has, the SHA-256 of their lines, and those of
the files they name. A folder without it, of an older version, is taken as it is.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmalign.errors import DataError
from mmalign.files import whole_file
from mmalign.training.folder import file_digest
from mmalign.training.progress import console

METADATA = "metadata.jsonl"
SUMS = ".sums.jsonl"


def json_lines(path: Path) -> list[str]:
    """The lines of a jsonl file: only a newline ends one, whatever else a prompt holds."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def sums_line(rows: str, files: Sequence[Path]) -> str:
    """The line of a batch: of its lines of metadata.jsonl, and of its files."""
    said = {
        "rows": rows.count("\n"),
        "sha256": hashlib.sha256(rows.encode()).hexdigest(),
        "files": {path.name: file_digest(path) for path in files},
    }
    return json.dumps(said) + "\n"


def kept_batches(
    folder: Path, prompts: Sequence[str], seeds: Sequence[int], *, batch_size: int, again: bool
) -> None:
    """Cut a torn line, an unfinished batch and everything from a damaged batch on off metadata.jsonl.

    Args:
        folder: of the samples.
        prompts: of all samples that will be there.
        seeds: likewise.
        batch_size: samples of a whole batch.
        again: whether what is cut can be drawn again.

    Raises:
        DataError: it cannot, and a sample is damaged.
    """
    metadata = folder / METADATA
    if not metadata.exists():
        (folder / SUMS).unlink(missing_ok=True)
        return
    lines = metadata.read_bytes().split(b"\n")[:-1]  # what follows the last end of line is torn
    batches, fault = _whole_batches(folder, lines)
    kept = sum(batches)
    if fault is not None and not again:
        raise DataError(
            f"{fault}; these samples were drawn by weights that are no more, so start a new run", file=folder
        )
    if fault is not None:
        console.print(f"{folder}: {fault}; drawing again from sample {kept} on", markup=False)
    kept = next((i for i, line in enumerate(lines[:kept]) if not _asks(line, prompts, seeds, i)), kept)
    if kept < len(prompts):
        kept = kept // batch_size * batch_size
    rows = [line + b"\n" for line in lines[:kept]]
    with whole_file(metadata) as unfinished:
        unfinished.write_bytes(b"".join(rows))
    _cut_sums(folder, rows)


def check_samples(folder: Path) -> None:
    """Refuse a folder of samples that is not as it was written.

    Raises:
        DataError: with what is not.
    """
    _, fault = _whole_batches(folder, (folder / METADATA).read_bytes().split(b"\n")[:-1])
    if fault is not None:
        raise DataError(
            f"{fault}; what was learned from these samples cannot go on, so start a new run", file=folder
        )


def _whole_batches(folder: Path, lines: Sequence[bytes]) -> tuple[list[int], str | None]:
    """Rows of each batch that is as it was written, up to the first that is not, and what is wrong with that."""
    sums, batches = folder / SUMS, list[int]()
    if not sums.exists():
        return [len(lines)], None
    for text in sums.read_bytes().split(b"\n")[:-1]:
        start = sum(batches)
        try:
            said: dict[str, Any] = json.loads(text)
            rows = b"".join(line + b"\n" for line in lines[start : start + said["rows"]])
            if rows.count(b"\n") < said["rows"]:
                return batches, None  # a kill came between the two
            if hashlib.sha256(rows).hexdigest() != said["sha256"]:
                return batches, f"{METADATA} is not as it was written"
            for name, digest in said["files"].items():
                if file_digest(folder / Path(name).name) != digest:
                    return batches, f"{name} is not as it was written"
        except OSError as error:
            return batches, f"{error.filename}: {error.strerror}"
        except (ValueError, KeyError, TypeError, AttributeError):
            return batches, f"{SUMS} is not as it was written"
        batches.append(said["rows"])
    return batches, None


def _cut_sums(folder: Path, rows: Sequence[bytes]) -> None:
    """Keep the lines of as many batches as there are rows; a folder of an older version gets one for all."""
    sums, kept, lines = folder / SUMS, 0, list[bytes]()
    for line in sums.read_bytes().split(b"\n")[:-1] if sums.exists() else []:
        if kept >= len(rows):
            break
        kept += json.loads(line)["rows"]
        lines.append(line + b"\n")
    if kept != len(rows):  # of an older version, or cut inside a batch
        lines = [sums_line(b"".join(rows).decode(), []).encode()] if rows else []
    with whole_file(sums) as unfinished:
        unfinished.write_bytes(b"".join(lines))


def _asks(line: bytes, prompts: Sequence[str], seeds: Sequence[int], i: int) -> bool:
    """Whether a row is of the prompt and seed that are wanted there."""
    try:
        row = json.loads(line)
        return i < len(prompts) and (row["prompt"], row["seed"]) == (prompts[i], seeds[i])
    except (ValueError, KeyError, TypeError):
        return False
