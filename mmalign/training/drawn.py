"""What own samples were made of, tokens or final latents, kept beside them: encoding a sample again gives others."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmalign.errors import MmalignError
from mmalign.files import whole_file
from mmalign.generators.token_layouts import IGNORED
from mmalign.generators.tokens import TokenGenerator
from mmalign.media import MEDIA, Media

Drawn = tuple[Sequence[Media], Sequence[dict[str, Any]]]
"""Media, and of each what its row of metadata.jsonl says beside prompt, seed and options."""
Draw = Callable[[Sequence[str], Sequence[int]], Drawn]
"""Draws the media of prompts and seeds."""

TOKENS = "tokens"
"""The field of metadata.jsonl that holds the tokens [T, K] of which a medium was made."""
LATENTS = "latents"
"""The field that names the file beside it with the latents of a batch, each [...] under its medium's file name."""
TRAJECTORY = "trajectory"
"""The field that names the file with what a random sampler went through, [T + 1, ...] from noise to clean latents."""
WRITING_ERROR = 0.4
"""Largest error of a file's values by their standard deviation; small shapes in mp4 come to 0.1, other samples to 1."""


def drawing(adapter: Any, *, keep_latents: bool, **options: Any) -> Draw:
    """Plain samples of a generator; token models note what they said, denoisers on demand what they decoded."""

    def tokens(prompts: Sequence[str], seeds: Sequence[int]) -> Drawn:
        said = adapter.tokens(prompts, seeds=seeds, **options)
        notes = [{TOKENS: row[row[:, 0] != IGNORED].tolist()} for row in said.cpu()]
        return adapter.decode(said, transcripts=prompts), notes

    def latents(prompts: Sequence[str], seeds: Sequence[int]) -> Drawn:
        final = adapter.latents(prompts, seeds=seeds, **options)
        return adapter.decode(final), [{LATENTS: row} for row in final.cpu()]

    def media(prompts: Sequence[str], seeds: Sequence[int]) -> Drawn:
        made = adapter.generate(prompts, seeds=seeds, **options)
        return made, [{} for _ in made]

    if isinstance(adapter.generator, TokenGenerator):
        return tokens
    return latents if keep_latents else media


def write_tensors(folder: Path, names: Sequence[str], notes: Sequence[dict[str, Any]]) -> None:
    """Move the latents and trajectories among the notes of a batch into a file each, and name it in their place."""
    for field in (LATENTS, TRAJECTORY):
        found = {name: note[field].clone() for name, note in zip(names, notes, strict=True) if field in note}
        if not found:
            continue
        file = f"{field}-{Path(names[0]).name.split('.')[0]}.safetensors"
        with whole_file(folder / file) as unfinished:
            save_file(found, unfinished)
        for note in notes:
            note[field] = file


def read_drawn(adapter: Any, files: Sequence[Path]) -> dict[Path, Tensor]:
    """Of media files the tokens [T, K] or latents [...] that made them, where the metadata.jsonl beside them says so.

    A folder whose first ones do not make their file is another model's, and is left out.
    """
    on_tokens = isinstance(adapter.generator, TokenGenerator)
    wanted, found = set(files), dict[Path, Tensor]()
    for folder in dict.fromkeys(path.parent for path in files):
        metadata = folder / "metadata.jsonl"
        if not metadata.is_file():
            continue
        rows = [json.loads(line) for line in metadata.read_text(encoding="utf-8").split("\n") if line]
        rows = [row for row in rows if folder / row["file_name"] in wanted]
        made_of = _tokens(folder, rows) if on_tokens else read_tensors(folder, rows, LATENTS)
        if made_of and _makes(adapter, *next(iter(made_of.items()))):
            found |= made_of
        elif made_of:
            what = TOKENS if on_tokens else LATENTS
            warnings.warn(
                f"{metadata}: its {what} do not make its files by this model; the files are encoded"
            )
    return found


def _tokens(folder: Path, rows: Sequence[dict[str, Any]]) -> dict[Path, Tensor]:
    return {folder / row["file_name"]: torch.tensor(row[TOKENS]) for row in rows if TOKENS in row}


def read_tensors(folder: Path, rows: Sequence[dict[str, Any]], field: str) -> dict[Path, Tensor]:
    """What rows of metadata.jsonl name in a field, by the medium it belongs to; files that are broken are left out."""
    names = [(row["file_name"], Path(row[field]).name) for row in rows if field in row]
    found: dict[Path, Tensor] = {}
    for file in dict.fromkeys(file for _, file in names):
        try:
            with safe_open(folder / file, "pt") as tensors:
                found |= {folder / name: tensors.get_tensor(name) for name, at in names if at == file}
        except (OSError, SafetensorError) as reason:
            warnings.warn(f"{folder / file}: not read ({reason}); its samples are encoded")
    return found


def _makes(adapter: Any, path: Path, made_of: Tensor) -> bool:
    """Whether a file is made of this, to what writing it rounds."""
    try:
        (made,) = adapter.decode(made_of[None].to(adapter.generator.device))
        values, written = (adapter.values(m) for m in (made, MEDIA[adapter.modality].load(path)))
    except (MmalignError, IndexError, RuntimeError, ValueError):
        return False
    if values.shape != written.shape:
        return False
    error = (values.cpu() - written).square().mean().sqrt()
    return bool(error <= WRITING_ERROR * written.std() + 0.005)  # the last: what 8 bits round
