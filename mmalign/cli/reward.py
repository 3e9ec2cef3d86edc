"""``mmalign reward``: train a reward, adapt it to a person, judge it, or see how far it can be pushed."""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, UseAppendAction

from mmalign.cli.options import parse
from mmalign.cli.reward_overoptimise import OveroptimiseCommand, overoptimise
from mmalign.cli.reward_train import AdaptCommand, TrainCommand, adapt, train
from mmalign.cli.root import in_root
from mmalign.errors import ConfigError, UnknownNameError
from mmalign.locks import locked_output
from mmalign.ranges import COUNT, NOT_NEGATIVE, check_ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateCommand:
    """How far a reward agrees with people, with intervals over prompts.

    Accuracy (with and without ties, by aspect, by MJ-Bench's perspectives and RewardBench's sections), calibration,
    correlation with size, length and looks, and the order consistency of judges of pairs.
    """

    name: Positional[str]
    """A reward, as `mmalign rewards` lists it, or the address of `mmalign serve`."""
    data: Annotated[UseAppendAction[tuple[Path, ...]], tyro.conf.arg(metavar="PATH")] = ()
    """A table, a dataset or a folder of tables, once or more: prompt, chosen, rejected (and aspect, or subset and
    section), or the columns of MJ-Bench or VideoAlign."""
    out: Path | None = None
    """Write all of it as JSON too."""
    root: Path | None = None
    """Media of the tables may lie anywhere below this folder; by default, below each table's own."""
    threshold: Annotated[float, NOT_NEGATIVE] = 0.0
    """The difference of scores up to which MJ-Bench's protocol sees a tie."""
    batch_size: Annotated[int, COUNT] = 32
    """Samples, or pairs, per call of the reward."""
    resamples: Annotated[int, COUNT] = 1_000
    """Of the intervals."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")
        if not self.data:
            raise ConfigError("no preferences to judge by: add --data FILE")


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign reward``.

    Raises:
        MmalignError: wrong usage, or nothing could be judged.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            "usage: mmalign reward train --data FILE --out FOLDER [--backbone NAME] "
            "[--head linear|deep|token|region] ..."
        )
        print("       mmalign reward adapt --reward FOLDER --data FILE --out FOLDER [--ridge 1.0]")
        print("       mmalign reward evaluate NAME --data FILE [--data FILE ...] [--out FILE.json]")
        print(
            "       mmalign reward overoptimise SAMPLES --proxy NAME --true NAME --out FILE.json [--run RUN] ..."
        )
        return 0 if arguments else 2
    name, *rest = arguments
    actions: dict[str, tuple[type[Any], Callable[[Any], int]]] = {
        "adapt": (AdaptCommand, adapt),
        "evaluate": (EvaluateCommand, evaluate),
        "overoptimise": (OveroptimiseCommand, overoptimise),
        "train": (TrainCommand, train),
    }
    if name not in actions:
        raise UnknownNameError("action of mmalign reward", name, actions)
    kind, act = actions[name]
    command = parse(kind, rest, prog=f"mmalign reward {name}")
    with (
        nullcontext() if command.out is None else locked_output(command.out, getattr(command, "drawn", None))
    ):
        try:
            return in_root(act, command)
        except KeyboardInterrupt:
            if name == "train":
                print("vectors of media so far are kept; the same command goes on with them", file=sys.stderr)
            raise


def evaluate(command: EvaluateCommand) -> int:
    """Judge, print, write; 1 if some pairs have no verdict."""
    import torch
    from rich.console import Console

    from mmalign.data.writers import format_rows
    from mmalign.evaluation.judge_data import read_judge_data
    from mmalign.evaluation.judges import judge, rows_of
    from mmalign.files import whole_file
    from mmalign.rewards.cards import load_reward

    data = read_judge_data(command.data)
    reward = load_reward(command.name, device="cuda" if torch.cuda.is_available() else "cpu")
    found = judge(
        reward,
        data,
        threshold=command.threshold,
        batch_size=command.batch_size,
        resamples=command.resamples,
    )
    rows = rows_of(found)
    print(format_rows(rows, "table"), end="")
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    for reason in found.failures[:5]:
        say(reason, style="yellow", markup=False)
    say(f"{found.layout}: {found.pairs} pairs, {found.judged} with a verdict by {found.reward}", markup=False)
    if command.out is not None:
        with whole_file(command.out) as unfinished:
            unfinished.write_text(
                json.dumps({**asdict(found), "measures": list(rows)}, allow_nan=False, indent=1) + "\n",
                encoding="utf-8",
            )
    return 1 if found.judged < found.pairs or found.failures else 0
