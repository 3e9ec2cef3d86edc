"""The training loop: any method, any generator, one optimiser step at a time, stopped and continued at will."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.tensorboard import SummaryWriter

from mmalign.errors import ConfigError
from mmalign.files import whole_file
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.methods.base import Method
from mmalign.processes import Processes
from mmalign.stopping import Stopped, held_back
from mmalign.training.checkpoint import load_checkpoint, moments_of, save_checkpoint
from mmalign.training.folder import RunFolder
from mmalign.training.guards import check_loss, check_weights, clip_gradients
from mmalign.training.progress import console, stage
from mmalign.training.recipe import TrainConfig

Glance = Callable[[int], tuple[dict[str, float], str | None]]
"""Held-out numbers of the policy as it is after a step, and a reason to stop where there is one."""
ECHO_S = 5.0
"""Of several processes, how long after a signal another is the launcher's copy of it."""
CHECKSUM_EVERY = 10
"""Steps between comparisons of the weights of several processes."""


def train(
    method: Method,
    generator: DenoisingGenerator,
    config: TrainConfig,
    run: RunFolder,
    *,
    glance: Glance | None = None,
    glance_every: int = 0,
    until: int | None = None,
) -> str | None:
    """Train the policy, from the newest checkpoint of the run folder on.

    Args:
        method: draws batches by step and says their loss.
        generator: its policy's trainable parameters are moved.
        config: steps, batch and optimiser.
        run: takes metrics.jsonl, checkpoints and tensorboard events.
        glance: held-out numbers for the metrics.
        glance_every: steps between glances; 0 is never.
        until: the step to stop at, with a checkpoint; by default the last one of the settings.

    Returns:
        Why it stopped before the last step, or None.

    Raises:
        NonFiniteError: a loss or gradient is not finite, and nothing was applied; or the weights are not finite after
            a step, and nothing of it was written.
        ConfigError: the run has trained more steps already.
        Stopped: a signal came; after a checkpoint.
    """
    processes = Processes()
    accelerator = Accelerator(mixed_precision="no" if config.precision == "fp32" else config.precision)
    parameters = {name: p for name, p in generator.policy.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.999)
    )
    first, state = load_checkpoint(run.checkpoints, parameters, optimizer)
    if state:
        method.load_state(state)
    stopped_early = _reason(run.metrics, first)
    run.begin("training", first, generator.denoiser_passes)
    if first == 0:
        with counted_once(generator):
            method.check_start(size=config.batch_size, seed=config.seed)
    last = config.steps if until is None else until
    if first > last:
        raise ConfigError(
            f"train.steps = {last}, but this run has trained {first} steps already; give as many"
        )
    every = whole_rollouts(config.checkpoint_every, method.steps_per_rollout)

    def save(step: int) -> None:
        run.keep(generator.denoiser_passes, "training", step)
        if processes.main:
            save_checkpoint(run.checkpoints, step, parameters, optimizer, method.state())
        processes.wait()

    if processes.main:
        _cut_metrics(run.metrics, first)
    step = first
    with (
        stage("training", last, done=first) as bar,
        _Log(run, first) if processes.main else nullcontext() as log,
        held_back(_promise, echo_s=ECHO_S if processes.count > 1 else 0.0) as stopped,
    ):
        run.tell("training", step, last)
        while step < last and stopped_early is None:
            # Between rollouts, where a checkpoint can fall; and every process after the same step.
            if step % method.steps_per_rollout == 0 and (signum := processes.largest(stopped() or 0)):
                if step > first:
                    save(step)
                raise Stopped(signum)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_share(config, step)
            values = one_step(method, config, accelerator, parameters, optimizer, step=step)
            step += 1
            method.after_step(step)
            check_weights(parameters, moments_of(parameters, optimizer), method.state(), step=step)
            if step % CHECKSUM_EVERY == 0:
                processes.check_same(parameters, step=step)
            if glance is not None and glance_every and step % glance_every == 0:
                with counted_once(generator):
                    seen, stopped_early = glance(step)
                values.update(seen)
            if log is not None:
                log.write(step, values, stopped_early)
            bar.advance()
            bar.note(_short(values))
            run.tell("training", step, last)
            if step % every == 0 or step == last or stopped_early is not None:
                save(step)
    if stopped_early is not None:
        console.print(f"stopped after step {step}: {stopped_early}")
    return stopped_early


@contextmanager
def counted_once(generator: DenoisingGenerator) -> Iterator[None]:
    """What every process does alike, so as to know the same, costs what it costs one."""
    before = generator.denoiser_passes
    yield
    if not Processes().main:
        generator.denoiser_passes = before


def _promise(signum: int) -> None:
    console.print(
        "stopping after this step, with a checkpoint; once more (Ctrl-C, or another signal) stops at once",
        markup=False,
    )


def _short(values: dict[str, float]) -> str:
    return " ".join(
        f"{name} {values[name]:.3f}"
        for name in ("loss", "accuracy", "train_reward", "heldout_reward")
        if name in values
    )


class _Log:
    """metrics.jsonl and tensorboard."""

    def __init__(self, run: RunFolder, first: int) -> None:
        self._metrics = run.metrics.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run.path / "tensorboard"), purge_step=first)

    def write(self, step: int, values: dict[str, float], stopped_early: str | None) -> None:
        """One row."""
        row: dict[str, Any] = {"step": step, **values}
        if stopped_early is not None:
            row["stopped_early"] = stopped_early
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        self._board.close()


def learning_rate_share(config: TrainConfig, step: int) -> float:
    """The share of the learning rate that the optimiser step number ``step``, from 0, is made with.

    >>> falling = TrainConfig(steps=14, warmup_steps=4, lr_schedule="linear")
    >>> [learning_rate_share(falling, step) for step in (0, 3, 4, 9, 13)]
    [0.25, 1.0, 1.0, 0.5, 0.1]
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    left = (config.steps - step) / max(1, config.steps - config.warmup_steps)
    match config.lr_schedule:
        case "linear":
            return left
        case "cosine":
            return (1 - math.cos(math.pi * left)) / 2
        case "constant":
            return 1.0


def whole_rollouts(every: int, steps_per_rollout: int) -> int:
    """The interval of checkpoints, made up to whole rollouts, so that a resumed run never begins inside one.

    >>> whole_rollouts(50, 1), whole_rollouts(50, 4)
    (50, 52)
    """
    return -(-every // steps_per_rollout) * steps_per_rollout


def one_step(
    method: Method,
    config: TrainConfig,
    accelerator: Accelerator,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
) -> dict[str, float]:
    """Gradients of all micro-batches, weighted by their rows, so that they add up to the whole batch's gradient.

    Every process has the whole batch, which says nothing that costs a pass, and takes its own share of the rows.
    """
    processes = Processes()
    batch = method.batch(step, size=config.batch_size, seed=config.seed)
    rows = processes.share(len(batch))
    weight = 1 / len(batch)
    if (
        not rows
    ):  # too few rows for all: take one that does not count, so that every process has the same numbers
        rows, weight = range(1), 0.0
    values: dict[str, float] = {"loss": 0.0}
    for start in range(rows.start, rows.stop, config.micro_batch_size):
        part = batch.part(start, min(start + config.micro_batch_size, rows.stop))
        share = len(part) * weight
        with accelerator.autocast():
            loss, metrics = method.loss(part)
        check_loss(loss, step=step)
        accelerator.backward(loss * share)
        for name, value in {"loss": loss.detach(), **metrics}.items():
            values[name] = values.get(name, 0.0) + share * float(value)
    processes.sum_gradients(parameters)
    total = processes.sum(torch.tensor(list(values.values()), dtype=torch.float64))
    values = dict(zip(values, total.tolist(), strict=True))
    values["grad_norm"] = clip_gradients(parameters, config.max_grad_norm, step=step)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return values


def _reason(path: Path, steps: int) -> str | None:
    """Why the run had stopped at its checkpoint, where it had."""
    for row in _rows(path):
        if row["step"] == steps and "stopped_early" in row:
            return str(row["stopped_early"])
    return None


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_bytes().split(b"\n"):
            try:
                row = json.loads(line)
                if row["step"] != len(rows) + 1:
                    break
            except (ValueError, KeyError, TypeError):
                break  # torn by a kill; later rows cannot exist
            rows.append(row)
    return rows


def _cut_metrics(path: Path, steps: int) -> None:
    """Keep the rows up to the checkpoint; what came after it will be done again."""
    kept = [row for row in _rows(path) if row["step"] <= steps]
    if len(kept) < steps:
        console.print(f"{path}: damaged; the rows of steps {len(kept) + 1} to {steps} are lost", markup=False)
    with whole_file(path) as unfinished:
        unfinished.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
