"""What a stage was made from: everything that counts changes the key, and neither names nor places do."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmalign.errors import ConfigError, DataError
from mmalign.files import whole_file
from mmalign.methods.configs import FlowDPOConfig, FlowGRPOConfig, OwnPairs
from mmalign.training import identity
from mmalign.training.checkpoint import load_policy, save_checkpoint
from mmalign.training.folder import RunFolder
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig
from mmalign.training.recipe_paths import absolute_reward, with_absolute_paths
from mmalign.training.stage_keys import StageKeys, differences, measured_key, plain, training_key
from mmalign.trust import trusting

OWN = Recipe(
    name="image/flow_dpo",
    model="embedded/shapes-flow",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=FlowDPOConfig(own=OwnPairs(prompts=4, group_size=2)),
)


def changed(old: Recipe, new: Recipe) -> list[str]:
    return [
        line.partition(":")[0] for line in differences(training_key(old, ["a"]), training_key(new, ["a"]))
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling", SamplingConfig(steps=6)),
        ("train", TrainConfig(lora_rank=1)),
        ("train", TrainConfig(lr_schedule="linear")),
        ("method", FlowDPOConfig(own=OwnPairs(prompts=4, group_size=3))),
        ("reward", ("embedded/shapes-clip:2",)),
        ("reward", ("sharpness",)),
        ("prompts", "embedded/shapes-heldout"),
        ("model", "embedded/shapes-diffusion"),
        ("evaluation", EvaluationConfig(every=5)),
    ],
)
def test_what_is_learnt_from_depends_on(field: str, value: object) -> None:
    assert changed(OWN, replace(OWN, **{field: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "image/mine"),
        ("out", Path("elsewhere")),
        ("evaluation", EvaluationConfig(n=8)),
        ("heldout_reward", "placebo"),
        ("train", TrainConfig(steps=999, micro_batch_size=1, checkpoint_every=3)),
        ("sampling", SamplingConfig(batch_size=1)),
    ],
)
def test_and_not_on(field: str, value: object) -> None:
    assert not changed(OWN, replace(OWN, **{field: value}))  # type: ignore[arg-type]


def test_steps_count_where_the_rate_falls_to_the_last_of_them() -> None:
    falling = replace(OWN, train=TrainConfig(lr_schedule="linear"))
    assert changed(falling, replace(falling, train=TrainConfig(lr_schedule="linear", steps=7))) == [
        "train.steps"
    ]


def test_the_judge_counts_where_it_can_stop_a_run() -> None:
    watched = replace(OWN, evaluation=EvaluationConfig(every=5))
    assert changed(watched, replace(watched, heldout_reward="placebo")) == ["heldout_reward"]
    one, other = training_key(watched, ["a"]), training_key(watched, ["b"])
    assert [line.partition(":")[0] for line in differences(one, other)] == ["prompts of glances"]


@pytest.fixture
def brought(tmp_path: Path) -> Recipe:
    """A recipe on one's own pairs and prompts, as files of a folder."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("good.png", "bad.png"):
        (folder / name).write_bytes(name.encode())
    (folder / "pairs.jsonl").write_text(
        json.dumps({"prompt": "a", "chosen": "good.png", "rejected": "bad.png"}) + "\n"
    )
    (folder / "prompts.txt").write_text("a\nb\n")
    return Recipe(
        name="image/flow_dpo",
        model="embedded/shapes-flow",
        preferences=folder / "pairs.jsonl",
        prompts=str(folder / "prompts.txt"),
        method=FlowDPOConfig(),
    )


def test_contents_of_files_count_and_not_where_they_lie(brought: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(folder, tmp_path / "moved")
    moved = replace(
        brought,
        preferences=tmp_path / "moved" / "pairs.jsonl",
        prompts=str(tmp_path / "moved" / "prompts.txt"),
    )
    assert not changed(brought, moved)
    (tmp_path / "moved" / "bad.png").write_bytes(b"another")
    assert changed(brought, moved) == ["preferences"]
    (tmp_path / "moved" / "prompts.txt").write_text("a\nc\n")
    assert changed(brought, moved) == ["preferences", "prompts"]


def test_steps_of_samples_count_only_for_those_who_draw(brought: Recipe) -> None:
    other = replace(brought, sampling=SamplingConfig(steps=2, guidance=1.0))
    assert not changed(brought, other)
    assert changed(brought, replace(brought, sampling=SamplingConfig(height=32))) == ["sampling.height"]
    online = replace(OWN, method=FlowGRPOConfig())
    assert changed(online, replace(online, sampling=SamplingConfig(guidance=1.0))) == ["sampling.guidance"]
    base, fewer = (measured_key(r, ["a"], [1], r.sampling) for r in (brought, other))
    assert base != fewer
    assert measured_key(brought, ["a"], [2], brought.sampling) != base
    assert measured_key(brought, ["a"], [1], brought.sampling, weights="w") != base


def test_a_rewards_weights_are_part_of_it(tmp_path: Path) -> None:
    from mmalign.resources import resource

    card = (resource("reward_models") / "embedded" / "shapes-clip.yaml").read_text()
    found = []
    for name, spoil in (("one", False), ("two", False), ("three", True)):
        weights = tmp_path / name / "weights"
        shutil.copytree(resource("assets") / "shapes-clip", weights)
        if spoil:
            file = max(weights.glob("*.safetensors"))
            raw = bytearray(file.read_bytes())
            raw[-1] ^= 1
            file.write_bytes(raw)
        lines = [f"weights: {weights}" if line.startswith("weights:") else line for line in card.splitlines()]
        (tmp_path / name / "card.yaml").write_text("\n".join(lines))
        found.append(identity.of_reward(str(tmp_path / name)))
    assert found[0] == found[1] != found[2]


def test_large_files_differ_where_their_blocks_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "WHOLE_BYTES", 8)
    monkeypatch.setattr(identity, "BLOCKS", 3)
    monkeypatch.setattr(identity, "BLOCK_BYTES", 2)
    file = tmp_path / "weights"
    found = set()
    for at in (None, 0, 6, 7, 11):
        raw = bytearray(12)
        if at is not None:
            raw[at] = 1
        file.write_bytes(raw)
        found.add(identity.of_file(file))
    file.write_bytes(bytes(13))
    assert len(found | {identity.of_file(file)}) == 6 - 1  # byte 7 is in no block: 0-1, 5-6, 10-11


def test_weights_are_told_apart_to_the_last_bit() -> None:
    one = torch.tensor([1.0, 2.0])
    other = torch.nextafter(one, torch.tensor(3.0))
    assert identity.of_tensors({"a": one}) == identity.of_tensors({"a": one.clone()})
    assert (
        len({identity.of_tensors(t) for t in ({"a": one}, {"a": other}, {"b": one}, {"a": one[None]})}) == 4
    )


def test_a_stage_without_a_key_is_not_gone_on_with(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    with pytest.raises(
        ConfigError, match="nothing says what this run's samples and checkpoints were made from"
    ):
        StageKeys(run).check_training({"train.seed": 0})


def test_keys_are_kept_and_what_was_measured_otherwise_goes(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    keys = StageKeys(run)
    keys.begin_measuring("before", {"evaluation.n": 2})
    keys.begin_training({"train.seed": 0})
    with whole_file(run.samples / "before" / "metadata.jsonl") as unfinished:
        unfinished.write_text("{}\n")
    again = StageKeys(run)
    again.begin_measuring("before", {"evaluation.n": 2})
    assert (run.samples / "before" / "metadata.jsonl").exists()
    assert again.digests() == keys.digests()
    again.begin_measuring("before", {"evaluation.n": 3})
    assert not (run.samples / "before").exists()
    with pytest.raises(ConfigError, match=r"train\.seed: 0 -> 1\. Put that back in recipe\.yaml"):
        StageKeys(run).begin_training({"train.seed": 1})
    (tmp_path / "made_from.json").write_text("[]")
    with pytest.raises(DataError, match="not what mmalign writes"):
        StageKeys(run)


def test_keys_come_back_from_their_file_as_they_were() -> None:
    for key in (training_key(OWN, ["a"]), measured_key(OWN, ["a"], [1], OWN.sampling)):
        assert differences(plain(key), key) == []


def test_weights_of_another_rank_are_refused_and_never_broadcast(tmp_path: Path) -> None:
    one = {"lora_A": torch.nn.Parameter(torch.ones(1, 3))}
    optimizer = torch.optim.AdamW(one.values())
    save_checkpoint(tmp_path, 1, one, optimizer)
    four = {"lora_A": torch.nn.Parameter(torch.zeros(4, 3))}
    with pytest.raises(ConfigError, match=r"lora_A is \[1, 3\], expected \[4, 3\]"):
        load_policy(tmp_path, four)
    assert not four["lora_A"].any()


def test_a_recipe_names_its_files_from_anywhere(
    brought: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "card.yaml").write_text("target: x\n")
    monkeypatch.chdir(tmp_path)
    relative = replace(brought, preferences=Path("mine/pairs.jsonl"), prompts="mine/prompts.txt")
    assert with_absolute_paths(relative) == brought
    assert with_absolute_paths(OWN) == OWN
    here = os.fspath(tmp_path)
    for text in ("judge", "judge:0.5", "judge@worst-case", "./judge"):
        rest = text.removeprefix("./").removeprefix("judge")
        assert absolute_reward(text) == f"{here}/judge{rest}"
    assert absolute_reward("placebo:2") == "placebo:2"


def test_what_is_still_to_be_fetched_is_compared_once_it_is_here(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    StageKeys(run).begin_training({"model": "a", "reward r": "b x 1", "train.seed": 0})
    StageKeys(run).check_training({"model": identity.UNKNOWN, "reward r": "unknown x 1", "train.seed": 0})
    with pytest.raises(ConfigError, match=r"otherwise: train\.seed: 0 -> 1\. Put"):
        StageKeys(run).check_training({"model": identity.UNKNOWN, "reward r": "unknown x 1", "train.seed": 1})
    with pytest.raises(ConfigError, match=r"model: a -> c"):
        StageKeys(run).check_training({"model": "c", "reward r": "b x 1", "train.seed": 0})


def test_the_code_of_ones_own_reward_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.yaml").write_text(
        "target: own_redness:Redness\nmodalities: [image]\nunit: x\nhigher_is_better: true\n"
        "differentiable: false\nsource: a test\n"
    )
    found = []
    for text in ("1", "2", "1"):
        (tmp_path / "own_redness.py").write_text(f"raise RuntimeError({text})  # nobody runs this\n")
        with trusting([str(tmp_path / "own.yaml")]):
            found.append(identity.of_reward(str(tmp_path / "own.yaml")))
    assert found[0] == found[2] != found[1]
