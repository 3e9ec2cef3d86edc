"""How fast ``mmalign score`` is beside the barest loop around the same open_clip model.

Both sides read the same picture files in the same number of threads, forward the same batches and embed each
prompt once. The bare side uses open_clip's own transform and keeps nothing but the numbers; ours is the engine
behind ``mmalign score``, with rows and statuses. They run in turns in one process, and the ratio is between the
medians of their rates.

Then the whole command, ``mmalign score`` with two rewards in one pass, scores two sizes of job in a process of its own
each, whose largest memory has to stay the same: rows are written as they are made, and pictures are let go.

    uv run python benchmarks/score_throughput.py                     # bars: ratio >= 0.9, memory within 5 %
    uv run python benchmarks/score_throughput.py --pictures 200 --jobs 100 400 --rounds 3      # a glance
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import open_clip
import PIL.Image
import torch
import tyro
from rich.console import Console

from mmalign.media import Image, SampleFile
from mmalign.rewards.cards import find_card
from mmalign.rewards.clip import ClipReward
from mmalign.rewards.clip_encoder import load_encoder
from mmalign.rewards.scoring import score_files
from mmalign.worlds import shapes

BAR = 0.9
MEMORY_BAR = 1.05
"""Peak memory of the large job over that of the small one."""
console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured."""

    reward: str = "embedded/shapes-clip"
    pictures: int = 1_000
    side_px: int = 256
    suffix: str = ".png"
    batch_size: int = 32
    threads: int = min(8, os.cpu_count() or 1)
    rounds: int = 5
    rewards: tuple[str, ...] = ("embedded/shapes-clip", "shapes-truth")
    """Of the jobs whose memory is measured."""
    jobs: tuple[int, ...] = (500, 5_000)
    """Files of each; pictures are named again where there are fewer."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def draw(settings: Settings, folder: Path) -> list[SampleFile]:
    """Write pictures of the shapes world, each with its own caption."""
    random = torch.Generator().manual_seed(0)
    files = []
    for start in range(0, settings.pictures, 20):
        scenes = [shapes.random_scene(random) for _ in range(min(20, settings.pictures - start))]
        for i, picture in enumerate(shapes.render(scenes, random, side_px=settings.side_px), start=start):
            path = folder / f"{i:05}{settings.suffix}"
            Image((picture + 0.02 * torch.randn(picture.shape, generator=random)).clamp(0, 1)).save(path)
            files.append(SampleFile(str(i), path, shapes.caption(scenes[i - start], i % 5), str(path)))
    return files


@torch.no_grad()
def bare_loop(files: list[SampleFile], settings: Settings) -> Callable[[], list[float]]:
    """Read, transform, stack, encode: nothing else."""
    name = f"local-dir:{find_card(settings.reward).weights_folder()}"
    model, _, preprocess = open_clip.create_model_and_transforms(name, device=settings.device)
    tokenize = open_clip.get_tokenizer(name)
    model.eval()

    def read(file: SampleFile) -> torch.Tensor:
        assert file.path is not None
        with PIL.Image.open(file.path) as picture:
            pixels: torch.Tensor = preprocess(picture)
            return pixels

    @torch.no_grad()
    def run() -> list[float]:
        embedded: dict[str, torch.Tensor] = {}
        scores: list[float] = []
        with ThreadPoolExecutor(settings.threads) as pool:
            pictures = pool.map(read, files)
            for start in range(0, len(files), settings.batch_size):
                image = torch.stack(list(islice(pictures, settings.batch_size))).to(settings.device)
                prompts = [file.prompt or "" for file in files[start : start + settings.batch_size]]
                new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in embedded]
                if new:
                    text = model.encode_text(tokenize(new).to(settings.device), normalize=True)
                    embedded.update(zip(new, text, strict=True))
                features = model.encode_image(image, normalize=True)
                scores += (100 * (features * torch.stack([embedded[p] for p in prompts])).sum(-1)).tolist()
        return scores

    return run


def engine(files: list[SampleFile], settings: Settings) -> Callable[[], list[float]]:
    """What ``mmalign score`` runs, with no prompt remembered from the run before."""
    card = find_card(settings.reward)
    encoder = load_encoder(card, card.options.get("encoder"), device=settings.device)

    def run() -> list[float]:
        encoder.text.kept.clear()
        reward = ClipReward(card, device=settings.device, encoder=encoder)
        rows = score_files(files, [reward], batch_size=settings.batch_size, threads=settings.threads)
        return [math.nan if row.score is None else row.score for row in rows]

    return run


def peak_mb(files: list[SampleFile], count: int, settings: Settings, folder: Path) -> tuple[float, float]:
    """Largest memory of ``mmalign score`` on so many files, in a process of its own, and its files per second."""
    manifest = folder / f"{count}.jsonl"
    rows = [files[i % len(files)] for i in range(count)]
    manifest.write_text(
        "".join(json.dumps({"media": str(file.path), "prompt": file.prompt}) + "\n" for file in rows)
    )
    rewards = [word for name in settings.rewards for word in ("--reward", name)]
    script = (
        "import resource, sys\n"
        "from mmalign.cli.main import main\n"
        "status = main(sys.argv[1:])\n"
        "print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    arguments = [str(manifest), "--root", str(folder), *rewards, "--batch-size", str(settings.batch_size)]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, "score", *arguments, "--out", str(folder / f"{count}.scores.jsonl")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    status, peak = done.stdout.split()[-2:]
    assert status == "0", "some pictures have no score"
    return int(peak) / 1024, count / (time.perf_counter() - started)


def main(settings: Settings) -> int:
    """Measure, print, and fail below a bar."""
    with tempfile.TemporaryDirectory() as folder:
        files = draw(settings, Path(folder))
        sides = {"bare": bare_loop(files, settings), "mmalign": engine(files, settings)}
        warm = [run() for run in sides.values()]
        gap = max(abs(a - b) for a, b in zip(*warm, strict=True))
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for round_ in range(1, settings.rounds + 1):
            for name, run in sides.items():
                started = time.perf_counter()
                run()
                rates[name].append(len(files) / (time.perf_counter() - started))
            console.print(
                f"round {round_}: " + ", ".join(f"{n} {r[-1]:.0f} pictures/s" for n, r in rates.items())
            )
        memory = {count: peak_mb(files, count, settings, Path(folder)) for count in settings.jobs}
    ratio = statistics.median(b / a for a, b in zip(*rates.values(), strict=True))
    bare, ours = (statistics.median(values) for values in rates.values())
    print(
        f"{settings.pictures} pictures of {settings.side_px} px, {settings.threads} threads: bare {bare:.0f}/s, "
        f"mmalign {ours:.0f}/s, ratio {ratio:.2f} (bar {BAR}), largest difference of a score {gap:.3f}"
    )
    for count, (peak, rate) in memory.items():
        print(
            f"{count} files, {len(settings.rewards)} rewards: {peak:.0f} MB at most, {rate:.0f}/s with the start"
        )
    peaks = [peak for peak, _ in memory.values()]
    growth = max(peaks) / min(peaks) if peaks else 1.0
    print(f"memory of the largest job over that of the smallest: {growth:.3f} (bar {MEMORY_BAR})")
    return 0 if ratio >= BAR and growth <= MEMORY_BAR else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Settings)))
