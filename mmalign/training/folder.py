"""A run folder: where each result lies, and how far the run has come."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch

from mmalign.errors import ConfigError
from mmalign.files import make_folder, whole_file
from mmalign.locks import holds_something
from mmalign.processes import Processes
from mmalign.training.progress import console

SUMS = "SHA256SUMS"
"""Of a run: the files that later stages and resumed runs build on."""
NOTED = 4
"""Steps back that counts of passes can be undone: as many as there are checkpoints, and the one being written."""


class RunFolder:
    """Paths of a run and its small state, kept through interruptions.

    Args:
        path: the folder; made if missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path)
        self.recipe, self.metrics, self.summary = (
            path / "recipe.yaml",
            path / "metrics.jsonl",
            path / "summary.json",
        )
        self.pairs, self.lora, self.checkpoints = path / "pairs.parquet", path / "lora", path / "checkpoints"
        self.student = path / "student"
        self.samples, self.state_file = path / "samples", path / "state.json"
        self.progress = path / "progress.json"
        self._told: tuple[str, float, int] | None = None
        """What was told last: the stage, when it began, and where."""
        self._last_told = 0.0
        self._processes = Processes()
        self._started = time.monotonic()
        state = _read_state(self.state_file)
        self._spent_s: float = state.get("wall_s", 0.0)
        self._passes: dict[str, list[list[int]]] | None = state.get("passes", {})
        """By stage, passes up to what was done of it; None where the file that said so is damaged."""
        self._counted = 0

    @property
    def wall_s(self) -> float:
        """Seconds of work so far, over all interruptions; what a kill threw away is not counted."""
        return self._spent_s + time.monotonic() - self._started

    @property
    def denoiser_passes(self) -> int | None:
        """Samples that went through the denoiser in work that was kept; None where a damaged file forgot it."""
        return None if self._passes is None else sum(n for of in self._passes.values() for _, n in of)

    def glances(self, step: int) -> Path:
        """Where the samples of a glance after a step are."""
        return self.samples / "glances" / f"step-{step:06d}"

    def tell(self, stage: str, done: int, total: int) -> None:
        """Note for whoever watches what is being done and how far it is; at most once a second within a stage."""
        now = time.monotonic()
        same = self._told is not None and self._told[0] == stage
        begun, first = (self._told[1], self._told[2]) if self._told is not None and same else (now, done)
        if same and now - self._last_told < 1 and done < total:
            return
        self._told, self._last_told = (stage, begun, first), now
        rate = (done - first) / (now - begun) if done > first and now > begun else None
        said = {"stage": stage, "done": done, "total": total, "per_s": rate, "at": time.time()}
        if self._processes.main:
            with whole_file(self.progress, durable=False) as unfinished:
                unfinished.write_text(json.dumps(said))

    def begin(self, stage: str, done: int, counter: int) -> None:
        """A stage goes on after ``done``: what was noted beyond that was never kept, and is not counted.

        Passes since the last stage were counted when this one first began, where it had begun before.
        """
        if self._passes is not None:
            self._passes[stage] = [[upto, n] for upto, n in self._passes.get(stage, []) if upto <= done]
        if done:
            self.forget(counter)

    def keep(self, counter: int, stage: str, done: int) -> None:
        """Note what the work of a stage up to ``done`` costs, before it is kept; ``begin`` drops it if it never was.

        Args:
            counter: the generator's count of passes in this process.
            stage: whose work it is.
            done: how far the stage will be.
        """
        passes = int(self._processes.sum(torch.tensor(counter - self._counted)))
        self._counted = counter
        if self._passes is not None:
            noted = [*self._passes.get(stage, []), [done, passes]]
            old, noted = noted[: 1 - NOTED], noted[1 - NOTED :]
            # What was kept long ago is one number.
            merged = [[old[-1][0], sum(n for _, n in old)]] if old else []
            self._passes[stage] = [*merged, *noted]
        if self._processes.main:
            said = {
                "wall_s": round(self.wall_s, 3),
                "processes": self._processes.count,
                "passes": self._passes,
            }
            with whole_file(self.state_file) as unfinished:
                unfinished.write_text(json.dumps({**said, "sha256": _digest(said)}))

    def seal(self, path: Path) -> None:
        """Note the SHA-256 of a file, in the form that ``sha256sum -c`` reads."""
        found = self._sums() | {path.relative_to(self.path).as_posix(): file_digest(path)}
        with whole_file(self.path / SUMS) as unfinished:
            unfinished.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(found.items())))

    def whole(self, path: Path) -> bool:
        """Whether a file is there, and as it was sealed; one that never was is taken as it is."""
        if not path.is_file():
            return False
        return self._sums().get(path.relative_to(self.path).as_posix()) in (None, file_digest(path))

    def _sums(self) -> dict[str, str]:
        path = self.path / SUMS
        lines = path.read_text(errors="replace").split("\n") if path.is_file() else []
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines if line)}

    def forget(self, counter: int) -> None:
        """Count from here, leaving out passes that belong to no kept work (checks at load)."""
        self._counted = counter


def _read_state(path: Path) -> dict[str, Any]:
    """What ``keep`` noted last; of a damaged file nothing but that its counts are not known."""
    if not path.exists():
        return {}
    try:
        state: dict[str, Any] = json.loads(path.read_text())
        if "denoiser_passes" in state:  # as versions up to 0.1 wrote it
            return {**state, "passes": {"earlier": [[0, state["denoiser_passes"]]]}}
        if state.pop("sha256") == _digest(state):
            return state
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    console.print(
        f"{path}: damaged; how long the run took so far and how many passes is not known", markup=False
    )
    return {"passes": None}


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def new_run_folder(out: Path | None, name: str) -> Path:
    """Make the folder of a new run; no other process gets the same one.

    Raises:
        ConfigError: the folder is there already and not empty.
    """
    if out is None:
        return _numbered(Path("runs"), name.replace("/", "-"))
    if out.exists() and holds_something(out):
        raise ConfigError(f"{out} exists already; continue it with --resume {out}, or give another --out")
    return out


def _numbered(runs: Path, stem: str) -> Path:
    make_folder(runs)
    taken = (p.name.removeprefix(f"{stem}-") for p in runs.glob(f"{stem}-*"))
    number = max((int(n) for n in taken if n.isdecimal()), default=0)
    while True:
        number += 1
        try:
            (runs / f"{stem}-{number}").mkdir()
            return runs / f"{stem}-{number}"
        except FileExistsError:
            continue  # another run has just taken it


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a whole JSON file or nothing; of several processes the main one does."""
    if not Processes().main:
        return
    with whole_file(path) as unfinished:
        unfinished.write_text(
            json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )
