"""Folders of samples whose files are names alone: enough for whatever shows nothing."""

import json
from pathlib import Path
from typing import Any


def write_folder(folder: Path, rows: list[tuple[str, str]], *, files: bool = True) -> Path:
    """``metadata.jsonl`` of (prompt, file), and the files."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"file_name": name, "prompt": prompt}) for prompt, name in rows]
    (folder / "metadata.jsonl").write_text("".join(line + "\n" for line in lines))
    for _, name in rows if files else []:
        (folder / name).write_bytes(b"x")
    return folder


def listed(prompts: int, each: int, source: str = "") -> list[tuple[str, str, str]]:
    """Samples of ``prompts`` prompts, as ``list_samples`` gives them."""
    start = f"{source}/" if source else ""
    return [
        (f"prompt {p}", source, f"{start}{p * each + i:05d}.png") for p in range(prompts) for i in range(each)
    ]


def choice_for(mode: str, number: int, shown: int = 2) -> dict[str, Any]:
    """A choice of a mode that ``number`` decides."""
    sides: list[dict[str, Any]] = [
        {"choice": "left", "strength": 0.5},
        {"choice": "right", "strength": 1.0},
        {"choice": "tie"},
        {"choice": "both_bad"},
    ]
    return {
        "pairs": sides[number % 4],
        "ranking": {"ranks": [1 + (number + i) % shown for i in range(shown)]},
        "rating": {"scores": {"overall": 1 + number % 5}, "rationale": f"because {number}"},
        "binary": {"label": number % 2 == 0},
        "marks": {"regions": [[0, 0, 0.5, 0.25]] * (number % 2), "words": [number % 2]},
    }[mode]
