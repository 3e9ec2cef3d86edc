"""Alignment in rounds: draw pairs with the policy as it is, have them judged, train on all pairs so far, measure.

Every stage of a round leaves its files and is passed over where they are there already, so that an interrupted run goes
on where it was and ends as the unbroken one.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmalign.data.pairs import Pair, write_pairs
from mmalign.errors import ConfigError
from mmalign.files import whole_file
from mmalign.generators.conditioning import concatenate
from mmalign.generators.rollout import begin, rollout
from mmalign.methods import load_method
from mmalign.methods.base import Method, Task, epoch_rows, mixed_generator, mixed_seeds
from mmalign.methods.configs import D3POConfig
from mmalign.methods.d3po_labelled import LabelledD3PO, TrajectoryPairs
from mmalign.methods.online import NOISE, STEPS, WINDOW, scale_of
from mmalign.methods.trajectories import random_sampler, random_steps
from mmalign.processes import Processes
from mmalign.rewards.base import Reward
from mmalign.training.checkpoint import load_policy
from mmalign.training.drawn import TRAJECTORY, Draw, Drawn, read_tensors
from mmalign.training.folder import RunFolder
from mmalign.training.judging import Judge, Side, heldout_result
from mmalign.training.labels import (
    Labeller,
    Question,
    by_reward,
    by_reward_and_people,
    by_simulated_people,
    count_choices,
    pairs_of,
    read_answers,
    write_answers,
)
from mmalign.training.loop import train
from mmalign.training.progress import console
from mmalign.training.recipe import Recipe
from mmalign.training.samples import draw_samples, kept, read_samples, write_samples
from mmalign.training.sources import distinct, encode_pairs

ROUNDS = "rounds.jsonl"
"""Of a run: what was asked, answered and measured in each round."""


class Rounds:
    """The rounds of a run.

    Args:
        recipe: with ``labels``.
        run: takes samples, labels and ``rounds.jsonl``.
        task: adapter and prompts.
        judge: measures held-out samples after each round.
        heldout: what simulated people see.
    """

    def __init__(
        self, recipe: Recipe, run: RunFolder, task: Task, judge: Judge, heldout: Reward | None
    ) -> None:
        self.recipe, self.run, self.task, self.judge, self.heldout = recipe, run, task, judge, heldout
        self._file = run.path / ROUNDS
        self._trajectories = isinstance(recipe.method, D3POConfig)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of the rounds that are whole."""
        return read_rounds(self.run.path)

    def train(self, before: Side) -> str | None:
        """All rounds that are left; why it stopped before the last one, or None."""
        policy = self.task.generator.policy
        load_policy(self.run.checkpoints, {n: p for n, p in policy.named_parameters() if p.requires_grad})
        for number in range(len(self.rows) + 1, self.recipe.rounds + 1):
            questions = self.draw(number)
            answers = self.answers(number, questions)
            stopped = train(
                self.method(number),
                self.task.generator,
                replace(self.recipe.train, steps=self.recipe.train.steps * self.recipe.rounds),
                self.run,
                glance=self.judge.glance,
                glance_every=self.recipe.evaluation.every,
                until=self.recipe.train.steps * number,
            )
            self._measure(number, answers, before, stopped)
            if stopped is not None:
                return stopped
        last = self.rows[-1].get("stopped_early")
        return None if last is None else str(last)

    # --- samples ------------------------------------------------------------------------------------------------------

    def draw(self, number: int) -> list[Question]:
        """Two samples by the present policy of each of this round's prompts."""
        count, seed, name = self.recipe.pairs_per_round, self.recipe.train.seed, f"round-{number}"
        rows = epoch_rows(number - 1, size=count, count=len(self.task.prompts), seed=seed)
        prompts = [self.task.prompts[int(row)] for row in rows for _ in range(2)]
        seeds = mixed_seeds(2 * count, seed, STEPS, number)
        title = f"samples of round {number}"
        if isinstance(self.recipe.method, D3POConfig):
            config, folder = self.recipe.method, self.run.samples / name
            noise = dict(
                zip(
                    seeds, [s for s in mixed_seeds(count, seed, NOISE, number) for _ in range(2)], strict=True
                )
            )
            write_samples(
                self.task.adapter,
                folder,
                prompts,
                seeds,
                replace(self.recipe.sampling, steps=config.rollout_steps, guidance=config.guidance),
                title=title,
                after_batch=kept(self.run, self.task.generator, title, len(prompts)),
                draw=self._trajectory_draw(config, noise, number),
            )
            samples = read_samples(folder, self.task.adapter.modality)
        else:
            samples = draw_samples(
                self.task.adapter,
                self.run,
                name,
                prompts,
                seeds,
                self.recipe.sampling,
                weights="policy",
                title=title,
                keep_latents=True,
            )
        return [
            Question(first.prompt, first, second)
            for first, second in zip(samples[::2], samples[1::2], strict=True)
        ]

    def _window(self, config: D3POConfig, number: int) -> range:
        return random_steps(config, mixed_generator(self.recipe.train.seed, WINDOW, number))

    def _trajectory_draw(self, config: D3POConfig, noise: dict[int, int], number: int) -> Draw:
        """Samples of the method's random sampler; the two of a pair begin at one noise, as in D3PO."""
        options = {k: v for k, v in self.task.sampling.items() if k not in ("steps", "guidance")}
        generator = self.task.generator

        def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Drawn:
            start = begin(
                generator,
                prompts,
                seeds=[noise[seed] for seed in seeds],
                steps=config.rollout_steps,
                guidance=scale_of(config.guidance),
                **options,
            )
            drawn = rollout(
                generator,
                start,
                random_sampler(config),
                step_seeds=seeds,
                window=self._window(config, number),
            )
            notes: list[dict[str, Any]] = [
                {"noise_seed": noise[seed], "noise_level": config.noise_level, TRAJECTORY: latents}
                for seed, latents in zip(seeds, drawn.latents.cpu(), strict=True)
            ]
            return self.task.adapter.decode(drawn.clean), notes

        return draw

    # --- labels -------------------------------------------------------------------------------------------------------

    def answers(self, number: int, questions: Sequence[Question]) -> list[Any]:
        """What was said of a round's pairs, asked for where it is not there."""
        path = self._labels(number)
        processes = Processes()
        if processes.main and not path.exists():
            self.run.tell(f"labels of round {number}", 0, len(questions))
            with console.status(f"labels of round {number}"):
                write_answers(path, questions, self._labeller(number)(questions))
        processes.wait()
        answers = read_answers(path, questions)
        if not pairs_of(questions, answers) and number == 1:
            raise ConfigError(
                f"{path}: no preference among {len(answers)} answers; there is nothing to learn"
            )
        return answers

    def _labels(self, number: int) -> Path:
        return self.run.path / "labels" / f"round-{number}.jsonl"

    def _labeller(self, number: int) -> Labeller:
        recipe = self.recipe
        machine, _, people = str(recipe.labels).rpartition("+")
        if people == "ai":
            assert self.task.reward is not None  # see Recipe
            return by_reward(self.task.reward)
        if people == "human":
            from mmalign.training.label_page import by_people

            ask = by_people(
                self._folder(number), self.run.path / "labels" / f"people-{number}.jsonl", seed=number
            )
        else:
            assert self.heldout is not None  # see Recipe
            ask = by_simulated_people(self.heldout, seed=recipe.train.seed, number=number)
        if not machine:
            return ask
        assert self.task.reward is not None
        assert recipe.budget is not None
        share = recipe.budget * number // recipe.rounds - recipe.budget * (number - 1) // recipe.rounds
        return by_reward_and_people(self.task.reward, ask, budget=share)

    def _folder(self, number: int) -> Path:
        return self.run.samples / f"round-{number}"

    # --- training and measuring ---------------------------------------------------------------------------------------

    def method(self, number: int) -> Method:
        """The method on the pairs of all rounds up to this one."""
        pairs: list[Pair] = []
        windows: list[range] = []
        for k in range(1, number + 1):
            samples = read_samples(self._folder(k), self.task.adapter.modality)
            questions = [
                Question(first.prompt, first, second)
                for first, second in zip(samples[::2], samples[1::2], strict=True)
            ]
            found = pairs_of(questions, read_answers(self._labels(k), questions))
            pairs += found
            if isinstance(self.recipe.method, D3POConfig):
                windows += [self._window(self.recipe.method, k)] * len(found)
        if Processes().main:
            write_pairs(self.run.pairs, pairs)
        if not isinstance(self.recipe.method, D3POConfig):
            task = replace(self.task, data=encode_pairs(self.task.adapter, pairs, self.recipe))
            method: Method = load_method(self.recipe.method.name)(self.recipe.method, task)
            return method
        return LabelledD3PO(self.recipe.method, self.task, self._kept_trajectories(pairs, windows))

    def _kept_trajectories(self, pairs: Sequence[Pair], windows: Sequence[range]) -> TrajectoryPairs:
        config = self.recipe.method
        assert isinstance(config, D3POConfig)
        found: dict[Path, torch.Tensor] = {}
        for folder in dict.fromkeys(pair.chosen.parent for pair in pairs):
            lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").split("\n")
            found |= read_tensors(folder, [json.loads(line) for line in lines if line], TRAJECTORY)
        texts, index = distinct([pair.prompt for pair in pairs])
        options = {k: v for k, v in self.task.sampling.items() if k not in ("steps", "guidance")}
        guidance = scale_of(config.guidance)
        parts = [
            begin(
                self.task.generator,
                texts[i : i + self.task.draw_batch],
                seeds=[0] * len(texts[i : i + self.task.draw_batch]),
                steps=config.rollout_steps,
                guidance=guidance,
                **options,
            )
            for i in range(0, len(texts), self.task.draw_batch)
        ]
        return TrajectoryPairs(
            torch.stack([found[pair.chosen] for pair in pairs]),
            torch.stack([found[pair.rejected] for pair in pairs]),
            torch.tensor([list(window) for window in windows]),
            parts[0].levels,
            concatenate([part.conditioning for part in parts]),
            index,
        )

    def _measure(self, number: int, answers: Sequence[Any], before: Side, stopped: str | None) -> None:
        last = number == self.recipe.rounds
        side = self.judge.side("after" if last else f"after-round-{number}", self.recipe.sampling)
        row = {
            "round": number,
            "step": self.recipe.train.steps * number,
            **count_choices(answers),
            "heldout_reward": heldout_result(self.recipe, before, side),
            **({} if stopped is None else {"stopped_early": stopped}),
        }
        if Processes().main:
            text = "".join(json.dumps(old, ensure_ascii=False) + "\n" for old in [*self.rows, row])
            with whole_file(self._file) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
        Processes().wait()


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``rounds.jsonl``; none where it has no rounds."""
    path = folder / ROUNDS
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line]
    return rows
