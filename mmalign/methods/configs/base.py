"""What settings share: the name of the method, what it learns from, and how it makes that itself."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from mmalign.errors import ConfigError
from mmalign.ranges import COUNT, check_ranges

Source = Literal["pairs", "ratings", "demonstrations", "prompts"]
"""What a method learns from: preference pairs, scored samples, good samples, or prompts that it draws samples of."""


class StepPasses(NamedTuple):
    """Denoiser passes of one optimiser step, in samples: forward alone, and forward and backward."""

    forward: int
    backward: int


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What every method's settings share."""

    name: ClassVar[str]
    """Under which the method is known."""
    source: ClassVar[Source]
    also_takes: ClassVar[tuple[str, ...]] = ()
    """Files that the method can use beside its source: ``demonstrations``, ..."""
    draws: ClassVar[bool] = False
    """Whether it draws or decodes samples while it trains."""
    on_tokens: ClassVar[bool] = False
    """Whether it learns from media tokens; else from latents of a denoiser."""
    needs_gradient: ClassVar[bool] = False
    """Whether the reward has to be differentiable."""

    passes_per_row: ClassVar[int] = 1
    """Samples that go through the model for one row of a micro-batch."""

    def __post_init__(self) -> None:
        check_ranges(self, place="method.")

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """What one optimiser step costs at most; ``guided`` says whether the model has two branches under guidance."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class OwnSamples:
    """The generator's own samples of training prompts, scored by the reward."""

    prompts: Annotated[int, COUNT] = 200
    """How many of the training prompts are drawn, in the order of the file."""
    group_size: Annotated[int, COUNT] = 4
    """G, samples per prompt. Flow-GRPO's repository draws 24."""

    def __post_init__(self) -> None:
        check_ranges(self, place="method.own.")


@dataclass(frozen=True, kw_only=True)
class OwnPairs(OwnSamples):
    """Preference pairs made from the generator's own samples, scored by the reward."""

    pairs_per_prompt: Annotated[int, COUNT] = 1
    """The best against the worst of a group; 2 also takes the second best against the second worst, and so on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs_per_prompt > self.group_size // 2:
            raise ConfigError(
                f"method.own.pairs_per_prompt = {self.pairs_per_prompt}: expected 1 to group_size // 2 = "
                f"{self.group_size // 2}, since no sample may stand on both sides"
            )


@dataclass(frozen=True, kw_only=True)
class OwnDemonstrations(OwnSamples):
    """The best of the generator's own samples, by the reward."""

    kept_per_prompt: Annotated[int, COUNT] = 1
    """The best so many of a group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kept_per_prompt > self.group_size:
            raise ConfigError(
                f"method.own.kept_per_prompt = {self.kept_per_prompt}: expected 1 to group_size = {self.group_size}"
            )
