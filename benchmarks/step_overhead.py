"""How long a training step takes beside the bare denoiser passes it needs.

Every forward of the denoiser that one step makes is recorded: its inputs, whether it carries gradient, and whether it
is the policy's or the reference's. The bare side repeats just these passes, the same module on the same inputs under
the same autocast, with a backward from each one that carries gradient; no loss, no optimiser, no data. Both run in
turns in one process, and the ratio is between the medians of their times.

    uv run python benchmarks/step_overhead.py        # bar: ratio <= 1.15
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from accelerate import Accelerator
from rich.console import Console
from torch import nn

from mmalign.generators import lora
from mmalign.generators.capture import map_tensors, prediction_of
from mmalign.rewards.compose import load_weighted
from mmalign.training.align import load_for_training, make_method, prepare
from mmalign.training.folder import RunFolder
from mmalign.training.loop import one_step
from mmalign.training.recipe import load_recipe

BAR = 1.15
console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured."""

    recipe: str = "image/flow_dpo"
    prompts: int = 8
    rounds: int = 15
    warmup: int = 2


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward of the denoiser as a step made it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    gradient: bool
    reference: bool


def record(policy: nn.Module, step: Callable[[], object]) -> list[Pass]:
    """The passes of one step, in order."""
    passes: list[Pass] = []
    layers = lora.tuner_layers(policy)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        def copy(_: object, t: torch.Tensor) -> torch.Tensor:
            return t.detach().clone().requires_grad_(t.requires_grad)

        passes.append(
            Pass(
                map_tensors(args, copy),
                map_tensors(kwargs, copy),
                torch.is_grad_enabled(),
                layers[0].disable_adapters,
            )
        )

    handle = policy.register_forward_pre_hook(before, with_kwargs=True)
    step()
    handle.remove()
    return passes


def repeat(policy: nn.Module, passes: list[Pass], accelerator: Accelerator) -> None:
    """The same passes and nothing else."""
    layers = lora.tuner_layers(policy)
    for one in passes:
        with torch.set_grad_enabled(one.gradient), accelerator.autocast():
            if one.reference:
                with lora.disabled(layers):
                    policy(*one.args, **one.kwargs)
            else:
                output = prediction_of(policy(*one.args, **one.kwargs))
                if one.gradient:
                    output.float().square().mean().backward()
    policy.zero_grad(set_to_none=True)


def main(settings: Settings) -> int:
    """Measure, print, and fail above the bar."""
    recipe = load_recipe(settings.recipe)
    own = getattr(recipe.method, "own", None)
    if own is not None:
        method_config: Any = recipe.method
        recipe = replace(recipe, method=replace(method_config, own=replace(own, prompts=settings.prompts)))
    adapter = load_for_training(recipe)
    generator = adapter.generator
    with tempfile.TemporaryDirectory() as folder:
        task = prepare(recipe, adapter, load_weighted(recipe.reward))
        method = make_method(recipe, task, RunFolder(Path(folder)))
    accelerator = Accelerator(
        mixed_precision="no" if recipe.train.precision == "fp32" else recipe.train.precision
    )
    parameters = {name: p for name, p in generator.policy.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=recipe.train.learning_rate)
    count = 0

    def step() -> None:
        nonlocal count
        one_step(method, recipe.train, accelerator, parameters, optimizer, step=count)
        count += 1

    passes = record(generator.policy, step)
    times: dict[str, list[float]] = {"bare": [], "step": []}
    sides = {"bare": lambda: repeat(generator.policy, passes, accelerator), "step": step}
    for round_ in range(settings.warmup + settings.rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if round_ >= settings.warmup:
                times[name].append(time.perf_counter() - started)
    bare, ours = (statistics.median(values) for values in times.values())
    ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
    print(
        f"{settings.recipe}, {recipe.train.precision}, {torch.get_num_threads()} threads: {len(passes)} passes, "
        f"bare {bare * 1000:.0f} ms, step {ours * 1000:.0f} ms, ratio {ratio:.3f} (bar {BAR})"
    )
    return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Settings)))
