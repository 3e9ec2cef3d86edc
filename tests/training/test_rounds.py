"""Small alignments in rounds: what each leaves, that all rounds are trained on, and that a killed one resumes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmalign.data.pairs import read_pairs
from mmalign.errors import ConfigError
from mmalign.methods.configs import D3POConfig, DiffusionDPOConfig, FlowGRPOConfig
from mmalign.training.align import align
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig, load_recipe
from mmalign.training.rounds import read_rounds
from tests.training.killing import kill_in

SMALL = Recipe(
    name="image/d3po",
    model="embedded/shapes-diffusion",
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    labels="simulated",
    rounds=2,
    pairs_per_round=3,
    method=D3POConfig(rollout_steps=3),
    train=TrainConfig(
        steps=2, batch_size=4, micro_batch_size=4, checkpoint_every=1, learning_rate=1e-3, lora_rank=2
    ),
    sampling=SamplingConfig(steps=2, guidance=1.0, batch_size=4),
    evaluation=EvaluationConfig(n=4, every=2, glance=2),
)


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return align(SMALL, tmp_path_factory.mktemp("rounds"))


def test_every_round_leaves_samples_labels_and_a_measurement(finished: Path) -> None:
    rounds = read_rounds(finished)
    assert [(row["round"], row["step"], row["asked"], row["simulated"]) for row in rounds] == [
        (1, 2, 3, 3),
        (2, 4, 3, 3),
    ]
    assert [row["step"] for row in metrics(finished)] == [1, 2, 3, 4]
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["rounds"] == rounds
    assert (summary["labels"], summary["steps"], summary["train_reward"]) == ("simulated", 4, None)
    assert rounds[-1]["heldout_reward"] == summary["heldout_reward"]
    assert rounds[0]["heldout_reward"]["before"] == summary["heldout_reward"]["before"]
    # The prompts of a walk through the list, so none of the second round is one of the first.
    prompts = [
        {
            json.loads(line)["prompt"]
            for line in (finished / "labels" / f"round-{k}.jsonl").read_text().splitlines()
        }
        for k in (1, 2)
    ]
    assert [len(found) for found in prompts] == [3, 3]
    assert not prompts[0] & prompts[1]
    assert {pair.chosen.parent.name for pair in read_pairs(finished / "pairs.parquet")} == {
        "round-1",
        "round-2",
    }
    assert load_recipe(str(finished / "recipe.yaml")) == SMALL


def test_the_second_rounds_samples_are_of_the_trained_policy(finished: Path, tmp_path: Path) -> None:
    """The same seed of everything without training between the rounds gives other pictures in the second alone."""
    untrained = replace(SMALL, train=replace(SMALL.train, learning_rate=1e-12))
    other = align(untrained, tmp_path / "run")
    for number, alike in ((1, True), (2, False)):
        ours, theirs = (folder / "samples" / f"round-{number}" / "00000.png" for folder in (finished, other))
        assert (ours.read_bytes() == theirs.read_bytes()) == alike


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        ("round-2", 0),
        pytest.param("loop", 3, marks=pytest.mark.slow),
        pytest.param("after", 0, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_anywhere_ends_as_the_unbroken_one(
    stage: str, step: int, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = kill_in(stage, monkeypatch, file="00003.png", step=step)
    with pytest.raises(killed):
        align(SMALL, tmp_path / "run")
    monkeypatch.undo()
    align(SMALL, tmp_path / "run")
    assert metrics(tmp_path / "run") == metrics(finished)
    assert read_rounds(tmp_path / "run") == read_rounds(finished)


@pytest.mark.slow
def test_a_method_on_pairs_takes_rounds_too_and_a_reward_and_people_share_them(tmp_path: Path) -> None:
    recipe = replace(
        SMALL,
        method=DiffusionDPOConfig(beta=10.0),
        labels="ai+simulated",
        reward=("embedded/shapes-clip",),
        budget=3,
    )
    rounds = read_rounds(align(recipe, tmp_path / "run"))
    assert [row["simulated"] for row in rounds] == [1, 2]
    assert [row["reward"] for row in rounds] == [2, 1]
    names = [path.name for path in (tmp_path / "run" / "samples" / "round-1").glob("*.safetensors")]
    assert sorted(names) == ["latents-00000.safetensors", "latents-00004.safetensors"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "--rounds and --budget belong to --labels"),
        ({"rounds": 0}, "rounds = 0: expected at least 1"),
        ({"method": FlowGRPOConfig()}, "flow_grpo does not learn from pairs of a denoiser's samples"),
        ({"method": D3POConfig(group_size=4)}, "two samples are compared"),
        ({"preferences": Path("pairs.jsonl")}, "--preferences would be ignored"),
        ({"prompts": None}, "give --prompts FILE"),
        ({"labels": "ai"}, "--labels ai: give --reward NAME"),
        ({"heldout_reward": None, "heldout_prompts": None}, "give --heldout-reward NAME"),
        ({"budget": 3}, "--budget N, pairs that people judge beside the reward"),
        ({"labels": "ai+human", "reward": ("placebo",)}, "--budget N"),
        ({"train": TrainConfig(park_encoders=True)}, "park_encoders would be ignored"),
    ],
)
def test_what_rounds_cannot_do_or_would_ignore_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **changes)
