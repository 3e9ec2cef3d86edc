"""Draws a folder of samples that survives interruption: media, and metadata.jsonl with all that draws them again."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from mmalign.files import whole_file
from mmalign.media import MEDIA, VIEWS_SUFFIX, WRITTEN_SUFFIX, Media, Modality, Sample, Scene3D
from mmalign.processes import Processes
from mmalign.training.drawn import Draw, drawing, write_tensors
from mmalign.training.folder import RunFolder
from mmalign.training.progress import stage
from mmalign.training.recipe import SamplingConfig


def draw_samples(
    adapter: Any,
    run: RunFolder,
    side: str,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: SamplingConfig,
    *,
    weights: Literal["policy", "reference"],
    title: str,
    keep_latents: bool = False,
) -> list[Sample]:
    """Draw what is missing of ``samples/<side>`` of a run and read all of it back, as people will see or hear it.

    With ``keep_latents`` a denoiser's latents are kept for ``read_drawn``.
    """
    folder = run.samples / side
    options = {"batch_size": sampling.batch_size, **sampling.options()}
    with adapter.generator.weights(weights):
        write_samples(
            adapter,
            folder,
            prompts,
            seeds,
            sampling,
            title=title,
            after_batch=kept(run, adapter.generator, title, len(prompts)),
            draw=drawing(adapter, keep_latents=keep_latents, **options),
        )
    return read_samples(folder, adapter.modality)


def kept(run: RunFolder, generator: Any, title: str, total: int) -> Callable[[int], None]:
    """After a batch, count its passes and say how far it is."""

    def after_batch(done: int) -> None:
        run.keep(generator.denoiser_passes)
        run.tell(title, done, total)

    return after_batch


def write_samples(
    adapter: Any,
    folder: Path,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: SamplingConfig,
    *,
    title: str,
    after_batch: Callable[[int], None] = lambda done: None,
    draw: Draw | None = None,
) -> None:
    """Write media and metadata.jsonl, going on after the last whole batch that is there.

    A batch is noted in metadata.jsonl only once all its files are on disk, so an interrupted stage goes on with
    whole batches, laid out as they would have been. ``draw`` takes the place of ``adapter.generate``, and
    ``after_batch`` is told how many samples are there.
    """
    if draw is None:
        draw = drawing(adapter, keep_latents=False, batch_size=sampling.batch_size, **sampling.options())
    folder.mkdir(parents=True, exist_ok=True)
    processes, metadata = Processes(), folder / "metadata.jsonl"
    if processes.main:
        _cut_to_whole_batches(metadata, sampling.batch_size, len(prompts))
    processes.wait()
    done = metadata.read_bytes().count(b"\n") if metadata.exists() else 0
    processes.wait()
    suffix = WRITTEN_SUFFIX[adapter.modality]
    options = adapter.generator.pipeline_options(**sampling.options())
    # Batches are laid out alike for any number of processes; each takes one in turn.
    a_round = sampling.batch_size * processes.count
    with stage(title, len(prompts), done=done) as bar, ThreadPoolExecutor(2) as writers:
        for start in range(done, len(prompts), a_round):
            stop = min(start + a_round, len(prompts))
            mine = start + sampling.batch_size * processes.rank
            rows = range(min(mine, stop), min(mine + sampling.batch_size, stop))
            lines = []
            if rows:
                cut = slice(rows.start, rows.stop)
                media, notes = draw(prompts[cut], seeds[cut])
                names = [f"{i:05d}{suffix}" for i in rows]
                list(writers.map(_write, media, [folder / name for name in names]))
                write_tensors(folder, names, notes)
                for i, name, note in zip(rows, names, notes, strict=True):
                    row = {"file_name": name, "prompt": prompts[i], "seed": seeds[i], **options, **note}
                    lines.append(json.dumps(row, ensure_ascii=False) + "\n")
            _append_in_turn(metadata, "".join(lines), processes)
            after_batch(stop)
            bar.advance(stop - start)


def _append_in_turn(path: Path, text: str, processes: Processes) -> None:
    """Each process adds its text after those before it."""
    for rank in range(processes.count):
        if rank == processes.rank:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        processes.wait()


def read_samples(folder: Path, modality: Modality) -> list[Sample]:
    """The samples of a folder with metadata.jsonl, in order; ``meta`` holds the row and the path."""
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    paths = [folder / row["file_name"] for row in rows]
    with ThreadPoolExecutor(2) as readers:
        media: list[Media] = list(readers.map(MEDIA[modality].load, paths))
    return [
        Sample(row["prompt"], medium, meta={**row, "path": path})
        for row, medium, path in zip(rows, media, paths, strict=True)
    ]


def _write(medium: Media, path: Path) -> None:
    """A scene's mesh, where it has one beside its views, is written beside them."""
    with whole_file(path) as unfinished:
        medium.save(unfinished)
    if isinstance(medium, Scene3D) and medium.views is not None and medium.mesh is not None:
        Scene3D(mesh=medium.mesh).save(path.with_name(path.name.removesuffix(VIEWS_SUFFIX) + ".glb"))


def _cut_to_whole_batches(metadata: Path, batch_size: int, total: int) -> None:
    """Cut a torn line and an unfinished batch off the file."""
    if not metadata.exists():
        return
    lines = metadata.read_bytes().split(b"\n")[:-1]  # what follows the last end of line is torn
    kept = len(lines) if len(lines) == total else len(lines) // batch_size * batch_size
    with whole_file(metadata) as unfinished:
        unfinished.write_bytes(b"".join(line + b"\n" for line in lines[:kept]))


def scored_rows(
    samples: Sequence[Sample], reward: str, values: Sequence[float | None]
) -> list[dict[str, Any]]:
    """Rows of scores.jsonl; a missing score is null."""
    return [
        {"file_name": sample.meta["file_name"], "prompt": sample.prompt, "reward": reward, "score": value}
        for sample, value in zip(samples, values, strict=True)
    ]
