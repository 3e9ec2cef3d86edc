"""A whole small alignment run on the embedded generator: its folder, its resumption, its accumulation of gradients."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmalign.errors import ConfigError, NonFiniteError
from mmalign.methods.configs import FlowDPOConfig, OwnPairs
from mmalign.training.align import align, load_for_training
from mmalign.training.base_model import settled
from mmalign.training.memory import tile_vae
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig, load_recipe
from tests.training.killing import kill_in

SMALL = Recipe(
    name="image/flow_dpo",
    model="embedded/shapes-flow",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=FlowDPOConfig(own=OwnPairs(prompts=4, group_size=2)),
    train=TrainConfig(steps=4, batch_size=3, micro_batch_size=2, checkpoint_every=2, learning_rate=1e-3),
    sampling=SamplingConfig(steps=2, guidance=2.0, max_sequence_length=1, batch_size=4),
    evaluation=EvaluationConfig(n=8, every=2, glance=2),
)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return {k: v for k, v in values.items() if k not in ("wall_s", "peak_rss_mb")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return align(SMALL, tmp_path_factory.mktemp("run"))


def test_the_run_folder_holds_what_it_promises(finished: Path) -> None:
    files = "recipe.yaml pairs.parquet metrics.jsonl summary.json report.html README.md samples/after.png"
    lora = "lora/pytorch_lora_weights.safetensors"
    for name in (*files.split(), lora, "samples/before.png", "checkpoints/step-000004"):
        assert (finished / name).exists(), name
    latents = sorted(path.parent.name for path in finished.glob("samples/*/latents-*.safetensors"))
    assert set(latents) == {"training"}  # what is only looked at needs none
    assert [row["step"] for row in rows(finished)] == [1, 2, 3, 4]
    assert rows(finished)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    values = summary(finished)
    assert values["heldout_reward"]["n"] == 8
    assert (
        values["heldout_reward"]["ci95"][0]
        <= values["heldout_reward"]["gain"]
        <= values["heldout_reward"]["ci95"][1]
    )
    # 8 held-out samples twice, 8 training samples, 2 glances of 2: each 2 steps of 2 branches; the drift of those two
    # from the reference; then 4 steps of 3 pairs, two sides, policy and reference, and the check before the first.
    assert values["denoiser_passes"] == (16 + 8 + 4) * 4 + 2 * 2 * 2 + (4 + 1) * 3 * 4
    assert load_recipe(str(finished / "recipe.yaml")) == SMALL


@pytest.mark.parametrize("stage", ["before", "training", "loop", "after"])
def test_a_run_killed_anywhere_ends_as_the_unbroken_one(
    stage: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = kill_in(stage, monkeypatch, file="00006.png", step=3)
    with pytest.raises(killed):
        align(SMALL, tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()
    monkeypatch.undo()
    align(SMALL, tmp_path / "run")
    assert rows(tmp_path / "run") == rows(finished)
    again, whole = summary(tmp_path / "run"), summary(finished)
    for values in (again, whole):
        values.pop("denoiser_passes")  # the check before the first step may be done twice
    assert again == whole


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_is_that_of_the_frozen_weights_and_trained_ones_stay_fp32(precision: str) -> None:
    recipe = settled(replace(SMALL, train=replace(SMALL.train, precision=precision)))  # type: ignore[arg-type]
    generator = load_for_training(recipe).generator
    parameters = dict(generator.policy.named_parameters())
    trained = {p.dtype for p in parameters.values() if p.requires_grad}
    frozen = {
        p.dtype for p in (*parameters.values(), *generator.pipeline.vae.parameters()) if not p.requires_grad
    }
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert (trained, frozen) == ({torch.float32}, {wanted})


def test_tiles_of_a_vae_that_has_none_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sampling\.vae_tiling would be ignored: Linear has no tiles"):
        tile_vae(SimpleNamespace(vae=torch.nn.Linear(1, 1)))
    with pytest.raises(ConfigError, match="this pipeline has no VAE"):
        tile_vae(SimpleNamespace())


def test_micro_batches_give_the_gradient_of_the_whole_batch(finished: Path, tmp_path: Path) -> None:
    whole = replace(
        SMALL, train=replace(SMALL.train, micro_batch_size=3), evaluation=EvaluationConfig(n=2, every=0)
    )
    align(whole, tmp_path / "whole")
    # The first step only: Adam's first update is nearly the sign of the gradient, which magnifies rounding.
    ours, theirs = rows(tmp_path / "whole")[0], rows(finished)[0]
    for name in ("loss", "margin", "grad_norm"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-7)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmalign.methods.flow_dpo import FlowDPO

    real = FlowDPO.loss

    def broken(self, batch):
        loss, metrics = real(self, batch)
        return (loss * float("nan") if loss.requires_grad else loss), metrics

    monkeypatch.setattr(FlowDPO, "loss", broken)
    with pytest.raises(NonFiniteError, match="step 0: the loss is nan; nothing was applied"):
        align(replace(SMALL, evaluation=EvaluationConfig(n=2)), tmp_path / "run")


def test_a_gradient_that_is_not_finite_is_named() -> None:
    from mmalign.training.guards import clip_gradients

    good, bad = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    good.grad, bad.grad = torch.ones(2), torch.tensor([1.0, float("inf")])
    with pytest.raises(NonFiniteError, match=r"step 7: the gradient is not finite, first in block\.1"):
        clip_gradients({"block.0": good, "block.1": bad}, 1.0, step=7)


def test_a_policy_that_is_not_its_reference_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmalign.generators.denoising import DenoisingGenerator

    attach = DenoisingGenerator.attach_lora

    def moved(self, **options) -> None:
        attach(self, **options)
        for name, parameter in self.policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.5)

    monkeypatch.setattr(DenoisingGenerator, "attach_lora", moved)
    with pytest.raises(ConfigError, match="policy and reference differ"):
        align(replace(SMALL, evaluation=EvaluationConfig(n=2)), tmp_path / "run")
