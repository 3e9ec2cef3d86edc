"""Recipes: what they refuse, that every one that ships is whole, and that YAML brings the same back."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from mmalign.data.prompts import read_prompts
from mmalign.errors import ConfigError, DataError, MmalignError, UnknownNameError
from mmalign.methods import METHODS, configs
from mmalign.rewards.cards import find_card, parse_weighted
from mmalign.texts import plain_prompt
from mmalign.training.base_model import fitted, read_base_model, settled
from mmalign.training.recipe import (
    Recipe,
    SamplingConfig,
    TrainConfig,
    load_recipe,
    recipe_files,
    save_recipe,
)

NAMES = list(recipe_files())
PLAIN: dict[str, Any] = {"name": "image/mine", "model": "embedded/shapes-flow"}
REWARDED: dict[str, Any] = {**PLAIN, "reward": ("placebo",), "prompts": "embedded/shapes-train"}


def test_every_method_has_a_recipe() -> None:
    assert len(NAMES) == 38
    assert {load_recipe(name).method.name for name in NAMES} == set(METHODS)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_that_ships_is_whole(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    for text in recipe.reward:
        assert recipe.modality in find_card(parse_weighted(text)[0]).modalities
    if recipe.heldout_reward:
        training, judging = (
            set(map(plain_prompt, read_prompts(str(name))))
            for name in (recipe.prompts, recipe.heldout_prompts)
        )
        assert training
        assert judging
        assert not training & judging
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"method": configs.FlowDPOConfig()},
            "give --preferences FILE, or --reward NAME with --prompts FILE",
        ),
        ({"method": configs.NFTConfig()}, "nothing to learn from: give --reward NAME with --prompts FILE"),
        (
            {"method": configs.FlowDPOConfig(), "ratings": Path("r")},
            "--ratings: flow_dpo does not use it; it takes --preferences",
        ),
        (
            {"method": configs.NFTConfig(), "preferences": Path("p")},
            "--preferences: nft does not use it; it draws its own samples",
        ),
        (
            {"method": configs.RewardDistillationConfig(), "ratings": Path("r")},
            "reward_distillation follows a reward's gradient: give --reward NAME",
        ),
        (
            {"method": configs.FlowDPOConfig(), "preferences": Path("p"), "heldout_reward": "placebo"},
            "heldout_reward and heldout_prompts belong together",
        ),
        (
            {
                **REWARDED,
                "method": configs.NFTConfig(),
                "train": TrainConfig(park_encoders=True),
            },
            "train.park_encoders: nft draws or decodes samples while it trains",
        ),
    ],
)
def test_what_cannot_work_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe(**{**PLAIN, **fields})
    assert message in str(caught.value)


def test_refl_takes_demonstrations_beside_its_reward() -> None:
    recipe = Recipe(**REWARDED, method=configs.ReFLConfig())
    assert replace(recipe, demonstrations=Path("d")).demonstrations == Path("d")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trian": {}}, "no field of the recipe is called 'trian'. Did you mean 'train'?"),
        ({"train": {"step": 3}}, "no field of train is called 'step'. Did you mean 'steps'?"),
        ({"train": {"steps": "many"}}, "train.steps: expected int, got 'many'"),
        ({"train": {"precision": "fp8"}}, "train.precision: expected 'fp32' | 'bf16', got 'fp8'"),
        ({"method": {"name": "flow_dop"}}, "no method is called 'flow_dop'. Did you mean 'flow_dpo'?"),
        ({"method": {"name": "nft", "beta": 1.0}}, "no field of method is called 'beta'"),
        ({"model": None}, "model: expected str, got None"),
    ],
)
def test_mistakes_in_yaml_are_named_with_the_file(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    values = {**REWARDED, "reward": ["placebo"], "method": {"name": "flow_dpo"}, **change}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(MmalignError) as caught:
        load_recipe(str(path))
    assert isinstance(caught.value, DataError)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["guidance", "fps", "duration_s", "temperature", "top_p"])
def test_samplings_numbers_are_finite(name: str) -> None:
    options: dict[str, Any] = {name: float("nan")}
    with pytest.raises(ConfigError, match=f"sampling.{name} = nan: expected a finite number"):
        SamplingConfig(**options)


def test_yaml_reads_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: image/mine\nmodel: embedded/shapes-flow\nreward: [placebo]\nprompts: embedded/shapes-train\n"
        "method: {name: flow_dpo, beta: 5}\ntrain: {learning_rate: 1e-4}\n"
    )
    recipe = load_recipe(str(path))
    assert recipe.train.learning_rate == 1e-4
    assert isinstance(recipe.method, configs.FlowDPOConfig)
    assert recipe.method.beta == 5.0


def test_the_medium_is_a_field_and_the_name_is_free(tmp_path: Path) -> None:
    recipe = Recipe(**{**REWARDED, "name": "mine", "modality": "image"}, method=configs.NFTConfig())
    assert (recipe.modality, recipe.title) == ("image", "mine")
    nameless = Recipe(**{**REWARDED, "name": "", "modality": "image"}, method=configs.NFTConfig())
    assert nameless.title == "image/nft"
    with pytest.raises(ConfigError, match="modality = '': say what the model makes, one of image, video"):
        Recipe(**{**REWARDED, "name": "mine"}, method=configs.NFTConfig())
    with pytest.raises(ConfigError, match="modality = 'movie': say what the model makes"):
        Recipe(**{**REWARDED, "modality": "movie"}, method=configs.NFTConfig())


def test_a_recipe_of_before_has_its_medium_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    save_recipe(load_recipe("video/nft"), path)
    values = yaml.safe_load(path.read_text())
    del values["modality"]
    path.write_text(yaml.safe_dump(values))
    assert load_recipe(str(path)) == load_recipe("video/nft")
    path.write_text(yaml.safe_dump({**values, "name": "mine"}))
    with pytest.raises(ConfigError, match="say what the model makes"):
        load_recipe(str(path))


@pytest.mark.parametrize("ending", ["py", "yaml"])
def test_a_recipe_without_a_name_gets_its_files(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"night.{ending}"
    shipped = recipe_files()["image/nft"].read_text()
    if ending == "py":
        path.write_text(shipped)
    else:
        path.write_text(
            "modality: image\nmodel: embedded/shapes-flow\nreward: [placebo]\nprompts: embedded/shapes-train\n"
            "method: {name: nft}\n"
        )
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.modality) == ("night", "image")


EMBEDDED = [name for name in NAMES if load_recipe(name).model.startswith("embedded/")]


def test_most_recipes_are_of_embedded_models() -> None:
    assert len(EMBEDDED) > 30


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_belongs_to_an_embedded_model_is_with_it_and_as_it_was(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.sampling == SamplingConfig(batch_size=recipe.sampling.batch_size)
    drawn = settled(recipe).sampling
    assert (drawn.steps, drawn.guidance) == ((None, 1.0) if recipe.method.on_tokens else (16, 1.0))
    longest = {"embedded/shapes-flow": 1, "embedded/shapes-views": 1, "embedded/shapes-video": 16}
    options = read_base_model(recipe.model).options
    assert options.get("max_sequence_length") == longest.get(recipe.model)


def test_a_model_of_ones_own_inherits_nothing_of_the_embedded_one(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    recipe = settled(replace(load_recipe("image/flow_dpo"), model=str(tmp_path)))
    assert recipe.sampling == SamplingConfig(steps=28, guidance=None, batch_size=32)
    guided, unguided = SimpleNamespace(guidance_name="guidance_scale"), SimpleNamespace(guidance_name=None)
    assert fitted(recipe, guided).sampling.guidance == 4.5
    assert fitted(recipe, unguided).sampling.guidance == 1
    (tmp_path / "options.json").write_text('{"sampling": {"steps": 4}}')
    assert settled(replace(recipe, sampling=SamplingConfig())).sampling.steps == 4
    whole = fitted(recipe, guided)
    assert settled(whole) is fitted(whole, unguided) is whole


def test_files_that_hold_no_recipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(DataError, match=r"expected a module with recipe = Recipe"):
        load_recipe(str(tmp_path / "empty.py"))
    with pytest.raises(DataError, match="expected the fields of a recipe"):
        load_recipe(str(tmp_path / "list.yaml"))
    with pytest.raises(DataError, match="no such recipe file"):
        load_recipe(str(tmp_path / "nothing.yaml"))
    with pytest.raises(UnknownNameError, match="Did you mean 'image/flow_grpo'"):
        load_recipe("image/flow_gpro")
