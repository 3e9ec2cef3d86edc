"""Listens to a diffusers pipeline while it runs: what its denoiser was given and said, and what its scheduler did."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Path = tuple[str | int, ...]
"""Where a value lies inside nested arguments: ``("added_cond_kwargs", "time_ids")``."""


@dataclass(frozen=True, eq=False)
class Call:
    """One forward of the denoiser: its arguments by name (cloned) and its prediction, None where it was stopped."""

    arguments: dict[str, Any]
    output: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the scheduler: the guided prediction it was given, and the latents before and after."""

    model_output: Tensor
    timestep: float
    sample: Tensor
    prev_sample: Tensor


@dataclass(eq=False)
class Recording:
    """Everything heard during one run of a pipeline."""

    calls: list[Call] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def calls_per_step(self) -> int:
        """Denoiser calls for each scheduler step: 1, or 2 where guidance makes a second call."""
        return len(self.calls) // max(1, len(self.steps))


@dataclass(frozen=True, eq=False)
class DecoderCall:
    """One call of a VAE's decoder: its latents, and the other tensors it was given by name (cloned)."""

    latents: Tensor
    extra: dict[str, Tensor]


class StoppedError(Exception):
    """Raised inside a pipeline to leave it as soon as its conditioning is known."""


def named_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call under the names of its signature, without those left at None."""
    bound = inspect.signature(function).bind_partial(*args, **kwargs).arguments
    extra = bound.pop("kwargs", {})
    return {name: value for name, value in {**bound, **extra}.items() if value is not None}


def map_tensors(value: Any, change: Callable[[Path, Tensor], Any], path: Path = ()) -> Any:
    """Apply ``change`` to every tensor inside nested dicts, lists and tuples; other values stay as they are."""
    if isinstance(value, Tensor):
        return change(path, value)
    if isinstance(value, dict):
        return {key: map_tensors(item, change, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, change, (*path, i)) for i, item in enumerate(value))
    return value


def tensors(value: Any) -> dict[Path, Tensor]:
    """Every tensor inside nested arguments, by its path."""
    found: dict[Path, Tensor] = {}
    map_tensors(value, lambda path, tensor: found.setdefault(path, tensor))
    return found


def prediction_of(output: Any) -> Tensor:
    """The prediction in what a denoiser returned: a tensor, a tuple's first element, or the one field of an output."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list):
        return prediction_of(output[0])
    return prediction_of(output.sample if hasattr(output, "sample") else next(iter(output.values())))


@contextmanager
def listen(
    pipeline: Any, denoiser: nn.Module, *, stop_at_call: int | None = None, last_step_only: bool = False
) -> Iterator[Recording]:
    """Record a pipeline's run; with ``stop_at_call`` n, leave it when the denoiser is called for the n-th time.

    ``last_step_only`` keeps no call and the newest step, so that a long run takes no more memory than a short one.
    Hooks rather than a replaced ``forward``, so that offloading, compiling and wrapping go on working; a subclass put
    in the scheduler's place rather than a patched method, since some pipelines copy their scheduler before use.
    """
    recording = Recording()

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Cloned, since some pipelines write their latents in place.
        arguments = map_tensors(
            named_arguments(module.forward, args, kwargs), lambda _, t: t.detach().clone()
        )
        recording.calls.append(Call(arguments))
        if len(recording.calls) == stop_at_call:
            raise StoppedError

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        last = recording.calls[-1]
        recording.calls[-1] = Call(last.arguments, prediction_of(output).detach().clone())

    scheduler = pipeline.scheduler
    original = type(scheduler)

    class Recorder(original):  # type: ignore[misc, valid-type]
        @functools.wraps(original.step)
        def step(self, *args: Any, **kwargs: Any) -> Any:
            given = named_arguments(functools.partial(original.step, self), args, kwargs)
            sample, output = given["sample"].detach().clone(), given["model_output"].detach().clone()
            time = float(torch.as_tensor(given["timestep"]).flatten()[0])
            result = super().step(*args, **kwargs)
            after_step = prediction_of(result if isinstance(result, tuple) else result.prev_sample)
            if last_step_only:
                recording.steps.clear()
            recording.steps.append(Step(output, time, sample, after_step.detach().clone()))
            return result

    Recorder.__name__, Recorder.__qualname__ = original.__name__, original.__qualname__
    handles = (
        []
        if last_step_only
        else [
            denoiser.register_forward_pre_hook(before, with_kwargs=True),
            denoiser.register_forward_hook(after, with_kwargs=True),
        ]
    )
    scheduler.__class__ = Recorder
    try:
        yield recording
    except StoppedError:
        pass
    finally:
        scheduler.__class__ = original
        for handle in handles:
            handle.remove()


@contextmanager
def listen_decoder(vae: Any) -> Iterator[list[DecoderCall]]:
    """Record what a VAE decodes inside the block."""
    calls: list[DecoderCall] = []
    decode = vae.decode

    @functools.wraps(decode)
    def recorder(*args: Any, **kwargs: Any) -> Any:
        given = named_arguments(decode, args, kwargs)
        latents, *extra = [(n, v.detach().clone()) for n, v in given.items() if isinstance(v, Tensor)]
        calls.append(DecoderCall(latents[1], dict(extra)))
        return decode(*args, **kwargs)

    replaced = vars(vae).get("decode")
    vae.decode = recorder
    try:
        yield calls
    finally:
        del vae.decode
        if replaced is not None:
            vae.decode = replaced


def run(pipeline: Any, denoiser: nn.Module, **arguments: Any) -> tuple[Recording, Tensor]:
    """Run a pipeline to its end and return what was heard and its output tensor."""
    with listen(pipeline, denoiser) as recording, torch.no_grad():
        output = pipeline(**arguments, return_dict=False)[0]
    return recording, output
