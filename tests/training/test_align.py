"""A whole small alignment run on the embedded generator: its folder, its resumption, its accumulation of gradients."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmalign.errors import ConfigError, DataError, NonFiniteError
from mmalign.media import Sample
from mmalign.methods.configs import FlowDPOConfig, OwnPairs
from mmalign.resources import resource
from mmalign.training.align import align, load_for_training
from mmalign.training.base_model import settled
from mmalign.training.judging import check_paired
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
    # 8 held-out samples twice, 8 training samples, 2 glances of 2: each 2 steps of 2 branches; of those two the drift
    # from the reference, and the KL along 9 steps of 2 branches, both of policy and reference; then 4 steps of 3 pairs,
    # two sides, policy and reference, and the check before the first.
    glances = 2 * (2 * 2 + 2 * 9 * 2 * 2)
    assert values["denoiser_passes"] == (16 + 8 + 4) * 4 + glances + (4 + 1) * 3 * 4
    assert rows(finished)[1]["kl"] > 0
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
    assert summary(tmp_path / "run") == summary(finished)  # passes too: what was done twice is counted once


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampling": replace(SMALL.sampling, steps=6)}, r"sampling\.steps: 2 -> 6"),
        ({"train": replace(SMALL.train, lora_rank=1)}, r"train\.lora_rank: 16 -> 1"),
        (
            {"reward": ("sharpness",)},
            "reward embedded/shapes-clip: [0-9a-f]{16} x 1 -> none; reward sharpness",
        ),
        ({"heldout_reward": "placebo"}, "heldout_reward"),  # which could have stopped it early
    ],
)
def test_what_was_learnt_otherwise_is_refused_with_the_difference(
    changes: dict[str, Any], said: str, finished: Path
) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=said):
        align(replace(SMALL, **changes), finished)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "moved"))


@pytest.mark.slow
def test_what_is_measured_otherwise_is_measured_anew(finished: Path, copied: Path) -> None:
    align(replace(SMALL, evaluation=replace(SMALL.evaluation, n=6)), copied)
    assert summary(copied)["heldout_reward"]["n"] == 6
    assert rows(copied) == rows(finished)
    for side in ("before", "after"):
        old, new = (
            (run / "samples" / side / "metadata.jsonl").read_text().splitlines() for run in (finished, copied)
        )
        assert new == old[:6]


@pytest.mark.slow
def test_more_steps_go_on_and_fewer_are_refused(copied: Path, tmp_path: Path) -> None:
    longer = replace(SMALL, train=replace(SMALL.train, steps=6))
    align(longer, copied)
    align(longer, tmp_path / "straight")
    assert rows(copied) == rows(tmp_path / "straight")
    again, straight = summary(copied), summary(tmp_path / "straight")
    for values in (again, straight):
        values.pop("denoiser_passes")  # of the samples after the first steps too
    assert again == straight
    with pytest.raises(ConfigError, match=r"train\.steps = 4, but this run has trained 6 steps"):
        align(SMALL, copied)


@pytest.mark.slow
def test_a_run_that_was_moved_goes_on_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files of the same names have other prompts."""
    for place, prompt in (("home", "a small red circle on the left"), ("elsewhere", "a blue star")):
        (tmp_path / place).mkdir()
        for name in ("train.txt", "heldout.txt"):
            (tmp_path / place / name).write_text(f"{prompt}\n{prompt} above\n{prompt} below\n")
    named = replace(
        SMALL,
        prompts="train.txt",
        heldout_prompts="heldout.txt",
        train=replace(SMALL.train, steps=2),
        evaluation=EvaluationConfig(n=4),
    )
    monkeypatch.chdir(tmp_path / "home")
    whole = summary(align(named, Path("whole")))
    moved = tmp_path / "home" / "whole"
    for stage, file, step in (("after", "00002.png", 0), ("training", "00004.png", 0)):
        monkeypatch.chdir(tmp_path / "home")
        killed = kill_in(stage, monkeypatch, file=file, step=step)
        with pytest.raises(killed):
            align(named, Path(stage))
        monkeypatch.undo()
        moved = tmp_path / f"moved-{stage}"
        shutil.move(tmp_path / "home" / stage, moved)
        monkeypatch.chdir(tmp_path / "elsewhere")
        recipe = load_recipe(str(moved / "recipe.yaml"))
        with pytest.raises(ConfigError, match=r"sampling\.steps: 2 -> 5"):
            align(replace(recipe, sampling=replace(SMALL.sampling, steps=5)), moved)
        again = summary(align(recipe, moved))
        monkeypatch.undo()
        assert {**again, "denoiser_passes": 0} == {**whole, "denoiser_passes": 0}
    (tmp_path / "home" / "train.txt").write_text("a blue star\n")
    with pytest.raises(ConfigError, match="prompts: "):
        align(load_recipe(str(moved / "recipe.yaml")), moved)


def test_samples_of_other_prompts_or_seeds_are_no_pair() -> None:
    samples = [Sample("a", meta={"seed": 1}), Sample("b", meta={"seed": 2})]
    check_paired(samples, ["a", "b"], [1, 2], Path("metadata.jsonl"))
    for prompts, seeds in (
        (["a", "c"], [1, 2]),
        (["a", "b"], [1, 3]),
        (["a"], [1]),
        (["a", "b", "c"], [1, 2, 3]),
    ):
        with pytest.raises(DataError, match=r"row [23].*have to be of the same ones"):
            check_paired(samples, prompts, seeds, Path("metadata.jsonl"))


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


def test_a_step_to_infinity_leaves_no_weights(tmp_path: Path) -> None:
    train = replace(SMALL.train, steps=1)
    object.__setattr__(train, "learning_rate", float("inf"))  # whatever its range may be
    with pytest.raises(NonFiniteError, match=r"step 1: after it the weights are not finite, first in .*lora"):
        align(replace(SMALL, train=train, evaluation=EvaluationConfig(n=2, every=0)), tmp_path / "run")
    assert not list(tmp_path.rglob("*policy.safetensors"))
    assert not (tmp_path / "run" / "lora").exists()
    assert rows(tmp_path / "run") == []


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


def test_a_run_of_a_model_whose_files_name_no_guidance_can_be_resumed(tmp_path: Path) -> None:
    """What only the loaded model says is in the saved recipe, and has to be in the key of the stage too."""
    model = tmp_path / "mine"
    shutil.copytree(resource("assets") / "shapes-flow", model)
    (model / "options.json").write_text('{"max_sequence_length": 1}')
    recipe = replace(
        SMALL,
        model=str(model),
        train=replace(SMALL.train, steps=2),
        sampling=SamplingConfig(steps=2, batch_size=4),
        evaluation=EvaluationConfig(n=2),
    )
    run = align(recipe, tmp_path / "run")
    whole = summary(run)
    (run / "summary.json").unlink()
    again = load_recipe(str(run / "recipe.yaml"))
    assert recipe.sampling.guidance is None
    assert again.sampling.guidance == 4.5
    align(again, run)
    assert summary(run) == whole
