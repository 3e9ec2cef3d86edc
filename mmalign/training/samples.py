"""Draws a folder of samples that survives interruption: media, and metadata.jsonl with all that draws them again."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from mmalign.files import append, make_folder, sync, whole_file
from mmalign.media import MEDIA, VIEWS_SUFFIX, WRITTEN_SUFFIX, Media, Modality, Sample, Scene3D
from mmalign.processes import Processes
from mmalign.training.drawn import Draw, drawing, write_tensors
from mmalign.training.folder import RunFolder
from mmalign.training.kept_samples import METADATA, SUMS, json_lines, kept_batches, sums_line
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
    again: bool = True,
) -> list[Sample]:
    """Draw what is missing of ``samples/<side>`` of a run and read all of it back, as people will see or hear it.

    With ``keep_latents`` a denoiser's latents are kept for ``read_drawn``; for ``again`` see ``write_samples``.
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
            counted=Counted(run, adapter.generator, title, len(prompts), f"samples/{side}"),
            draw=drawing(adapter, keep_latents=keep_latents, **options),
            again=again,
        )
    return read_samples(folder, adapter.modality)


class Counted:
    """Notes in a run how many passes each batch of a stage costs, and how far it is."""

    def __init__(self, run: RunFolder, generator: Any, title: str, total: int, stage: str) -> None:
        self._run, self._generator, self._title, self._total, self._stage = (
            run,
            generator,
            title,
            total,
            stage,
        )

    def begin(self, done: int) -> None:
        """So many samples are there."""
        self._run.begin(self._stage, done, self._generator.denoiser_passes)

    def before(self, done: int) -> None:
        """So many will be there."""
        self._run.keep(self._generator.denoiser_passes, self._stage, done)

    def after(self, done: int) -> None:
        """So many are there now."""
        self._run.tell(self._title, done, self._total)


def write_samples(
    adapter: Any,
    folder: Path,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: SamplingConfig,
    *,
    title: str,
    counted: Counted | None = None,
    draw: Draw | None = None,
    again: bool = True,
) -> None:
    """Write media and metadata.jsonl, going on after the last whole batch that is there.

    A batch is noted in metadata.jsonl only once all its files are on disk, so an interrupted stage goes on with
    whole batches, laid out as they would have been. From the first batch that is not as it was written on, samples are
    drawn again.

    Args:
        adapter: whose samples they are.
        folder: where.
        prompts: of all samples.
        seeds: likewise.
        sampling: options, and how many samples a batch has.
        title: of the bar.
        counted: told of each batch.
        draw: takes the place of ``adapter.generate``.
        again: whether the weights still are those that drew what is there, so that damaged samples can be replaced.

    Raises:
        DataError: a sample is damaged and cannot be drawn again.
    """
    if draw is None:
        draw = drawing(adapter, keep_latents=False, batch_size=sampling.batch_size, **sampling.options())
    make_folder(folder)
    processes, metadata = Processes(), folder / METADATA
    if processes.main:
        kept_batches(folder, prompts, seeds, batch_size=sampling.batch_size, again=again)
    processes.wait()
    done = metadata.read_bytes().count(b"\n") if metadata.exists() else 0
    processes.wait()
    if counted is not None:
        counted.begin(done)
    suffix = WRITTEN_SUFFIX[adapter.modality]
    options = adapter.generator.pipeline_options(**sampling.options())
    # Batches are laid out alike for any number of processes; each takes one in turn.
    a_round = sampling.batch_size * processes.count
    with stage(title, len(prompts), done=done) as bar, ThreadPoolExecutor(2) as writers:
        for start in range(done, len(prompts), a_round):
            stop = min(start + a_round, len(prompts))
            mine = start + sampling.batch_size * processes.rank
            rows = range(min(mine, stop), min(mine + sampling.batch_size, stop))
            lines: list[str] = []
            sums = ""
            if rows:
                cut = slice(rows.start, rows.stop)
                media, notes = draw(prompts[cut], seeds[cut])
                names = [f"{i:05d}{suffix}" for i in rows]
                written = list(writers.map(_write, media, [folder / name for name in names]))
                made = [*(path for paths in written for path in paths), *write_tensors(folder, names, notes)]
                sync(*made, folder)
                for i, name, note in zip(rows, names, notes, strict=True):
                    row = {"file_name": name, "prompt": prompts[i], "seed": seeds[i], **options, **note}
                    lines.append(json.dumps(row, ensure_ascii=False) + "\n")
                sums = sums_line("".join(lines), made)
            if counted is not None:
                counted.before(stop)
            for path, more in ((folder / SUMS, sums), (metadata, "".join(lines))):
                _append_in_turn(path, more, processes)
            if counted is not None:
                counted.after(stop)
            bar.advance(stop - start)


def _append_in_turn(path: Path, text: str, processes: Processes) -> None:
    """Each process adds its text after those before it."""
    for rank in range(processes.count):
        if rank == processes.rank and text:
            append(path, text)
        processes.wait()


def read_samples(folder: Path, modality: Modality) -> list[Sample]:
    """The samples of a folder with metadata.jsonl, in order; ``meta`` holds the row and the path."""
    rows = [json.loads(line) for line in json_lines(folder / METADATA)]
    paths = [folder / row["file_name"] for row in rows]
    with ThreadPoolExecutor(2) as readers:
        media: list[Media] = list(readers.map(MEDIA[modality].load, paths))
    return [
        Sample(row["prompt"], medium, meta={**row, "path": path})
        for row, medium, path in zip(rows, media, paths, strict=True)
    ]


def _write(medium: Media, path: Path) -> list[Path]:
    """Which files were written: a scene's mesh, where it has one beside its views, lies beside them."""
    with whole_file(path, durable=False) as unfinished:  # a batch goes onto the disk as one
        medium.save(unfinished)
    if not (isinstance(medium, Scene3D) and medium.views is not None and medium.mesh is not None):
        return [path]
    mesh = path.with_name(path.name.removesuffix(VIEWS_SUFFIX) + ".glb")
    with whole_file(mesh, durable=False) as unfinished:
        Scene3D(mesh=medium.mesh).save(unfinished)
    return [path, mesh]


def scored_rows(
    samples: Sequence[Sample], reward: str, values: Sequence[float | None]
) -> list[dict[str, Any]]:
    """Rows of scores.jsonl; a missing score is null."""
    return [
        {"file_name": sample.meta["file_name"], "prompt": sample.prompt, "reward": reward, "score": value}
        for sample, value in zip(samples, values, strict=True)
    ]
