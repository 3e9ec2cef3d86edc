"""What differs between classes that generate media tokens: how frames of tokens go in, and how logits come out.

A frame is one instant of every codebook. A step is one call of the model; a delay pattern lets codebook k lag behind,
so that step s holds its frame s - delay[k]. Everything else (sampling, likelihoods, guidance) is the same for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.errors import ConfigError, ShapeError

IGNORED = -1
"""In tokens [B, T, K]: no token stands here. It has no likelihood, and what follows it in its codebook has none."""
ATTENTION_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj")
Arguments = dict[str, Tensor]


class Cursor(ABC):
    """A row of model calls that draws one sequence after another token, for B samples at once."""

    @abstractmethod
    def next(self, last: Tensor | None) -> Tensor:
        """Logits [B, G, V] of the next group of codebooks, given the tokens [B, G] of the last; None at the start."""


class TokenLayout(ABC):
    """A family of classes.

    Args:
        model: of that family.
    """

    trained: tuple[str, ...] = ("",)
    """Prefixes of the modules whose attention gets the LoRA; the rest (text encoder, codec) stays as it is."""
    delays: tuple[int, ...]
    """Steps that each codebook lags."""
    vocabulary: int
    """V, entries of each codebook's logits."""
    sequential: bool = False
    """Whether a frame's codebooks see one another: then each is a group of its own, else all are one group."""
    before: int = 0
    """What a lagging codebook is fed before its first frame."""
    after: int = 0
    """What is fed after the last."""
    eos: int | None = None
    """The token of the first codebook that ends a sample; None where samples have a fixed length."""
    frames: int | None = None
    """T, where the class draws no more."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def codebooks(self) -> int:
        """K."""
        return len(self.delays)

    @property
    def groups(self) -> list[range]:
        """Codebooks that one call predicts together."""
        K = self.codebooks
        return [range(k, k + 1) for k in range(K)] if self.sequential else [range(K)]

    def allowed(self) -> Tensor:
        """[K, V], True on what a codebook may hold: codes, and in the first one also what ends a sample."""
        allowed = torch.ones(self.codebooks, self.vocabulary, dtype=torch.bool)
        if self.eos is not None:
            allowed[:, self.eos :] = False
            allowed[0, self.eos] = True
        return allowed

    def ends(self, frame: Tensor) -> Tensor:
        """[B], which of the frames [B, K] are the last of their sample."""
        return frame[:, 0] == self.eos if self.eos is not None else frame.new_zeros(len(frame)).bool()

    def filled(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T, K] as they are fed: an end is one for every codebook, what is ignored is padding."""
        filling = torch.full_like(tokens[..., :1], self.after)
        if self.eos is not None:
            filling = torch.where(tokens[..., :1] == self.eos, self.eos, filling)
        return torch.where(tokens == IGNORED, filling, tokens)

    @abstractmethod
    def conditional(self, prompts: Sequence[Sequence[int]]) -> Arguments:
        """What the model is given for prompts of token ids."""

    @abstractmethod
    def unconditional(
        self, prompts: Sequence[Sequence[int]], conditional: Arguments, *, negative: Sequence[int]
    ) -> Arguments:
        """What the other branch of guidance is given.

        Raises:
            ConfigError: the family has no such branch.
        """

    @abstractmethod
    def steps(self, inputs: Tensor, arguments: Arguments) -> Tensor:
        """Logits [B, S, K, V] of the steps [B, S, K], each given those before it; gradient flows."""

    @abstractmethod
    def cursor(self, arguments: Arguments) -> Cursor:
        """Draws step by step, keeping keys and values."""


class Recomputed(Cursor):
    """Draws step by step and keeps nothing: slow, and right by definition."""

    def __init__(self, layout: TokenLayout, arguments: Arguments) -> None:
        self.layout, self.arguments = layout, arguments
        self.groups: list[Tensor] = []

    def next(self, last: Tensor | None) -> Tensor:
        """From all steps so far."""
        if last is not None:
            self.groups.append(last)
        count = len(self.layout.groups)
        done, open_ = divmod(len(self.groups), count)
        rows = [torch.cat(self.groups[i * count : (i + 1) * count], 1) for i in range(done)]
        batch = len(next(iter(self.arguments.values())))
        frame = torch.zeros(batch, self.layout.codebooks, dtype=torch.long, device=self.layout.model.device)
        for group, tokens in zip(self.layout.groups[:open_], self.groups[done * count :], strict=True):
            frame[:, group.start : group.stop] = tokens
        logits = self.layout.steps(torch.stack([*rows, frame], 1), self.arguments)[:, -1]
        group = self.layout.groups[open_]
        return logits[:, group.start : group.stop]


def delayed(frames: Tensor, delays: Sequence[int], *, before: int, after: int) -> Tensor:
    """Frames as steps: codebook k lags by its delay.

    Args:
        frames: [B, T, K].
        delays: K, in steps.
        before: fills what a codebook has not begun.
        after: fills what it has ended.

    Returns:
        [B, T + max(delays), K].

    >>> delayed(torch.tensor([[[1, 3], [2, 4]]]), [0, 1], before=8, after=9)[0].T
    tensor([[1, 2, 9],
            [8, 3, 4]])
    """
    T = frames.shape[1]
    steps = frames.new_full((len(frames), T + max(delays), frames.shape[2]), after)
    for k, delay in enumerate(delays):
        steps[:, :delay, k] = before
        steps[:, delay : delay + T, k] = frames[:, :, k]
    return steps


def undelayed(steps: Tensor, delays: Sequence[int]) -> Tensor:
    """Steps [B, S, K, ...] as frames [B, S - max(delays), K, ...]; undoes ``delayed``."""
    T = steps.shape[1] - max(delays)
    return torch.stack([steps[:, delay : delay + T, k] for k, delay in enumerate(delays)], 2)


def padded(prompts: Sequence[Sequence[int]], *, left: bool, device: Any) -> tuple[Tensor, Tensor]:
    """Token ids [B, P] of prompts of different lengths, and where there is one [B, P].

    Raises:
        ConfigError: a prompt has no token.
    """
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ConfigError(
                "a prompt has no token at all; give the generator a template with a begin token, or write one"
            )
        place = slice(longest - len(prompt), longest) if left else slice(len(prompt))
        ids[row, place], mask[row, place] = torch.tensor(prompt), 1
    return ids.to(device), mask.to(device)


def check_tokens(tokens: Tensor, layout: TokenLayout) -> Tensor:
    """[B, T, K], True where there is a token.

    Args:
        tokens: [B, T, K], integers from 0 to V - 1, or ``IGNORED`` from the end of a sample on.
        layout: of the model.

    Raises:
        ShapeError: not [B, T, K] of integers, or more frames than the class draws.
        ConfigError: a token lies outside its codebook, or follows the end.
    """
    K = layout.codebooks
    if tokens.ndim != 3 or tokens.shape[2] != K or tokens.is_floating_point():
        raise ShapeError(
            f"tokens: expected integers [B, T, {K}], got {tokens.dtype} {list(tokens.shape)}; frames lie in the middle"
        )
    if layout.frames is not None and tokens.shape[1] > layout.frames:
        raise ShapeError(f"tokens: expected at most {layout.frames} frames, got {tokens.shape[1]}")
    mask = tokens != IGNORED
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ConfigError(f"tokens: a token follows {IGNORED}, which ends a sample; pad on the right")
    wrong = (
        mask
        & ~layout.allowed().to(tokens.device)[
            torch.arange(K, device=tokens.device), tokens.clamp(0, layout.vocabulary - 1)
        ]
    )
    wrong |= mask & ((tokens < 0) | (tokens >= layout.vocabulary))
    if wrong.any():
        b, t, k = wrong.nonzero()[0].tolist()
        raise ConfigError(
            f"tokens: sample {b}, frame {t}: codebook {k} holds no {int(tokens[b, t, k])}; "
            f"pad with {IGNORED} where a sample has ended"
        )
    return mask


def lora_targets(layout: TokenLayout) -> list[str]:
    """Full names of the attention projections of what is trained.

    Raises:
        ConfigError: the class names its layers otherwise.
    """
    found = [
        name
        for name, module in layout.model.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith(layout.trained)
        and name.rpartition(".")[2] in ATTENTION_LINEARS
    ]
    if not found:
        raise ConfigError(
            f"{type(layout.model).__name__} has no linear layer called {', '.join(ATTENTION_LINEARS)}; "
            "there is nothing to attach a LoRA to"
        )
    return found


def stack_tokens(samples: Sequence[Tensor], *, frames: int | None = None) -> Tensor:
    """Tokens [T, K] or [B, T, K] of different lengths as one [N, frames, K], ignored past their end.

    Args:
        samples: as they are.
        frames: the longest of them if not given; longer ones are not cut.

    >>> stack_tokens([torch.tensor([[1], [2]]), torch.tensor([[3]])])[..., 0]
    tensor([[ 1,  2],
            [ 3, -1]])
    """
    T = max([frames or 0, *(sample.shape[-2] for sample in samples)])
    padded = [nn.functional.pad(s, (0, 0, 0, T - s.shape[-2]), value=IGNORED) for s in samples]
    return torch.cat([s if s.ndim == 3 else s[None] for s in padded])
