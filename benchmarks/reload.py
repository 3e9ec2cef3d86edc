"""Draws the samples of a finished run again without mmalign, from the base model, the run's LoRA and the seeds alone.

The child process below knows diffusers and the files of the run; it is checked that mmalign was never imported. A
second child is ``mmalign generate --lora``. Both must give the pictures of ``samples/after/`` within 1/255.

    uv run python benchmarks/reload.py RUN
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import tyro
from tyro.conf import Positional

from mmalign.adapters.loading import model_folder

PLAIN = """
import json, sys
import torch
from diffusers import DiffusionPipeline

model, run, out, count = sys.argv[1:5]
pipeline = DiffusionPipeline.from_pretrained(model)
pipeline.load_lora_weights(f"{run}/lora")
pipeline.set_progress_bar_config(disable=True)
rows = [json.loads(line) for line in open(f"{run}/samples/after/metadata.jsonl", encoding="utf-8")][: int(count)]
for row in rows:
    name, prompt, seed = row.pop("file_name"), row.pop("prompt"), row.pop("seed")
    picture = pipeline(prompt, generator=torch.Generator("cpu").manual_seed(seed), **row).images[0]
    picture.save(f"{out}/{name}")
assert not [name for name in sys.modules if name.startswith("mmalign")]
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is compared."""

    run: Positional[Path]
    count: int = 32
    """The first so many samples, one at a time: also another batch than the run's."""


def largest_difference(first: Path, second: Path, names: list[tuple[str, str]]) -> int:
    """Of two folders' pictures, in units of 1/255."""

    def pixels(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.int16]]":
        return np.asarray(PIL.Image.open(path)).astype(np.int16)

    return max(int(np.abs(pixels(first / a) - pixels(second / b)).max()) for a, b in names)


def main(settings: Settings) -> int:
    """Draw, compare, print."""
    summary = json.loads((settings.run / "summary.json").read_text(encoding="utf-8"))
    after = settings.run / "samples" / "after"
    rows = [
        json.loads(line)
        for line in (after / "metadata.jsonl").read_text(encoding="utf-8").split("\n")
        if line
    ]
    rows = rows[: settings.count]
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = Path(folder) / "plain", Path(folder) / "ours"
        plain.mkdir()
        arguments = [model_folder(summary["model"]), str(settings.run), str(plain), str(settings.count)]
        subprocess.run([sys.executable, "-I", "-c", PLAIN, *arguments], check=True)
        prompts = Path(folder) / "prompts.txt"
        prompts.write_text("".join(row["prompt"] + "\n" for row in rows), encoding="utf-8")
        sampling = summary["sampling"]["after"]
        command = ["generate", summary["model"], "--prompts", str(prompts), "--out", str(ours)]
        command += ["--lora", str(settings.run / "lora"), "--seed", str(rows[0]["seed"])]
        command += ["--steps", str(sampling["steps"]), "--guidance", str(sampling["guidance"])]
        if rows[0].get("max_sequence_length"):
            command += ["--max-sequence-length", str(rows[0]["max_sequence_length"])]
        subprocess.run([sys.executable, "-m", "mmalign", *command], check=True, stdout=subprocess.DEVNULL)
        names = [row["file_name"] for row in rows]
        by_plain = largest_difference(after, plain, [(name, name) for name in names])
        by_ours = largest_difference(after, ours, [(name, f"{i:05d}.png") for i, name in enumerate(names)])
    print(
        f"{len(rows)} samples of {settings.run}: largest difference {by_plain}/255 in plain diffusers, "
        f"{by_ours}/255 by mmalign generate (bar 1)"
    )
    return 0 if max(by_plain, by_ours) <= 1 else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Settings)))
