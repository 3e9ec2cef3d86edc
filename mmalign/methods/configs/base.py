"""What settings share: the name of the method, what it learns from, and how it makes that itself."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from mmalign.errors import ConfigError

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

    def passes(self, batch_size: int, *, guided: bool) -> StepPasses:
        """What one optimiser step costs at most; ``guided`` says whether the model has two branches under guidance."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class OwnSamples:
    """The generator's own samples of training prompts, scored by the reward."""

    prompts: int = 200
    """How many of the training prompts are drawn, in the order of the file."""
    group_size: int = 4
    """G, samples per prompt. Flow-GRPO's repository draws 24."""

    def __post_init__(self) -> None:
        for name in ("prompts", "group_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"method.own.{name} = {getattr(self, name)}: expected at least 1")


@dataclass(frozen=True, kw_only=True)
class OwnPairs(OwnSamples):
    """Preference pairs made from the generator's own samples, scored by the reward."""

    pairs_per_prompt: int = 1
    """The best against the worst of a group; 2 also takes the second best against the second worst, and so on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.pairs_per_prompt <= self.group_size // 2:
            raise ConfigError(
                f"method.own.pairs_per_prompt = {self.pairs_per_prompt}: expected 1 to group_size // 2 = "
                f"{self.group_size // 2}, since no sample may stand on both sides"
            )


@dataclass(frozen=True, kw_only=True)
class OwnDemonstrations(OwnSamples):
    """The best of the generator's own samples, by the reward."""

    kept_per_prompt: int = 1
    """The best so many of a group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.kept_per_prompt <= self.group_size:
            raise ConfigError(
                f"method.own.kept_per_prompt = {self.kept_per_prompt}: expected 1 to group_size = {self.group_size}"
            )


def positive(settings: object, *names: str) -> None:
    """Refuse fields that are not above 0.

    Raises:
        ConfigError: with the field.
    """
    for name in names:
        if not getattr(settings, name) > 0:
            raise ConfigError(f"method.{name} = {getattr(settings, name)}: expected a positive number")
