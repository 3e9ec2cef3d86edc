"""All that can be told of a run before a model is loaded: everything that is wrong is said, within seconds.

Imports no torch. What only the loaded model knows, such as a size that its parts cannot take, is checked at load.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mmalign.data.check import plain_prompt
from mmalign.data.pairs import read_pairs
from mmalign.data.prompts import read_prompts
from mmalign.data.ratings import read_demonstrations, read_ratings
from mmalign.errors import ConfigError, DataError, MmalignError
from mmalign.methods.configs.online import GroupConfig, TrajectoryConfig
from mmalign.suffixes import can_hold
from mmalign.training.base_model import BaseModel, read_base_model, settled
from mmalign.training.places import check_new_folder, check_space
from mmalign.training.preflight_rewards import check_rewards
from mmalign.training.recipe import Recipe

T = TypeVar("T")
SAMPLE_BYTES = {"image": 2**20, "scene3d": 2**20, "video": 8 * 2**20, "audio": 2**20, "speech": 2**18}
"""About, of pictures and frames of 768 x 768, some seconds of video and of sound."""
CHECKPOINTS = 6
"""Times the trained weights: those of two checkpoints, each with two moments."""


@dataclass(frozen=True, slots=True)
class Table:
    """What a user's table of media holds, as far as it matters before they are opened."""

    file: Path
    prompts: list[str]
    media: list[tuple[int, str, Path]]
    """Row, column and file of each."""


def preflight(recipe: Recipe, *, folder: Path | None = None) -> Recipe:
    """Check a recipe against the files, rewards and disks that it names.

    Args:
        recipe: as it was read, with options in it.
        folder: of a run that is gone on with; a new one goes where ``out`` says.

    Returns:
        The recipe with what it leaves to its model.

    Raises:
        MmalignError: something is wrong; if several things are, all of them are in one message.
    """
    checks = Checks()
    model = checks.run(lambda: read_base_model(recipe.model))
    if model is not None:
        checks.run(lambda: check_model(recipe, model))
    checks.run(lambda: check_rewards(recipe))
    checks.run(lambda: check_groups(recipe))
    training = checks.run(lambda: read_prompts(str(recipe.prompts))) if recipe.prompts else None
    heldout = (
        checks.run(lambda: read_prompts(str(recipe.heldout_prompts))) if recipe.heldout_prompts else None
    )
    table = checks.run(lambda: read_table(recipe))
    if table is not None:
        checks.run(lambda: check_media(table, recipe))
    if heldout and training:
        checks.run(lambda: check_leaks(training, str(recipe.prompts), heldout, recipe))
    if heldout and table is not None:
        checks.run(lambda: check_leaks(table.prompts, str(table.file), heldout, recipe))
    checks.run(lambda: check_out(recipe, model, folder))
    checks.say()
    return settled(recipe)


class Checks:
    """Runs checks and keeps what they say, so that a person hears of all mistakes at once."""

    def __init__(self) -> None:
        self.faults: list[MmalignError] = []

    def run(self, check: Callable[[], T]) -> T | None:
        """What a check gives, or None where it found a mistake."""
        try:
            return check()
        except MmalignError as fault:
            self.faults.append(fault)
            return None

    def say(self) -> None:
        """Raise what was found.

        Raises:
            MmalignError: the mistake, or several as one.
        """
        if len(self.faults) == 1:
            raise self.faults[0]
        if self.faults:
            lines = [f"  {number}. {fault}" for number, fault in enumerate(self.faults, 1)]
            raise ConfigError("\n".join([f"{len(lines)} things are wrong:", *lines]))


def check_model(recipe: Recipe, model: BaseModel) -> None:
    """Refuse a model of another medium or family than the recipe's.

    Raises:
        ConfigError: with both.
    """
    if model.modality is not None and model.modality != recipe.modality:
        views = recipe.modality == "scene3d" and model.modality == "image"
        way = "a generator of views has a scene3d.json beside it" if views else "take a recipe of that medium"
        raise ConfigError(
            f"model '{model.name}' makes {model.modality}, and this recipe makes {recipe.modality}; {way}"
        )
    if model.on_tokens is not None and model.on_tokens != recipe.method.on_tokens:
        makes, wants = ("tokens", "latents") if model.on_tokens else ("latents", "tokens")
        raise ConfigError(
            f"{recipe.method.name} learns from {wants}, and '{model.name}' makes {makes}; methods of tokens begin "
            "with 'token_'"
        )
    step = getattr(recipe.method, "flow_step", None)
    if model.flow is False and step not in (None, TrajectoryConfig.flow_step):
        raise ConfigError(
            f"method.flow_step = '{step}' would do nothing: '{model.name}' is a diffusion by its scheduler"
        )
    other = {"flow_dpo": (True, "diffusion_dpo"), "diffusion_dpo": (False, "flow_dpo")}.get(
        recipe.method.name
    )
    if other is not None and model.flow is (not other[0]):
        kind = "a rectified flow" if model.flow else "a diffusion"
        raise ConfigError(
            f"{recipe.method.name}: '{model.name}' is {kind} by its scheduler; take method {other[1]}"
        )


def check_groups(recipe: Recipe) -> None:
    """Refuse optimiser steps that hold no whole groups of samples.

    Raises:
        ConfigError: with the two numbers.
    """
    method = recipe.method
    if isinstance(method, GroupConfig) and recipe.labels is None:
        count = recipe.train.batch_size * method.updates_per_rollout
        if count % method.group_size:
            raise ConfigError(
                f"train.batch_size x updates_per_rollout = {count} samples are no whole groups of method.group_size = "
                f"{method.group_size}; make it a multiple"
            )


def read_table(recipe: Recipe) -> Table | None:
    """The user's pairs, ratings or demonstrations, with every row looked at; None where the recipe names none.

    Raises:
        DataError: the file or a row of it cannot be used.
    """
    if recipe.preferences is not None:
        pairs = read_pairs(recipe.preferences)
        media = [
            (row, column, getattr(pair, column))
            for row, pair in enumerate(pairs, 1)
            for column in ("chosen", "rejected")
        ]
        return Table(recipe.preferences, [pair.prompt for pair in pairs], media)
    file = recipe.ratings or recipe.demonstrations
    if file is None:
        return None
    samples = read_ratings(file) if recipe.ratings is not None else read_demonstrations(file)
    return Table(
        file,
        [sample.prompt for sample in samples],
        [(row, "sample", sample.sample) for row, sample in enumerate(samples, 1)],
    )


def check_media(table: Table, recipe: Recipe) -> None:
    """Refuse files that cannot hold the recipe's medium.

    Raises:
        DataError: the first of them, with row and column.
    """
    for row, column, medium in table.media:
        if not can_hold(medium, recipe.modality):
            raise DataError(
                f"{medium.name} is no file of {recipe.modality}, which this recipe makes",
                file=table.file,
                row=row,
                column=column,
            )


def check_leaks(prompts: Sequence[str], source: str, heldout: Sequence[str], recipe: Recipe) -> None:
    """Refuse held-out prompts that training sees: a gain on them would prove nothing. Case and spaces do not count.

    Raises:
        ConfigError: how many, and the first.
    """
    known = {plain_prompt(prompt) for prompt in prompts}
    both = [prompt for prompt in dict.fromkeys(heldout) if plain_prompt(prompt) in known]
    if both:
        raise ConfigError(
            f"{len(both)} of {len(set(heldout))} held-out prompts of {recipe.heldout_prompts} are in {source} too, the "
            f"first is {both[0]!r}; a gain on prompts that were trained on proves nothing; take them out of one file"
        )


def check_out(recipe: Recipe, model: BaseModel | None, folder: Path | None) -> None:
    """Refuse a run folder that is taken or cannot be written, and a disk without room.

    Raises:
        ConfigError: with the way out.
    """
    out = folder or recipe.out or Path("runs") / recipe.title.replace("/", "-")
    if folder is None and recipe.out is not None:
        check_new_folder(out, way_out=f"continue it with --resume {out}, or give another --out")
    elif folder is None:
        check_new_folder(out / "new")
    check_space(out, needed_bytes(recipe, model))


def needed_bytes(recipe: Recipe, model: BaseModel | None) -> int:
    """About what a run writes: samples, its own training samples among them, and checkpoints of its LoRA or student."""
    own = getattr(recipe.method, "own", None)
    count = 2 * recipe.evaluation.n
    if recipe.labels is not None:
        count += recipe.rounds * (2 * recipe.pairs_per_round + recipe.evaluation.n)
    elif own is not None and not (recipe.preferences or recipe.ratings or recipe.demonstrations):
        count += own.prompts * own.group_size
    own_options = {} if model is None else model.options
    height, width = (
        getattr(recipe.sampling, side) or own_options.get(side) or 768 for side in ("height", "width")
    )
    flat = recipe.modality in ("audio", "speech")
    samples = count * SAMPLE_BYTES[recipe.modality] * (1 if flat else height * width / 768**2)
    student = hasattr(recipe.method, "student_share")
    share = 1.0 if student else min(1.0, recipe.train.lora_rank / 512)
    return round(samples + CHECKPOINTS * share * (0 if model is None else model.trained_bytes))
