"""``mmalign pairs``: preference pairs or rankings from scored samples, or with ``--select`` pairs to be labelled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from mmalign.cli.options import parse
from mmalign.errors import ConfigError
from mmalign.ranges import COUNT, NOT_NEGATIVE, Range, check_ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsCommand:
    """Preference pairs or rankings of the samples of each prompt, from a file that `mmalign score` wrote.

    Samples without a score take no part, and equal scores are no preference. With --select N it chooses the pairs that
    people should label next: `mmalign pairs --select --help`.
    """

    scores: Positional[Path]
    """A jsonl, csv or parquet file of scores."""
    out: Path
    """The parquet file of preferences."""
    by: Literal["best-worst", "all", "west-of-n", "ranking"] = "best-worst"
    """best-worst: the best against the worst, the second best against the second worst, and so on; all: every two whose
    scores differ by more than --margin; west-of-n: best against worst for the prompts where they differ most; ranking:
    all samples of a prompt in their order."""
    per_prompt: Annotated[int, COUNT] = 1
    """Pairs of a prompt, for best-worst."""
    margin: Annotated[float, NOT_NEGATIVE] = 0.0
    """In the unit of the scores, for all."""
    keep: Annotated[float, Range(above=0, most=1)] = 0.25
    """Share of the prompts, for west-of-n."""
    reward: str | None = None
    """Whose scores, where the file has those of several."""
    better: Literal["higher", "lower"] | None = None
    """Which score is the better one; by default what the reward's card says, and higher where it has none here."""
    root: Path | None = None
    """Where relative paths of media start; by default here, as they did for `mmalign score`."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")
        if self.out.suffix.lower() != ".parquet":
            raise ConfigError(
                f"--out {self.out}: preferences are written as parquet; name it {self.out.stem}.parquet"
            )
        for name, default, needs in (
            ("per_prompt", 1, "best-worst"),
            ("margin", 0.0, "all"),
            ("keep", 0.25, "west-of-n"),
        ):
            if getattr(self, name) != default and self.by != needs:
                raise ConfigError(
                    f"--{name.replace('_', '-')} is for --by {needs}, and this is --by {self.by}"
                )


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign pairs``.

    Raises:
        MmalignError: wrong usage, or no preference came out; nothing was written.
    """
    if any(argument.partition("=")[0] == "--select" for argument in arguments):
        from mmalign.cli import pairs_select

        return pairs_select.main(arguments)
    return run(parse(PairsCommand, arguments, prog="mmalign pairs"))


def run(command: PairsCommand) -> int:
    """Read, pair, write, and say how many."""
    from rich.console import Console

    from mmalign.data.grouping import BUILDERS, as_pairs, as_rankings, read_scores
    from mmalign.data.pairs import write_pairs
    from mmalign.data.rankings import write_rankings
    from mmalign.rewards.cards import cards

    groups = read_scores(command.scores, reward=command.reward, root=command.root)
    card = cards().get(groups.reward)
    higher = command.better == "higher" if command.better else card is None or card.higher_is_better
    if not higher:
        groups = read_scores(command.scores, reward=command.reward, root=command.root, higher_is_better=False)
    options: dict[str, dict[str, Any]] = {
        "all": {"margin": command.margin},
        "best-worst": {"pairs_per_group": command.per_prompt},
        "west-of-n": {"keep": command.keep},
    }
    if command.by == "ranking":
        rankings = as_rankings(groups)
        count = len(rankings)
        if rankings:
            write_rankings(command.out, rankings)
    else:
        pairs = as_pairs(groups, BUILDERS[command.by](groups.scores, **options[command.by]))
        count = len(pairs)
        if pairs:
            write_pairs(command.out, pairs)
    if not count:
        raise ConfigError(
            f"{command.scores}: no preference among {len(groups.prompts)} prompts; each needs two samples whose scores "
            "differ"
        )
    scored = sum(len(media) for media in groups.media)
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"{scored + groups.unscored} samples, {scored} with a score by {groups.reward}, {len(groups.prompts)} prompts: "
        f"{count} {'rankings' if command.by == 'ranking' else 'pairs'}",
        markup=False,
    )
    print(command.out)
    return 0
