"""Which tokens of a sample earned its reward: the reward of its beginnings, taken apart."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmalign.generators.token_layouts import IGNORED
from mmalign.methods.base import Task
from mmalign.rewards.segments import segments_to_tokens


def part_ends(length: int, parts: int) -> list[int]:
    """Last tokens of a sample's parts of about equal length, fewer than ``parts`` where it is shorter.

    >>> part_ends(10, 4), part_ends(2, 4)
    ([1, 4, 6, 9], [0, 1])
    """
    return sorted({(k + 1) * length // parts - 1 for k in range(parts)} - {-1})


def prefix_token_rewards(
    task: Task, tokens: Tensor, prompts: Sequence[str], scores: Tensor, *, parts: int
) -> Tensor:
    """What each part of a sample adds to the reward of its beginning, spread over the tokens of the part.

        d[s] = R(beginning up to part s) - R(beginning up to part s - 1),   0 before the first,   R(whole) = scores

    A beginning without a score of its own, as a sound too short to judge, adds nothing.

    Args:
        task: with the reward.
        tokens: [B, T, K], ``IGNORED`` from the end of a sample on.
        prompts: B texts.
        scores: [B], of the whole samples; not asked for again.
        parts: at most so many.

    Returns:
        [B, T * K], each row of sum ``scores``, 0 where there is no token; float64, since the sum is to be kept.

    Source: Li et al. 2024, RED: Unleashing Token-Level Rewards from Holistic Feedback (arXiv:2411.08302); in parts,
    since a decoder is asked once for each. Its first value is that of an empty response, which has no medium here.
    """
    B, T, K = tokens.shape
    frames = (tokens != IGNORED).any(2).sum(1)
    ends = [part_ends(int(count), parts) for count in frames]
    cuts = max((len(row) for row in ends), default=0)
    values = torch.zeros(B, cuts + 1, dtype=torch.float64)
    for cut in range(cuts):
        rows = [i for i in range(B) if cut < len(ends[i]) - 1]
        if rows:
            begun = tokens[rows].clone()
            last = torch.tensor([ends[i][cut] for i in rows], device=tokens.device)
            begun[torch.arange(T, device=tokens.device) > last[:, None]] = IGNORED
            found = task.score(begun, [prompts[i] for i in rows]).double()
            values[rows, cut + 1] = torch.where(found.isnan(), values[rows, cut], found)
        for i in range(B):
            if cut == len(ends[i]) - 1:
                values[i, cut + 1] = scores[i].double()
    there = (tokens != IGNORED).cpu()
    rewards = torch.zeros(B, T, K, dtype=torch.float64)
    for i in range(B):
        if ends[i]:
            spread = segments_to_tokens(values[i, : len(ends[i]) + 1].diff(), ends[i])
            rewards[i, : len(spread)] = spread[:, None]
    # A frame may lack some of its codebooks; the others share what is its own.
    return (rewards * there / there.sum(2, keepdim=True).clamp(min=1)).flatten(1)
