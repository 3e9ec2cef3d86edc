"""Adapts a personal reward to somebody new from a few pairs: its features stay, and how they are mixed is fitted."""

import shutil
from pathlib import Path

import torch
import yaml
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.files import whole_file
from mmalign.losses.linear_reward import bradley_terry_fit
from mmalign.media import Sample, load_media
from mmalign.rewards.base import OK
from mmalign.rewards.cards import CARD, load_reward
from mmalign.rewards.learned import HEAD, KNOWN, LearnedReward
from mmalign.rewards.learned_heads import Heads
from mmalign.training.reward_data import Examples, read_examples
from mmalign.training.reward_training import sealed


@torch.no_grad()
def personal_mix(heads: Heads, gap: Tensor, *, ridge: float = 1.0) -> Tensor:
    """A new person's weights, by member: as far from the average person's as the pairs ask for.

        argmin over w of sum_b -log sigmoid(gap[k, b] . w) + ridge / 2 * |w - mix[k]|^2

    Args:
        heads: with ``mix``, that of the average person.
        gap: [K, B, A], aspects of the chosen samples less those of the rejected ones.
        ridge: above 0; one over the variance between people.

    Returns:
        [K, A]; without a pair the average person's.

    Source: the idea of common reward features is of Barreto et al. 2025, Capturing Individual Human Preferences with
    Reward Features; a normal prior about the
    average person is ours.
    """
    if not gap.shape[1]:
        return heads.mix.clone()
    count = gap.shape[1]
    return torch.stack(
        [
            bradley_terry_fit(each, ridge=ridge / count, centre=mix)
            for each, mix in zip(gap, heads.mix, strict=True)
        ]
    )


def adapt_reward(folder: Path, data: Path, out: Path, *, ridge: float = 1.0) -> int:
    """Write a personal reward of one person.

    Args:
        folder: of a reward that was trained with ``--personal``.
        data: a table of this person's pairs.
        out: the new folder.
        ridge: as of ``personal_mix``.

    Returns:
        How many pairs it was fitted on.

    Raises:
        ConfigError: another kind of reward, or ``out`` is ``folder``.
        DataError: the table cannot be used, or is not of pairs.
    """
    reward = load_reward(str(folder))
    if not isinstance(reward, LearnedReward) or not reward.heads.options.personal:
        raise ConfigError(
            f"'{folder}' mixes no features by person; train it with `mmalign reward train --personal 8`"
        )
    if out.resolve() == folder.resolve():
        raise ConfigError(f"--out {out} is the reward itself; everybody's is needed for the next person")
    examples = read_examples(data)
    if examples.kind != "pairs":
        raise ConfigError(f"a person is known by pairs, and {data} has {examples.kind}")
    if len(examples.aspects) > 1:
        raise ConfigError(f"{data} has pairs of the aspects {', '.join(examples.aspects)}; keep those of one")
    chosen, rejected = (_aspects(reward, examples, side) for side in (examples.first, examples.second))
    usable = ~(chosen - rejected).isnan().any(-1).any(0)
    heads = reward.heads
    heads.mix.copy_(personal_mix(heads, (chosen - rejected)[:, usable], ridge=ridge))
    if (folder / KNOWN).is_file():
        with whole_file(out / KNOWN) as unfinished:
            shutil.copyfile(folder / KNOWN, unfinished)
    card = yaml.safe_load((folder / CARD).read_text(encoding="utf-8"))
    card["source"] = f"{card['source']}; adapted to one person on {int(usable.sum())} pairs of {data.name}"
    card["calibration"] = {}
    sealed(out, {HEAD: heads}, card)
    return int(usable.sum())


def _aspects(reward: LearnedReward, examples: Examples, side: Tensor) -> Tensor:
    """[K, N, A] of one side, NaN where a medium cannot be scored."""
    samples = [
        Sample(examples.prompts[int(prompt)], load_media(examples.media[int(medium)]))
        for prompt, medium in zip(examples.prompt, side, strict=True)
    ]
    heads = reward.heads
    found = torch.full((heads.options.members, len(samples), len(heads.options.aspects)), float("nan"))
    ready = torch.tensor([reward.obstacle(sample) == OK for sample in samples])
    of = [sample for sample, good in zip(samples, ready.tolist(), strict=True) if good]
    if of:
        found[:, ready] = reward.member_aspects(of).float().cpu()
    return found
