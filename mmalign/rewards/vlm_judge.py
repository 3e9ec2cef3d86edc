"""What every judge that reads media and words can do, wherever it runs: choose among answers, and write one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media import Media
from mmalign.rewards.base import OK

Words = Sequence[Sequence[str]]
"""K answers, each with the words that mean it."""


@dataclass(frozen=True, eq=False)
class Question:
    """Media, in the order in which they are shown, and what is asked about them.

    Questions that hold the same objects as ``media`` are answered from one reading of them.
    """

    media: tuple[Media, ...]
    text: str


@dataclass(frozen=True, eq=False)
class Choices:
    """How probable each of K answers is to each of N questions.

    Args:
        log_prob: [N, K] in nats, of any of an answer's words being the first word said, among all words there are.
            The most that it can be where an answer is known to be improbable and no more; anything where ``status`` is
            not "ok".
        status: N times "ok", or why this question was not answered.

    Raises:
        ShapeError: the lengths differ.
    """

    log_prob: Tensor
    status: list[str]

    def __post_init__(self) -> None:
        if self.log_prob.ndim != 2 or len(self.log_prob) != len(self.status):
            raise ShapeError(
                f"log_prob: expected [N, K] with N = {len(self.status)}, got {list(self.log_prob.shape)}"
            )


@dataclass(frozen=True)
class Written:
    """An answer in words, empty where ``status`` is not "ok"."""

    text: str
    status: str = OK


class Judge(Protocol):
    """A model that is shown media and asked about them."""

    def objection(self, text: str) -> str:
        """ "ok", or why this text cannot be part of a question."""
        ...

    def choices(self, questions: Sequence[Question], words: Words, *, exact: bool = False) -> Choices:
        """How probable each answer is to each question.

        Args:
            questions: N of them.
            words: K answers.
            exact: only the words as they are spelt; otherwise capitals and a space before them do not matter.
        """
        ...

    def write(self, questions: Sequence[Question], *, max_new_tokens: int) -> list[Written]:
        """One greedy answer to each question."""
        ...
