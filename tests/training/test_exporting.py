"""Weights of a run in every form: loaded back without mmalign they draw the same, and what does not is said."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmalign.cli.main import main
from mmalign.errors import ConfigError, MmalignError
from mmalign.training.exporting import BAR, export, largest_difference


def test_outputs_of_other_shapes_or_without_a_number_are_not_equal() -> None:
    one = {"0": torch.zeros(2)}
    assert largest_difference(one, {"0": torch.zeros(3)}) == float("inf")
    assert largest_difference(one, {"1": torch.zeros(2)}) == float("inf")
    assert largest_difference(one, {"0": torch.tensor([0.0, float("nan")])}) == float("inf")
    assert largest_difference(one, {"0": torch.tensor([0.25, -0.5])}) == 0.5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short real run."""
    folder = tmp_path_factory.mktemp("export") / "run"
    options = (
        "--train.steps 3 --train.batch-size 4 --train.micro-batch-size 4 --train.learning-rate 0.01 --evaluation.n 4 "
        "--evaluation.every 0 --sampling.steps 2 --method.own.prompts 4 --method.own.group-size 2 "
        "--method.own.pairs-per-prompt 1"
    )
    assert main(["align", "image/flow_dpo", "--out", str(folder), *options.split()]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", ["diffusers", "peft", "merged"])
def test_every_form_draws_the_same_without_mmalign(run: Path, tmp_path: Path, form: Any) -> None:
    made = export(run, form, tmp_path / "out", samples=2)
    assert made.samples == 2
    assert made.largest <= BAR
    assert (tmp_path / "out" / "README.md").is_file()
    with pytest.raises(ConfigError, match="exists already"):
        export(run, form, tmp_path / "out")


@pytest.mark.slow
def test_weights_that_load_to_something_else_are_found(run: Path, tmp_path: Path) -> None:
    """The comparison can fail: samples that the run's own weights draw, against weights that were spoiled."""
    from mmalign.training import exporting

    export(run, "diffusers", tmp_path / "out", samples=0)
    file = tmp_path / "out" / "pytorch_lora_weights.safetensors"
    save_file({name: 3 * tensor for name, tensor in load_file(file).items()}, file)
    row = json.loads((run / "samples" / "after" / "metadata.jsonl").read_text().splitlines()[0])
    call = {name: value for name, value in row.items() if name not in exporting.NOT_OPTIONS}
    call |= {"prompt": row["prompt"], "seed": row["seed"]}
    base = exporting.model_folder("embedded/shapes-flow")
    job = {
        "form": "diffusers",
        "folder": str(tmp_path / "out"),
        "model": base,
        "tokens": False,
        "calls": [call],
    }
    spoiled = exporting._plain_outputs({**job, "component": "transformer"})
    right = exporting._plain_outputs({**job, "component": "transformer", "folder": str(run / "lora")})
    assert largest_difference(spoiled, right) > BAR
    file.unlink()
    with pytest.raises(MmalignError, match="could not be loaded back without mmalign"):
        exporting._plain_outputs({**job, "component": "transformer"})


@pytest.mark.slow
def test_a_run_without_a_lora_is_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    shutil.rmtree(other / "lora")
    with pytest.raises(ConfigError, match="this run has no weights"):
        export(other, "peft", tmp_path / "out")
