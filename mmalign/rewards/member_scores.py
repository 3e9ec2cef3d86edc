"""What each member of a reward says of many files, which are read a batch at a time."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from mmalign.errors import DataError
from mmalign.media import Sample
from mmalign.rewards.ahead import Loadable
from mmalign.rewards.base import EnsembleReward, Reward
from mmalign.rewards.groups import refuse_comparing
from mmalign.rewards.scoring import score_safely


def score_members_of(
    files: Sequence[Loadable], reward: Reward, *, batch_size: int = 32
) -> tuple[Tensor, list[str]]:
    """Scores of every member, the higher the better, and why there is none.

    Args:
        files: n.
        reward: one without members counts as its own only one.
        batch_size: files per call.

    Returns:
        [E, n], NaN where there is no score, negated where a lower score is the better one; and n times "ok" or why
        not.
    """
    refuse_comparing(reward, "files are scored in batches that may part them; take what it is made of")
    sign = reward.card.sign
    parts, status = [torch.zeros(1, 0)], []
    with ThreadPoolExecutor(2, "read") as readers:
        for start in range(0, len(files), batch_size):
            batch = list(readers.map(_loaded, files[start : start + batch_size]))
            ready = [sample for sample, _ in batch if sample is not None]
            if isinstance(reward, EnsembleReward):
                members, score = reward.score_members(ready)
            else:
                score = score_safely(reward, ready)
                members = score.value[None]
            said, values = iter(score.status), iter(sign * members.float().cpu().T)
            nothing = torch.full((len(members),), math.nan)
            rows = []
            for sample, fault in batch:
                status.append(fault if sample is None else next(said))
                rows.append(nothing if sample is None else next(values))
            parts.append(torch.stack(rows, 1))
    most = max(len(part) for part in parts)
    return torch.cat([part.expand(most, -1) for part in parts], 1), status


def _loaded(file: Loadable) -> tuple[Sample | None, str]:
    try:
        return file.load(), ""
    except DataError as error:
        return None, " ".join(str(error).splitlines())
