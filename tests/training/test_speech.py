"""A whole small alignment run of a token model: its folder, its tokens, its resumption, and what it refuses."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from mmalign.adapters.loading import load_adapter, model_folder
from mmalign.cli.main import main
from mmalign.errors import ConfigError
from mmalign.generators.lora_files import read_lora
from mmalign.generators.token_layouts import IGNORED
from mmalign.media import Speech
from mmalign.methods.configs import (
    FlowDPOConfig,
    OwnPairs,
    OwnSamples,
    TokenDPOConfig,
    TokenRewardDistillationConfig,
)
from mmalign.training.align import align
from mmalign.training.drawn import read_drawn
from mmalign.training.estimate import estimate
from mmalign.training.exporting import BAR, export
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig, load_recipe
from mmalign.training.sources import encode_files
from tests.training.killing import kill_in

SMALL = Recipe(
    name="speech/flow_dpo",
    model="embedded/commands",
    reward=("embedded/commands-asr",),
    heldout_reward="commands-truth",
    prompts="embedded/commands-train",
    heldout_prompts="embedded/commands-heldout",
    method=TokenDPOConfig(own=OwnPairs(prompts=3, group_size=2)),
    train=TrainConfig(steps=4, batch_size=3, micro_batch_size=2, checkpoint_every=2, learning_rate=1e-3),
    sampling=SamplingConfig(steps=None, guidance=1.0, temperature=0.9, frames=30, batch_size=4),
    evaluation=EvaluationConfig(n=6, every=2, glance=2),
)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return {k: v for k, v in values.items() if k not in ("wall_s", "peak_rss_mb", "denoiser_passes")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return align(SMALL, tmp_path_factory.mktemp("run"))


def test_the_run_folder_holds_what_it_promises(finished: Path) -> None:
    files = "recipe.yaml pairs.parquet metrics.jsonl summary.json report.html README.md"
    for name in (*files.split(), "lora/adapter_config.json", "samples/after/00000.wav", "samples/after.png"):
        assert (finished / name).exists(), name
    assert rows(finished)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows(finished)[1]["kl"] > rows(finished)[1]["drift"] > 0  # of a whole sample, and of one token
    values = json.loads((finished / "summary.json").read_text())
    assert values["sampling"]["after"] == {"sampler": "tokens", "temperature": 0.9, "frames": 30}
    # 6 held-out samples twice, 6 training samples, 2 glances of 2; the drift of those two: drawn, and both likelihoods;
    # then 4 steps of 3 pairs, two sides, policy and reference, and the check before the first.
    assert values["denoiser_passes"] == 2 * 6 + 6 + 2 * 2 + 2 * 2 * 3 + (4 + 1) * 3 * 4
    assert load_recipe(str(finished / "recipe.yaml")) == SMALL
    report = (finished / "report.html").read_text()
    assert report.count("<audio") >= 4


def test_what_trains_on_own_samples_is_the_tokens_that_made_them(finished: Path) -> None:
    adapter = load_adapter("embedded/commands")
    folder = finished / "samples" / "training"
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    files = [folder / line["file_name"] for line in lines]
    tokens = encode_files(adapter, files)
    again = adapter.tokens(
        [line["prompt"] for line in lines],
        seeds=[line["seed"] for line in lines],
        temperature=0.9,
        frames=30,
        batch_size=4,
    )
    assert torch.equal(tokens, again)
    sound = Speech.load(files[0]).waveform
    assert_close(adapter.decode(tokens[:1])[0].waveform, sound, atol=2e-4, rtol=0)
    # A sound without its tokens is encoded.
    elsewhere = finished / "alone.wav"
    elsewhere.write_bytes(files[0].read_bytes())
    encoded = encode_files(adapter, [elsewhere, files[1]])
    assert torch.equal(encoded[0][encoded[0] != IGNORED], adapter.encode([Speech.load(elsewhere)])[0, :, 0])
    assert torch.equal(encoded[1][encoded[1] != IGNORED], tokens[1][tokens[1] != IGNORED])
    assert list(read_drawn(adapter, [files[1]])) == [files[1]]


def test_tokens_of_another_model_are_not_taken_for_this_ones(finished: Path, tmp_path: Path) -> None:
    adapter = load_adapter("embedded/commands")
    folder = finished / "samples" / "training"
    row = json.loads((folder / "metadata.jsonl").read_text().splitlines()[0])
    file = tmp_path / row["file_name"]
    file.write_bytes((folder / row["file_name"]).read_bytes())
    for wrong in ([[(code + 1) % 100] for (code,) in row["tokens"]], [[999_999]]):
        (tmp_path / "metadata.jsonl").write_text(json.dumps({**row, "tokens": wrong}) + "\n")
        with pytest.warns(UserWarning, match="do not make its files by this model"):
            assert not read_drawn(adapter, [file])


def test_the_lora_loads_in_plain_transformers(finished: Path) -> None:
    adapter = load_adapter("embedded/commands")
    base = adapter.generator.model
    plain = AutoModelForCausalLM.from_pretrained(model_folder("embedded/commands"), dtype=torch.float32)
    ids = torch.arange(20, 30)[None]
    assert_close(plain(ids).logits, base(ids).logits)
    plain.load_adapter(finished / "lora")
    adapter.load_lora(finished / "lora")
    with torch.no_grad():
        assert_close(plain(ids).logits, adapter.generator.model(ids).logits)
        with adapter.generator.weights("reference"):
            assert not torch.allclose(plain(ids).logits, adapter.generator.model(ids).logits, atol=1e-4)


@pytest.mark.parametrize("stage", ["training", "loop", "after"])
def test_a_run_killed_anywhere_ends_as_the_unbroken_one(
    stage: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = kill_in(stage, monkeypatch, file="00005.wav", step=3)
    with pytest.raises(killed):
        align(SMALL, tmp_path / "run")
    monkeypatch.undo()
    align(SMALL, tmp_path / "run")
    assert rows(tmp_path / "run") == rows(finished)
    assert summary(tmp_path / "run") == summary(finished)


def test_distillation_writes_a_student_of_half_the_layers(tmp_path: Path) -> None:
    method = TokenRewardDistillationConfig(
        group_size=2, teacher_steps=1, own=OwnSamples(prompts=3, group_size=2)
    )
    train = TrainConfig(steps=2, batch_size=4, micro_batch_size=4, learning_rate=1e-3)
    recipe = replace(SMALL, name="speech/reward_distillation", method=method, train=train)
    run = align(replace(recipe, evaluation=EvaluationConfig(n=2)), tmp_path / "run")
    student = load_adapter(str(run / "student"), modality="speech")
    teacher = load_adapter("embedded/commands")
    depth = [a.generator.model.config.num_hidden_layers for a in (student, teacher)]
    assert depth[0] * 2 == depth[1]
    line = json.loads((run / "samples" / "after" / "metadata.jsonl").read_text().splitlines()[0])
    tokens = student.tokens([line["prompt"]], seeds=[line["seed"]], temperature=0.9, frames=30)
    assert tokens[0].tolist() == line["tokens"]
    assert not (run / "lora").exists()


def test_settings_that_a_token_model_would_ignore_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sampling\.steps would be ignored"):
        align(replace(SMALL, sampling=replace(SMALL.sampling, steps=4)), tmp_path / "steps")
    with pytest.raises(
        ConfigError, match="flow_dpo learns from latents, and 'embedded/commands' makes tokens"
    ):
        align(replace(SMALL, method=FlowDPOConfig(), sampling=SamplingConfig()), tmp_path / "method")
    image = load_recipe("image/flow_dpo")
    with pytest.raises(
        ConfigError, match="token_dpo learns from tokens, and 'embedded/shapes-flow' makes latents"
    ):
        align(replace(image, method=TokenDPOConfig()), tmp_path / "model")


def test_an_estimate_counts_what_a_run_spends(finished: Path) -> None:
    found = estimate(SMALL)
    counted = found["denoiser_passes"]
    assert counted["held-out samples, before and after"] == 12
    assert counted["training samples"] == 6
    assert counted["training, forward and backward"] == counted["training, forward only"] == 4 * 6
    assert (
        found["memory_mb"]["activations of a micro-batch"]
        > found["memory_mb"]["LoRA, its gradient and moments"]
        > 0
    )


def test_runs_of_token_models_merge(finished: Path, tmp_path: Path) -> None:
    assert main(["merge", str(finished), "--share", "0.5", "--out", str(tmp_path / "half")]) == 0
    (_, whole), (_, half) = read_lora(finished / "lora"), read_lora(tmp_path / "half")
    assert whole.keys() == half.keys()
    for name, (down, up) in whole.items():
        assert_close(half[name][1] @ half[name][0], 0.5 * up @ down)
    config = json.loads((tmp_path / "half" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"] == 16


@pytest.mark.slow
def test_runs_of_token_models_compare_and_over_optimise(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(finished, tmp_path / "other")
    assert main(["compare", str(finished), str(other), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][1]["difference"]["gain"] == 0.0
    drawn = finished / "samples" / "training"
    lines = [json.loads(line) for line in (drawn / "metadata.jsonl").read_text().splitlines()]
    table = tmp_path / "many.jsonl"  # three samples of each of two prompts, for a best of 1, 2 and 3
    listed = [
        {"media": str(drawn / line["file_name"]), "prompt": lines[3 * (k // 3)]["prompt"]}
        for k, line in enumerate(lines)
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in listed))
    command = ["reward", "overoptimise", str(table), "--out", str(tmp_path / "o.json"), "--resamples", "20"]
    command += ["--proxy", "embedded/commands-asr", "--true", "commands-truth"]
    assert main([*command, "--run", str(finished), "--implicit"]) == 0
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["samples"] == 6
    kl = [row["kl"] for row in rows(finished) if "kl" in row]
    assert found["training"]["proxy"]["distance"] == pytest.approx([math.sqrt(value) for value in kl])
    assert found["training"]["distance_is"] == "distance, sqrt(KL in nats)"
    assert found["training"]["true"]["law"] == "direct"
    assert found["implicit"]["implicit"]["n"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("form", ["peft", "merged"])
def test_runs_of_token_models_export(form: Any, finished: Path, tmp_path: Path) -> None:
    made = export(finished, form, tmp_path / "out", samples=2)
    assert made.samples == 2
    assert made.largest <= BAR
    with pytest.raises(ConfigError, match="take --to peft or merged"):
        export(finished, "diffusers", tmp_path / "other")
