"""Prompts to tokens and vectors: cut so that the end token stays, embedded once, the first cut one reported."""

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PROMPTS_KEPT = 65_536
"""Embedded prompts are kept up to this many, about 256 MB at 1,024 dimensions."""
CPU_PROMPTS = 4
"""Prompts in one forward pass of the text encoder on the CPU, where more are not much faster."""
LENGTH_STEP = 8
"""Prompts are padded to the next multiple of this, so that those of about the same length share a forward pass."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """B tokenised prompts.

    Args:
        ids: [B, L].
        mask: [B, L], 1 on what the model reads and 0 on the padding behind that it does not.
        cut: B times whether the prompt was longer than the model reads.
    """

    ids: Tensor
    mask: Tensor
    cut: list[bool]


class CutReport:
    """Warns of the first prompt that a model cannot read to its end, once.

    Args:
        name: of the reward.
        context: tokens that the model reads.
    """

    def __init__(self, name: str, *, context: int) -> None:
        self.name, self.context, self.said = name, context, False

    def __call__(self, prompts: Sequence[str], tokens: Tokens) -> None:
        """Say so, if one of these is the first."""
        if self.said or not any(tokens.cut):
            return
        self.said = True
        warnings.warn(
            f"{self.name} reads {self.context} tokens and scores only the beginning of longer prompts, first of "
            f"{sum(tokens.cut)} here: {prompts[tokens.cut.index(True)]!r}"
        )


class HuggingFaceTokenizer:
    """A transformers tokenizer that keeps a long prompt's beginning and its end token.

    Args:
        tokenizer: any transformers tokenizer with a padding token.
        context: tokens that the model reads, with those that begin and end a prompt.
        name: of the reward, for the report of prompts that were cut.
    """

    def __init__(self, tokenizer: Any, *, context: int, name: str) -> None:
        self.tokenizer, self.context = tokenizer, context
        self.report = CutReport(name, context=context)

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Tokens of prompts, padded behind to the longest of them and on to a multiple of ``LENGTH_STEP``."""
        whole: list[list[int]] = self.tokenizer(list(prompts), truncation=False, verbose=False)["input_ids"]
        cut = [len(ids) > self.context for ids in whole]
        kept = [
            [*ids[: self.context - 1], ids[-1]] if long else ids for ids, long in zip(whole, cut, strict=True)
        ]
        length = min(self.context, next_step(max(map(len, kept))))
        padding = self.tokenizer.pad_token_id
        tokens = Tokens(
            torch.tensor([ids + [padding] * (length - len(ids)) for ids in kept]),
            torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in kept]),
            cut,
        )
        self.report(prompts, tokens)
        return tokens


class PromptEmbeddings:
    """Vectors of prompts, each computed once.

    Args:
        tokenize: prompts to tokens.
        encode: tokens to [B, D], in the model's own length.
        device: where the model runs; vectors are kept there.
        batch_size: prompts in one forward pass, but on the CPU ``CPU_PROMPTS``.
    """

    def __init__(
        self,
        tokenize: Callable[[Sequence[str]], Tokens],
        encode: Callable[[Tensor, Tensor], Tensor],
        *,
        device: str = "cpu",
        batch_size: int = 64,
    ) -> None:
        self.tokenize, self.encode, self.device, self.batch_size = tokenize, encode, device, batch_size
        self.kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """[B, D], of length 1."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.kept]
        if new and len(self.kept) + len(new) > PROMPTS_KEPT:
            self.kept, new = {}, list(dict.fromkeys(prompts))
        if new:
            embedded = self._encode(self.tokenize(new))
            self.kept.update(zip(new, torch.nn.functional.normalize(embedded, dim=-1), strict=True))
        return torch.stack([self.kept[prompt] for prompt in prompts])

    def _encode(self, tokens: Tokens) -> Tensor:
        """Vectors [B, D] of tokens."""
        lengths = [next_step(read) for read in tokens.mask.sum(1).tolist()]
        passes = self._passes(lengths)
        parts = []
        for rows in passes:
            ids, mask = (
                part[rows, : lengths[rows[-1]]].to(self.device) for part in (tokens.ids, tokens.mask)
            )
            parts.append(self.encode(ids, mask))
        vectors = torch.cat(parts)
        ordered = vectors.new_empty(len(lengths), vectors.shape[1])
        ordered[[row for rows in passes for row in rows]] = vectors
        return ordered

    def _passes(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which prompts each forward pass takes, shorter ones first, so that little padding is computed.

        On the CPU a product of few rows adds up in another order than one of many. With always as many rows of a length
        that is the prompt's own, a prompt does not depend on which others are new, and a file that was resumed equals
        one that was not, bit for bit. What is lacking is filled with a prompt again.
        """
        rows = sorted(range(len(lengths)), key=lengths.__getitem__)
        if self.device != "cpu":
            return [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        filled = []
        for _, equal in itertools.groupby(rows, key=lengths.__getitem__):
            group = list(equal)
            group += group[-1:] * (-len(group) % CPU_PROMPTS)
            filled += [group[i : i + CPU_PROMPTS] for i in range(0, len(group), CPU_PROMPTS)]
        return filled


def next_step(length: int) -> int:
    """The multiple of ``LENGTH_STEP`` that has room for so many tokens.

    >>> [next_step(length) for length in (7, 8, 9)]
    [8, 8, 16]
    """
    return -(-length // LENGTH_STEP) * LENGTH_STEP
