"""A run's weights in the form that others load, and the proof that they do: the same outputs by plain libraries."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmalign.adapters.loading import load_adapter, model_folder
from mmalign.errors import ConfigError, DataError, MmalignError
from mmalign.evaluation.model_card import Exported, write_model_card
from mmalign.evaluation.run_folder import Run, read_run
from mmalign.files import whole_folder
from mmalign.generators import lora
from mmalign.generators.tokens import TokenGenerator
from mmalign.locks import holds_something
from mmalign.training import plain_loading
from mmalign.training.recipe import load_recipe
from mmalign.weights import check_finite

Form = Literal["diffusers", "peft", "merged"]
BAR = 1 / 255
"""The largest difference of an output: of a pixel in [0, 1], of sound in [-1, 1], of a token's probability."""
NOT_OPTIONS = ("file_name", "prompt", "seed", "sampler", "latents", "tokens")


@dataclass(frozen=True)
class Export:
    """What was written.

    Args:
        folder: of the weights.
        form: who loads them.
        samples: compared after loading them back; 0 for none.
        largest: difference of an output, NaN where none was compared.
    """

    folder: Path
    form: Form
    samples: int
    largest: float


def export(run_folder: Path, form: Form, out: Path, *, samples: int = 4) -> Export:
    """Write a run's weights and compare outputs of a plain process that loads them with those of the run's own.

    Args:
        run_folder: of a finished run.
        form: "diffusers" for ``pipeline.load_lora_weights(folder)``, "peft" for ``PeftModel.from_pretrained(model,
            folder)``, "merged" for a whole model with the change in its weights.
        out: a new folder.
        samples: held-out samples of the run that are made again on both sides; 0 compares nothing.

    Raises:
        ConfigError: ``out`` is not empty, the run has no LoRA, or its model has no such form.
        MmalignError: what was loaded back gives other outputs, or could not be loaded; the folder is left to look at.
    """
    if out.exists() and holds_something(out):
        raise ConfigError(f"{out} exists already; give another --out")
    run = read_run(run_folder)
    if run.weights not in ("diffusers", "peft"):
        what = "trained a whole model, student/, which loads as it is" if run.weights else "has no weights"
        raise ConfigError(f"{run_folder}: this run {what}; there is no LoRA to export")
    recipe = load_recipe(str(run.folder / "recipe.yaml"))
    adapter = load_adapter(
        recipe.model,
        modality=recipe.modality,
        device="cpu",
        dtype=torch.float32,
        **recipe.sampling.pipeline_options(),
    )
    adapter.load_lora(run.folder / "lora")
    on_tokens = isinstance(adapter.generator, TokenGenerator)
    _check_form(form, adapter, on_tokens=on_tokens)
    calls = _calls(run, adapter, on_tokens=on_tokens)[:samples]
    expected = _outputs(adapter, calls, on_tokens=on_tokens)  # before merging, which changes the weights
    component = None if on_tokens else adapter.generator.component
    with whole_folder(out) as unfinished:
        if form == "merged":
            _write_merged(adapter, unfinished, model=recipe.model)
        elif form == "diffusers" or on_tokens:
            shutil.copytree(run.folder / "lora", unfinished, dirs_exist_ok=True)
        else:
            lora.save_peft(adapter.generator.policy, unfinished)
        shutil.copy(run.folder / "recipe.yaml", unfinished / "recipe.yaml")
        write_model_card(run.folder, export=Exported(unfinished, form, component))
    largest = float("nan")
    if calls:
        job = {
            "form": form,
            "folder": str(out.resolve()),
            "model": model_folder(recipe.model),
            "component": component,
            "tokens": on_tokens,
            "calls": calls,
        }
        largest = largest_difference(expected, _plain_outputs(job))
        if not largest <= BAR:
            raise MmalignError(
                f"{out}: loaded back, outputs differ by {largest:.2g}, more than {BAR:.2g}; do not publish it"
            )
    return Export(out, form, len(calls), largest)


def _check_form(form: Form, adapter: Any, *, on_tokens: bool) -> None:
    if form != "diffusers":
        return
    if on_tokens:
        raise ConfigError(
            "--to diffusers: this is a language model of transformers; take --to peft or merged"
        )
    pipeline = adapter.generator.pipeline
    if not hasattr(pipeline, "load_lora_weights"):
        raise ConfigError(
            f"--to diffusers: {type(pipeline).__name__} has no load_lora_weights; take --to peft or merged"
        )


# --- writing ----------------------------------------------------------------------------------------------------------


def _write_merged(adapter: Any, out: Path, *, model: str) -> None:
    """The whole model as its own class writes it, with what stands beside it in the base's folder."""
    adapter.generator.merge_lora()
    check_finite(adapter.generator.policy.state_dict(), out)
    if isinstance(adapter.generator, TokenGenerator):
        adapter.save(out)
        return
    adapter.generator.pipeline.save_pretrained(out)
    for name in ("options.json", "scene3d.json"):
        beside = Path(model_folder(model)) / name
        if beside.is_file():
            shutil.copy(beside, out / name)


# --- comparing --------------------------------------------------------------------------------------------------------


def _calls(run: Run, adapter: Any, *, on_tokens: bool) -> list[dict[str, Any]]:
    """What is computed on both sides: the run's own samples, drawn again, or their tokens, said again.

    Raises:
        DataError: the run kept no samples.
    """
    if not run.after:
        raise DataError("no samples to compare with; give --samples 0 to leave it out", file=run.folder)
    if not on_tokens:
        return [
            {
                "prompt": row["prompt"],
                "seed": row["seed"],
                **{
                    name: value
                    for name, value in row.items()
                    if name not in NOT_OPTIONS and value is not None
                },
            }
            for row in run.after
        ]
    return [{"ids": adapter.generator.entries(row["prompt"], row.get("tokens", []))} for row in run.after]


def _outputs(adapter: Any, calls: Sequence[Mapping[str, Any]], *, on_tokens: bool) -> dict[str, Tensor]:
    if on_tokens:
        return plain_loading.say(adapter.generator.model, calls)
    return plain_loading.draw(adapter.generator.pipeline, calls)


def _plain_outputs(job: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a process without mmalign computes.

    Raises:
        MmalignError: it failed, with its last line.
    """
    with TemporaryDirectory() as place:
        given, out = Path(place) / "job.json", Path(place) / "out.safetensors"
        given.write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-I", str(plain_loading.__file__), str(given), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise MmalignError(f"{job['folder']}: could not be loaded back without mmalign: {reason}")
        return load_file(out)


def largest_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Of two sets of outputs; infinite where they have other shapes or something is not finite.

    >>> import torch
    >>> largest_difference({"0": torch.zeros(2)}, {"0": torch.tensor([0.0, 0.5])})
    0.5
    """
    if first.keys() != second.keys() or any(first[name].shape != second[name].shape for name in first):
        return float("inf")
    largest = max(float((first[name] - second[name]).abs().max()) for name in first)
    return largest if largest == largest else float("inf")
