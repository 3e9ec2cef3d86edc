"""A whole alignment run: judge the base, gather what to learn from, train, judge again; every stage resumes."""

import resource as process
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmalign.adapters.loading import load_adapter
from mmalign.data.prompts import read_prompts
from mmalign.errors import ConfigError
from mmalign.evaluation.model_card import write_model_card
from mmalign.evaluation.report import write_report
from mmalign.generators.tokens import TokenGenerator
from mmalign.locks import locked_folder
from mmalign.methods import load_method
from mmalign.methods.base import Method, Task
from mmalign.processes import Processes
from mmalign.rewards.cards import load_reward
from mmalign.rewards.compose import WeightedSum, load_weighted
from mmalign.training.base_model import fitted, read_base_model, settled
from mmalign.training.folder import RunFolder, write_json
from mmalign.training.identity import UNKNOWN
from mmalign.training.judging import (
    Judge,
    Side,
    guards_result,
    heldout_result,
    judged_samples,
    train_result,
)
from mmalign.training.loop import train
from mmalign.training.memory import parked, tile_vae
from mmalign.training.preflight import check_model
from mmalign.training.preflight_rewards import check_rewards
from mmalign.training.progress import console
from mmalign.training.recipe import Recipe, SamplingConfig, save_recipe
from mmalign.training.recipe_paths import with_absolute_paths
from mmalign.training.rounds import Rounds, read_rounds
from mmalign.training.sources import given_data, own_data
from mmalign.training.stage_keys import Key, StageKeys, training_key
from mmalign.training.versions import versions

FROZEN = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""What the frozen weights are held in, by ``train.precision``."""


def align(recipe: Recipe, folder: Path) -> Path:
    """Run a recipe in a folder, going on wherever an earlier run in the same folder was stopped.

    Returns:
        The folder, with everything ARCHITECTURE section 4 names.

    Raises:
        LockedError: another process is at work in this folder.
    """
    with locked_folder(folder) if Processes().main else nullcontext():
        return _align(with_absolute_paths(settled(recipe)), folder)


def _align(recipe: Recipe, folder: Path) -> Path:
    check_rewards(recipe)
    run, main = RunFolder(folder), Processes().main
    keys = StageKeys(run)
    key = check_unchanged(recipe, keys)
    if main:
        save_recipe(recipe, run.recipe)
    with console.status(f"loading {recipe.model}"):
        adapter = load_for_training(recipe)
        asked, recipe = recipe, fitted(recipe, adapter.generator)
        if main:
            save_recipe(recipe, run.recipe)
        reward = load_weighted(recipe.reward) if recipe.reward and recipe.learns_from_reward else None
        heldout = load_reward(recipe.heldout_reward) if recipe.heldout_reward else None
    run.forget(adapter.generator.denoiser_passes)
    judge = Judge(recipe, run, adapter, reward, heldout, keys=keys)
    # What a user brings is read before anything long is begun.
    task = prepare(recipe, adapter, reward)
    before = judge.side("before", recipe.sampling)
    judge.remember(before)
    if UNKNOWN in str(key) or recipe != asked:  # what was unknown has been fetched, or said by the model
        key = check_unchanged(recipe, keys)
    keys.begin_training(key)
    if recipe.labels is not None:
        stopped_early = Rounds(recipe, run, task, judge, heldout).train(before)
    else:
        method = make_method(recipe, task, run)
        with parked(adapter, park=recipe.train.park_encoders):
            stopped_early = train(
                method,
                adapter.generator,
                recipe.train,
                run,
                glance=judge.glance,
                glance_every=recipe.evaluation.every,
            )
    if main:
        save_weights(adapter, run)
    after = judge.side("after", student_sampling(recipe))
    before = judge.by_the_final_reward(before)
    summary = summarise(recipe, run, adapter, before, after, keys, stopped_early=stopped_early)
    write_json(run.summary, summary)
    if main:
        with console.status("writing the report"):
            write_report(run.path)
            write_model_card(run.path)
    Processes().finish()
    return run.path


def check_unchanged(recipe: Recipe, keys: StageKeys) -> Key:
    """Before anything is loaded, refuse to go on with a run whose samples and weights were made otherwise.

    Returns:
        What this recipe's samples and weights are made from.

    Raises:
        ConfigError: with the difference.
    """
    prompts, _ = judged_samples(recipe)
    key = training_key(recipe, prompts[: recipe.evaluation.glance])
    keys.check_training(key)
    keys.say_other_versions()
    return key


def load_for_training(recipe: Recipe) -> Any:
    """The adapter with a fresh LoRA, or with a student.

    Raises:
        ConfigError: the method learns from another family of generators, or a setting would be ignored.
    """
    check_model(recipe, read_base_model(recipe.model))
    adapter = load_adapter(
        recipe.model,
        modality=recipe.modality,
        dtype=FROZEN[recipe.train.precision],
        **recipe.sampling.pipeline_options(),
    )
    on_tokens = isinstance(adapter.generator, TokenGenerator)
    if on_tokens and recipe.train.park_encoders:
        raise ConfigError("train.park_encoders would be ignored: a token model has none")
    student_share = getattr(recipe.method, "student_share", None)
    if student_share is None:
        adapter.generator.attach_lora(rank=recipe.train.lora_rank, seed=recipe.train.seed)
    else:
        adapter.generator.attach_student(share=student_share)
    if recipe.train.gradient_checkpointing and on_tokens:
        adapter.generator.policy.gradient_checkpointing_enable()
    elif recipe.train.gradient_checkpointing:
        adapter.generator.policy.enable_gradient_checkpointing()
    if recipe.sampling.vae_tiling:
        tile_vae(adapter.generator.pipeline)
    return adapter


def save_weights(adapter: Any, run: RunFolder) -> None:
    """The LoRA, or the student as a model of its own."""
    if getattr(adapter.generator, "teacher", None) is None:
        adapter.save_lora(run.lora)
    else:
        adapter.save(run.student)


def prepare(recipe: Recipe, adapter: Any, reward: WeightedSum | None) -> Task:
    """What the method works with, as far as the user gave it."""
    return Task(
        adapter,
        data=given_data(recipe, adapter),
        prompts=read_prompts(recipe.prompts) if recipe.prompts else [],
        reward=reward,
        sampling=recipe.sampling.options(),
        draw_batch=recipe.sampling.batch_size,
    )


def make_method(recipe: Recipe, task: Task, run: RunFolder) -> Method:
    """The method, with data of the generator's own samples where it needs some and none were given."""
    if task.data is None and recipe.method.source != "prompts":
        assert task.reward is not None  # see Recipe
        task = replace(task, data=own_data(recipe, task.prompts, run, task.adapter, task.reward))
    method: Method = load_method(recipe.method.name)(recipe.method, task)
    return method


def student_sampling(recipe: Recipe) -> SamplingConfig:
    """How the result is drawn: as the base, or in the few steps that it was distilled to, without guidance."""
    steps = getattr(recipe.method, "student_steps", None)
    return recipe.sampling if steps is None else replace(recipe.sampling, steps=steps, guidance=1.0)


def summarise(
    recipe: Recipe,
    run: RunFolder,
    adapter: Any,
    before: Side,
    after: Side,
    keys: StageKeys,
    *,
    stopped_early: str | None = None,
) -> dict[str, Any]:
    """What ``summary.json`` holds."""
    run.keep(adapter.generator.denoiser_passes, "summary", 0)
    pipeline = None if isinstance(adapter.generator, TokenGenerator) else adapter.generator.pipeline

    def sampler(sampling: SamplingConfig) -> dict[str, Any]:
        if isinstance(adapter.generator, TokenGenerator):
            return {"sampler": "tokens", **adapter.generator.pipeline_options(**sampling.options())}
        name = type(adapter.generator.pipeline.scheduler).__name__
        return {"sampler": name, "steps": sampling.steps, "guidance": sampling.guidance}

    return {
        "recipe": recipe.title,
        "modality": recipe.modality,
        "method": recipe.method.name,
        "model": recipe.model,
        **({"pipeline": type(pipeline).__name__} if pipeline is not None else {}),
        "seed": recipe.train.seed,
        "steps": recipe.train.steps * recipe.rounds,
        **({"labels": recipe.labels, "rounds": read_rounds(run.path)} if recipe.labels else {}),
        **({"stopped_early": stopped_early} if stopped_early else {}),
        "train_reward": train_result(recipe, before, after),
        "heldout_reward": heldout_result(recipe, before, after),
        "sampling": {"before": sampler(recipe.sampling), "after": sampler(student_sampling(recipe))},
        "guards": guards_result(before, after),
        "denoiser_passes": run.denoiser_passes,
        "wall_s": round(run.wall_s, 1),
        "processes": int(Processes().sum(torch.ones((), dtype=torch.int64))),
        "peak_rss_mb": round(process.getrusage(process.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": versions(),
        "made_from": keys.digests(),
    }
