"""What each stage of a run was made from, and the one rule of what happens when that has changed.

``made_from.json`` of a run holds a key for each stage: the settings and the contents of all that its files depend on.
When a run goes on, each key is compared with what the recipe says now:

- The same key: what is there is kept.
- What was *measured* (held-out samples and scores) under another key is deleted and made anew, with a word.
- What was *learnt from* (own samples, pairs, labels, checkpoints) under another key is never mixed with what comes: the
  run is refused with the difference. More steps of a constant learning rate, and more rounds, are no difference: they
  go on from what is there.

Settings of speed and memory alone are in no key. Versions of other packages are noted, and a change of them is said.
"""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmalign.data.pairs import read_pairs
from mmalign.data.prompts import read_prompts
from mmalign.data.ratings import read_demonstrations
from mmalign.errors import ConfigError, DataError
from mmalign.files import whole_file
from mmalign.processes import Processes
from mmalign.rewards.cards import parse_weighted
from mmalign.training.folder import RunFolder
from mmalign.training.identity import UNKNOWN, digest, of_model, of_reward, of_samples, of_table
from mmalign.training.progress import console
from mmalign.training.recipe import Recipe, SamplingConfig, to_values
from mmalign.training.versions import versions

FILE = "made_from.json"
Key = dict[str, Any]
"""A flat table of settings, and of digests of contents."""
TRAINING = "training"
"""The stage of all that the policy learns from, and of the policy."""
LABELS_ALONE = ("name", "out")
"""Fields that say what a run is called."""
SPEED_ALONE = (
    "sampling.batch_size",
    "train.checkpoint_every",
    "train.gradient_checkpointing",
    "train.micro_batch_size",
    "train.park_encoders",
)
"""Fields of speed and memory, which change no number beyond rounding."""
CONTENTS = (
    "demonstrations", "heldout_prompts", "heldout_reward", "model", "preferences", "prompts", "ratings", "reward"
)  # fmt: skip
"""Fields that name something whose contents count, wherever it lies."""
OF_STEPS = ("guidance", "steps", "temperature", "top_k", "top_p")
"""Sampling options that matter only to who draws."""


# --- keys -------------------------------------------------------------------------------------------------------------


def measured_key(
    recipe: Recipe,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: SamplingConfig,
    *,
    weights: str | None = None,
) -> Key:
    """What held-out samples are made from; scores are computed from them each time.

    Args:
        recipe: whose model.
        prompts: that are drawn.
        seeds: of them.
        sampling: the options of this side.
        weights: digest of the policy's; None for the base.
    """
    drawn = {f"sampling.{name}": value for name, value in to_values(sampling).items()}
    return {
        "mmalign": versions()["mmalign"],
        "model": of_model(recipe.model),
        **{name: value for name, value in drawn.items() if name not in SPEED_ALONE},
        "evaluation.n": len(prompts),
        "heldout_prompts": of_samples(prompts, seeds),
        **({} if weights is None else {"weights": weights}),
    }


def training_key(recipe: Recipe, glanced: Sequence[str]) -> Key:
    """What own samples, labels and checkpoints are made from.

    Args:
        recipe: every field counts that is not known to be without effect.
        glanced: prompts of the glances, whose rewards can stop a run early.

    Raises:
        DataError: a file cannot be read.
    """
    key: Key = {
        name: value
        for name, value in flat(to_values(recipe)).items()
        if name.partition(".")[0] not in (*CONTENTS, *LABELS_ALONE)
        and name not in SPEED_ALONE
        and not name.startswith("evaluation.")
        and name not in _extensible(recipe)
        and not (name.startswith("sampling.") and name.partition(".")[2] in OF_STEPS and not _draws(recipe))
    }
    key["mmalign"], key["model"] = versions()["mmalign"], of_model(recipe.model)
    for text in recipe.reward if recipe.learns_from_reward else ():
        name, weight = parse_weighted(text)
        key[f"reward {name}"] = f"{of_reward(name)} x {weight:g}"
    key |= _files(recipe)
    if recipe.evaluation.every or recipe.labels:
        key |= {f"evaluation.{name}": getattr(recipe.evaluation, name) for name in ("every", "glance")}
        key["prompts of glances"] = digest(list(glanced))
        if recipe.heldout_reward is not None:
            key["heldout_reward"] = of_reward(recipe.heldout_reward)
    if recipe.labels:  # rounds.jsonl has held-out figures of every round
        key["evaluation.n"] = recipe.evaluation.n
    return key


def _files(recipe: Recipe) -> Key:
    """Digests of prompts and of tables with their media, by field."""
    key: Key = {} if recipe.prompts is None else {"prompts": digest(read_prompts(recipe.prompts))}
    if recipe.preferences is not None:
        media = [path for pair in read_pairs(recipe.preferences) for path in (pair.chosen, pair.rejected)]
        key["preferences"] = of_table(recipe.preferences, media)
    for name in ("ratings", "demonstrations"):
        table = getattr(recipe, name)
        if table is not None:
            key[name] = of_table(table, [rating.sample for rating in read_demonstrations(table)])
    return key


def _draws(recipe: Recipe) -> bool:
    """Whether training, or a glance that can stop it, looks at samples drawn by the recipe's sampling options."""
    given = recipe.preferences or recipe.ratings or recipe.demonstrations
    return given is None or recipe.method.draws or recipe.evaluation.every > 0


def _extensible(recipe: Recipe) -> tuple[str, ...]:
    """Fields of which more goes on from what is there."""
    if recipe.train.lr_schedule != "constant":
        return ()
    if recipe.labels is None:
        return ("train.steps",)
    return () if recipe.budget is not None else ("rounds",)  # a budget is shared among all rounds


def flat(values: Mapping[str, Any], place: str = "") -> Key:
    """Nested values by dotted names.

    >>> flat({"train": {"steps": 2}, "model": "m"})
    {'train.steps': 2, 'model': 'm'}
    """
    found: Key = {}
    for name, value in values.items():
        found |= flat(value, f"{place}{name}.") if isinstance(value, Mapping) else {f"{place}{name}": value}
    return found


def _only(key: Key, names: Collection[str]) -> Key:
    return {name: value for name, value in key.items() if name in names}


def plain(key: Key) -> Key:
    """A key as it comes back from its file."""
    values: Key = json.loads(json.dumps(key))
    return values


def differences(old: Key, new: Key) -> list[str]:
    """What differs between two keys, in words.

    >>> differences({"train.seed": 0, "model": "a"}, {"train.seed": 1, "model": "a", "ratings": "b"})
    ['ratings: none -> b', 'train.seed: 0 -> 1']
    """

    def said(value: Any) -> str:
        return "none" if value is None else str(value)

    names = sorted(old.keys() | new.keys())
    return [
        f"{name}: {said(old.get(name))} -> {said(new.get(name))}"
        for name in names
        if old.get(name) != new.get(name)
    ]


# --- the file ---------------------------------------------------------------------------------------------------------


class StageKeys:
    """The keys of a run's stages, as ``made_from.json`` holds them.

    Args:
        run: whose stages.

    Raises:
        DataError: the file is broken.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run, self.path = run, run.path / FILE
        self.stages: dict[str, Key] = {}
        self.versions = versions()
        if self.path.is_file():
            try:
                found = json.loads(self.path.read_text(encoding="utf-8"))
                self.stages, self.versions = dict(found["stages"]), dict(found["versions"])
            except (ValueError, KeyError, TypeError):
                raise DataError("not what mmalign writes; start a new run", file=self.path) from None

    def check_training(self, key: Key) -> None:
        """Refuse to go on with what was learnt from something else; what is not on this machine yet is not compared.

        Raises:
            ConfigError: with the difference.
        """
        learnt = [self.run.checkpoints, self.run.samples / "training", self.run.samples / "round-1"]
        old = self.stages.get(TRAINING)
        if old is None and any(path.exists() for path in learnt):
            raise ConfigError(
                f"{self.run.path}: nothing says what this run's samples and checkpoints were made from ({FILE} is "
                f"missing or older than they are); start a new run with: mmalign align {self.run.recipe}"
            )
        known = {name for name, value in key.items() if UNKNOWN not in str(value)}
        known |= (old or {}).keys() - key.keys()
        changed = [] if old is None else differences(_only(old, known), _only(plain(key), known))
        if changed:
            raise ConfigError(
                f"{self.run.path}: what this run has learnt from was made otherwise: {'; '.join(changed)}. Put that "
                f"back in recipe.yaml to go on, or start a new run with: mmalign align {self.run.recipe}"
            )

    def begin_training(self, key: Key) -> None:
        """Check, and note what everything from here on is made from."""
        self.check_training(key)
        self._note(TRAINING, plain(key))

    def begin_measuring(self, side: str, key: Key) -> None:
        """Note what held-out samples are made from; those that were made from something else are deleted."""
        folder, old = self.run.samples / side, self.stages.get(side)
        processes = Processes()
        key = plain(key)
        if old != key and folder.exists():
            changed = "; ".join(differences(old, key)) if old is not None else "made by an older version"
            console.print(f"samples/{side} are drawn anew: {changed}")
            processes.wait()  # until all have looked
            if processes.main:
                (folder / "metadata.jsonl").unlink(missing_ok=True)  # what it lists is whole at any time
                shutil.rmtree(folder)
        self._note(side, key)

    def _note(self, stage: str, key: Key) -> None:
        """Keep the key, once nothing is there that was made from another."""
        processes = Processes()
        processes.wait()
        if self.stages.get(stage) == key:
            return
        self.stages[stage] = key
        if processes.main:
            text = json.dumps({"stages": self.stages, "versions": self.versions}, indent=1)
            with whole_file(self.path) as unfinished:
                unfinished.write_text(text + "\n", encoding="utf-8")
        processes.wait()

    def say_other_versions(self) -> None:
        """A word where packages have changed since the run began, since last digits may differ."""
        changed = [line for line in differences(self.versions, versions()) if not line.startswith("mmalign:")]
        if changed:
            console.print(
                f"since this run began: {'; '.join(changed)}; numbers may differ in their last digits"
            )

    def digests(self) -> dict[str, str]:
        """Each stage's key in short, for ``summary.json``."""
        return {stage: digest(key) for stage, key in sorted(self.stages.items())}
