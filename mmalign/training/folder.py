"""A run folder: where each result lies, and how far the run has come."""

import json
import time
from pathlib import Path
from typing import Any

import torch

from mmalign.errors import ConfigError
from mmalign.files import whole_file
from mmalign.processes import Processes


class RunFolder:
    """Paths of a run and its small state, kept through interruptions.

    Args:
        path: the folder; made if missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
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
        state = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        self._spent_s: float = state.get("wall_s", 0.0)
        self._passes: int = state.get("denoiser_passes", 0)
        self._counted = 0

    @property
    def wall_s(self) -> float:
        """Seconds of work so far, over all interruptions; what a kill threw away is not counted."""
        return self._spent_s + time.monotonic() - self._started

    @property
    def denoiser_passes(self) -> int:
        """Samples that went through the denoiser in work that was kept."""
        return self._passes

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
            with whole_file(self.progress) as unfinished:
                unfinished.write_text(json.dumps(said))

    def keep(self, counter: int) -> None:
        """Note that the work so far is on disk; ``counter`` is the generator's count of passes in this process."""
        self._passes += int(self._processes.sum(torch.tensor(counter - self._counted)))
        self._counted = counter
        if not self._processes.main:
            return
        state = {"wall_s": round(self.wall_s, 3), "denoiser_passes": self._passes}
        with whole_file(self.state_file) as unfinished:
            unfinished.write_text(json.dumps(state))

    def forget(self, counter: int) -> None:
        """Count from here, leaving out passes that belong to no kept work (checks at load)."""
        self._counted = counter


def new_run_folder(out: Path | None, name: str) -> Path:
    """Where a new run goes.

    Raises:
        ConfigError: the folder is there already and not empty.
    """
    if out is None:
        stem = name.replace("/", "-")
        taken = (
            int(p.name.removeprefix(f"{stem}-"))
            for p in Path("runs").glob(f"{stem}-*")
            if p.name[len(stem) + 1 :].isdigit()
        )
        return Path("runs") / f"{stem}-{max(taken, default=0) + 1}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already; continue it with --resume {out}, or give another --out")
    return out


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a whole JSON file or nothing; of several processes the main one does."""
    if not Processes().main:
        return
    with whole_file(path) as unfinished:
        unfinished.write_text(
            json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )
