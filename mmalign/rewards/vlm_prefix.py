"""Reads media once for several questions: the keys and values of what the questions share are computed once."""

import os.path
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.rewards.vlm_inputs import parts_of, placeholder
from mmalign.rewards.vlm_judge import Question


def together(questions: Sequence[Question]) -> list[list[int]]:
    """Indices of the questions that hold the same objects as media, in order of their first.

    >>> together([Question((), "a"), Question((), "b")])
    [[0, 1]]
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, question in enumerate(questions):
        groups.setdefault(tuple(map(id, question.media)), []).append(i)
    return list(groups.values())


def common_start(
    texts: Sequence[str], question: Question, processor: Any, *, frames: int | None
) -> int | None:
    """Where rendered chats may be cut: after the last placeholder of a medium, if all are alike up to there.

    Placeholders are special tokens, so a tokenizer never joins one with its neighbours.

    Args:
        texts: n chats about the same media.
        question: one of them, for its media.
        processor: it names the placeholders.
        frames: as in :func:`mmalign.rewards.vlm_inputs.parts_of`.

    Returns:
        A place in the text, None where there is none.
    """
    kinds = [kind for m in question.media for kind, _ in parts_of(m, processor, frames=frames)]
    same = os.path.commonprefix(list(texts))  # noqa: RUF071  (of strings, as it is meant here)
    end = 0
    for kind in set(kinds):
        word = placeholder(processor, kind)
        if word is None or texts[0].count(word) != kinds.count(kind) or same.count(word) != kinds.count(kind):
            return None
        end = max(end, same.rindex(word) + len(word))
    return end or None


def continue_from(
    model: Any, prefix: dict[str, Any], endings: Sequence[str], tokenizer: Any, *, expected: Tensor
) -> Tensor | None:
    """Logits after each ending, from one pass over the beginning that holds the media.

    Args:
        model: causal, with a cache of keys and values.
        prefix: the beginning as the model takes it, one row.
        endings: n texts that follow it.
        tokenizer: of the model.
        expected: [L], token ids of the beginning with the first ending, tokenised in one piece.

    Returns:
        [n, V], or None where the pieces are not the whole: this tokenizer joins what stands beside a placeholder.
    """
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in endings]
    start = prefix["input_ids"][0]
    joined = torch.cat([start, torch.tensor(ids[0], device=start.device)])
    if not torch.equal(joined, expected):
        return None
    cache = model(**prefix, use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(len(ids))
    longest = max(map(len, ids))
    tail = torch.tensor([row + [row[-1]] * (longest - len(row)) for row in ids], device=start.device)
    lengths = torch.tensor([len(row) for row in ids], device=start.device)
    # No mask: one beginning is never padded, and what pads a shorter ending comes after its last token.
    logits = model(input_ids=tail, past_key_values=cache, use_cache=True).logits
    found: Tensor = logits[torch.arange(len(ids), device=start.device), lengths - 1]
    return found
