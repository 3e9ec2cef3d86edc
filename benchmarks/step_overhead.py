"""How long a training step takes, and how much memory, beside the bare network passes it needs.

Every pass that the steps of one rollout make is recorded, anew in each turn: forwards of the denoiser with their
inputs, whether they carry gradient and whether they are the policy's or the reference's; decodings; scorings. The bare
side repeats just these, the same modules on the same inputs under the same autocast, with a backward wherever the step
made one; no sampler, no loss, no optimiser, no data. Both sides run in turns in one process, and the ratio of times is
the median over the turns.

Memory is what the allocator had handed out at most, by its own events, during the steps and during the bare passes,
each on top of all weights and the LoRA's gradient and moments.

    uv run python benchmarks/step_overhead.py                      # bars: both ratios <= 1.15, for every image recipe
    uv run python benchmarks/step_overhead.py --recipes image/nft
"""

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mmalign.generators import lora
from mmalign.generators.capture import map_tensors, prediction_of
from mmalign.methods.groups import GroupMethod
from mmalign.rewards.compose import load_weighted
from mmalign.training.align import load_for_training, make_method, prepare
from mmalign.training.folder import RunFolder
from mmalign.training.loop import one_step
from mmalign.training.recipe import load_recipe, recipe_files

BAR = 1.15
console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured."""

    recipes: tuple[str, ...] = ()
    """By default every recipe of the medium that runs on an embedded model."""
    media: tuple[str, ...] = ("image",)
    prompts: int = 8
    rounds: int = 9
    warmup: int = 2


@dataclass(frozen=True, eq=False)
class Pass:
    """One call as a step made it; ``call`` None is a backward through all calls with gradient since the last one."""

    call: Callable[..., Any] | None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    gradient: bool = False
    reference: bool = False


class Recorder:
    """Notes calls of the denoiser, the decoder and the reward, and backward passes, while it is on."""

    def __init__(self, adapter: Any, reward: Any, accelerator: Accelerator) -> None:
        self.policy: nn.Module = adapter.generator.policy
        self.layers = lora.tuner_layers(self.policy)
        self.passes: list[Pass] | None = None
        self.policy.register_forward_pre_hook(self._denoiser, with_kwargs=True)
        self._wrap(adapter.generator, "decode")
        for name in ("score", "score_with_grad") if reward is not None else ():
            self._wrap(reward, name)
        backward = accelerator.backward

        def noted(loss: Tensor) -> None:
            self._note(Pass(None))
            backward(loss)

        accelerator.backward = noted

    def _note(self, one: Pass) -> None:
        if self.passes is not None:
            self.passes.append(one)

    def _denoiser(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.passes is not None:
            off = self.layers[0].disable_adapters
            # A denoiser without gradient in its inputs still has one through its LoRA, except as the reference.
            self._note(
                Pass(
                    self.policy.forward,
                    _kept(args),
                    _kept(kwargs),
                    torch.is_grad_enabled() and (not off or _needs_gradient((args, kwargs))),
                    off,
                )
            )

    def _wrap(self, owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            gradient = torch.is_grad_enabled() and _needs_gradient((args, kwargs))
            self._note(Pass(plain, _kept(args), _kept(kwargs), gradient))
            return plain(*args, **kwargs)

        setattr(owner, name, noted)


def _kept(value: Any) -> Any:
    return map_tensors(value, lambda _, t: t.detach().clone().requires_grad_(t.requires_grad))


def _needs_gradient(value: Any) -> bool:
    found: list[bool] = []
    map_tensors(value, lambda _, t: found.append(t.requires_grad) or t)  # type: ignore[func-returns-value]
    return any(found)


def repeat(recorder: Recorder, passes: list[Pass], accelerator: Accelerator) -> None:
    """The same passes and nothing else."""
    graph: list[Tensor] = []
    for one in passes:
        if one.call is None:
            if graph:
                torch.stack(graph).sum().backward()
            graph = []
            continue
        with torch.set_grad_enabled(one.gradient), accelerator.autocast():
            if one.reference:
                with lora.disabled(recorder.layers):
                    output = one.call(*one.args, **(one.kwargs or {}))
            else:
                output = one.call(*one.args, **(one.kwargs or {}))
            if one.gradient:
                graph.append(prediction_of(output).float().square().mean())
    recorder.policy.zero_grad(set_to_none=True)
    for one in passes:
        map_tensors((one.args, one.kwargs or {}), _without_gradient)


def _without_gradient(_: object, tensor: Tensor) -> Tensor:
    tensor.grad = None
    return tensor


def most_allocated(run: Callable[[], None]) -> int:
    """Bytes that were handed out at most while something ran, beyond what was there before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run()
    now = most = 0
    events = watched.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def measure(name: str, settings: Settings) -> bool:
    """Measure a recipe and print both ratios; whether both are below the bar."""
    recipe = load_recipe(name)
    own = getattr(recipe.method, "own", None)
    if own is not None:
        method_config: Any = recipe.method
        recipe = replace(recipe, method=replace(method_config, own=replace(own, prompts=settings.prompts)))
    adapter = load_for_training(recipe)
    generator = adapter.generator
    reward = load_weighted(recipe.reward)
    accelerator = Accelerator(
        mixed_precision="no" if recipe.train.precision == "fp32" else recipe.train.precision
    )
    with tempfile.TemporaryDirectory() as folder:
        task = prepare(recipe, adapter, reward)
        method = make_method(recipe, task, RunFolder(Path(folder)))
    recorder = Recorder(adapter, reward, accelerator)
    parameters = {name: p for name, p in generator.policy.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=recipe.train.learning_rate)
    count = 0

    def steps() -> None:
        for step in range(count, count + method.steps_per_rollout):
            one_step(method, recipe.train, accelerator, parameters, optimizer, step=step)
            method.after_step(step + 1)

    def record() -> list[Pass]:
        nonlocal count
        count += method.steps_per_rollout
        recorder.passes = []
        steps()
        passes, recorder.passes = recorder.passes, None
        # The same steps again draw the same batch, but for a method that keeps its rollout: it makes the next ones.
        count += method.steps_per_rollout * isinstance(method, GroupMethod)
        return passes

    steps()  # what is measured once in a run is not a step's
    times: dict[str, list[float]] = {"bare": [], "step": []}
    sides: dict[str, Callable[[], None]] = {
        "bare": lambda: repeat(recorder, passes, accelerator),
        "step": steps,
    }
    for round_ in range(settings.warmup + settings.rounds):
        passes = record()
        for side_name, side in sides.items():
            started = time.perf_counter()
            side()
            if round_ >= settings.warmup:
                times[side_name].append(time.perf_counter() - started)
    bare, ours = (statistics.median(values) for values in times.values())
    ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
    modules = [m for m in generator.pipeline.components.values() if isinstance(m, nn.Module)]
    weights = sum(p.numel() * p.element_size() for m in modules for p in m.parameters())
    state = 3 * sum(p.numel() * p.element_size() for p in parameters.values())
    # Gradients are handed out during both sides, so that only the moments are added.
    passes = record()
    memory = {key: weights + state * 2 // 3 + most_allocated(side) for key, side in sides.items()}
    memory_ratio = memory["step"] / memory["bare"]
    print(
        f"| {name} | {recipe.train.precision} | {sum(one.call is not None for one in passes)} | {bare:.2f} s | "
        f"{ours:.2f} s | {ratio:.3f} | {memory['bare'] / 2**20:.0f} MB | {memory['step'] / 2**20:.0f} MB | "
        f"{memory_ratio:.3f} |",
        flush=True,
    )
    return max(ratio, memory_ratio) <= BAR


def main(settings: Settings) -> int:
    """Measure every recipe; 1 where one is above the bar."""
    names = settings.recipes or [
        name
        for name in recipe_files()
        if name.partition("/")[0] in settings.media and load_recipe(name).model.startswith("embedded/")
    ]
    print("| recipe | precision | passes | bare | steps | ratio | bare memory | steps | ratio |")
    print("| --- " * 9 + "|", flush=True)
    return 0 if all([measure(name, settings) for name in names]) else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Settings)))
